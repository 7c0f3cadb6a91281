package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/urfave/cli/v2"
)

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "take this node's replica back to what it was before a bitmap resync",
		UsageText: "lockstep rollback VOLUME [--yes] [--dry-run]",
		Description: "For a replica that is Inconsistent because the node that it was being resynced from is\n" +
			"gone for good. What the resync overwrote is written back; the replica is then the image\n" +
			"that it had before, Outdated, and may be promoted with --force. Whatever was written\n" +
			"elsewhere since is not in it. It says what it will do and asks for the volume's name\n" +
			"first, unless --yes is given.\n\n" +
			"The volume stays disconnected from its peers until `lockstep connect` or a restart of the\n" +
			"daemon; the next Primary that it meets then resyncs it again.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep rollback data --dry-run\n" +
			"  lockstep rollback data\n" +
			"  lockstep rollback data --yes && lockstep promote data --force",
		Flags: asking(
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask", DisableDefaultText: true},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what it would do, and change nothing", DisableDefaultText: true},
			jsonFlag()),
		Action: arguments([]string{"VOLUME"}, rollback),
	}
}

func rollback(c *cli.Context, args []string) error {
	name, daemon := args[0], client(c)
	plan, err := daemon.PlanRollback(c.Context, name)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") && c.Bool("json") {
		return printJSON(c.App.Writer, plan)
	}
	if !c.Bool("json") {
		printRollback(c.App.Writer, plan)
	}
	switch {
	case c.Bool("dry-run"):
		return nil
	case !c.Bool("yes"):
		fmt.Fprintf(c.App.ErrWriter, "Type the volume's name to go on: ")
		answer, _ := bufio.NewReader(c.App.Reader).ReadString('\n')
		if strings.TrimSpace(answer) != name {
			return fmt.Errorf("volume %q was not rolled back: its name was not typed in (--yes does without)", name)
		}
	}
	st, err := daemon.Rollback(c.Context, name)
	return printChanged(c, st, err)
}

func printRollback(w io.Writer, p mirror.RollbackPlan) {
	fmt.Fprintf(w, "volume %s, %s, on node %s: in the middle of a resync from %s that began at %s\n",
		p.Volume, humanize.IBytes(uint64(p.Size)), p.Node, p.Source, p.Began.Format(time.RFC3339))
	fmt.Fprintf(w, "It goes back to LSN %d: %s are written back. What %s has since is not in it.\n", p.Base.LSN, humanize.IBytes(uint64(p.Restores)), p.Source)
	fmt.Fprintf(w, "Then it is Outdated, and disconnected until `lockstep connect %s`.\n", p.Volume)
}
