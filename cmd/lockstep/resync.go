package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/lockstep-storage/lockstep/node"
)

func resyncCommand() *cli.Command {
	return &cli.Command{
		Name:            "resync",
		Usage:           "hold a volume's bitmap resyncs back, or let them go on",
		UsageText:       "lockstep resync pause VOLUME\nlockstep resync resume VOLUME",
		Description:     "EXAMPLES:\n  lockstep resync pause data\n  lockstep resync resume data",
		Subcommands:     []*cli.Command{resyncPauseCommand(), resyncResumeCommand()},
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if word := c.Args().First(); word != "" {
				return usage("resync", "resync does not know what to do with %q", word)
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

func resyncPauseCommand() *cli.Command {
	return &cli.Command{
		Name:      "pause",
		Usage:     "hold the volume's bitmap resyncs back",
		UsageText: "lockstep resync pause VOLUME",
		Description: "Holds back every bitmap resync of the volume in which this node is the source or the\n" +
			"target, and those to come, until `lockstep resync resume` here. What clients write goes\n" +
			"on to the peers meanwhile. The pause is not stored: a daemon that starts again resyncs.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep resync pause data\n" +
			"  lockstep resync pause data --json",
		Flags:  asking(jsonFlag()),
		Action: onResync((*node.Client).PauseResync),
	}
}

func resyncResumeCommand() *cli.Command {
	return &cli.Command{
		Name:      "resume",
		Usage:     "let the volume's bitmap resyncs go on",
		UsageText: "lockstep resync resume VOLUME",
		Description: "Ends what `lockstep resync pause` began on this node. A resync that is paused on the\n" +
			"other node too, or waits for another volume's (resync-after), still waits.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep resync resume data",
		Flags:  asking(jsonFlag()),
		Action: onResync((*node.Client).ResumeResync),
	}
}

func onResync(ask func(*node.Client, context.Context, string) (node.VolumeStatus, error)) cli.ActionFunc {
	return arguments([]string{"VOLUME"}, func(c *cli.Context, args []string) error {
		st, err := ask(client(c), c.Context, args[0])
		return printChanged(c, st, err)
	})
}
