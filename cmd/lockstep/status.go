package main

import (
	"fmt"
	"time"

	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show the volumes of this node and their peers",
		UsageText: "lockstep status [VOLUME] [--json] [--watch]",
		Description: "EXAMPLES:\n" +
			"  lockstep status\n" +
			"  lockstep status data --watch\n" +
			"  lockstep status --json",
		Flags: asking(jsonFlag(),
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "show it again every second, until interrupted", DisableDefaultText: true}),
		Action: arguments([]string{"[VOLUME]"}, status),
	}
}

func status(c *cli.Context, args []string) error {
	daemon := client(c)
	for {
		st, err := daemon.Status(c.Context)
		if err != nil {
			return err
		}
		if len(args) == 1 {
			v, err := daemon.Volume(c.Context, args[0])
			if err != nil {
				return err
			}
			st.Volumes = []node.VolumeStatus{v}
		}
		if c.Bool("watch") && !c.Bool("json") {
			fmt.Fprint(c.App.Writer, "\x1b[H\x1b[2J") // home, clear the screen
		}
		if err := printStatus(c, st); err != nil || !c.Bool("watch") {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-c.Context.Done():
			return nil
		}
	}
}

func printStatus(c *cli.Context, st node.Status) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, st)
	}
	return writeStatus(c.App.Writer, st)
}
