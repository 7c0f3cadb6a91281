package main

import "github.com/urfave/cli/v2"

func splitCommand() *cli.Command {
	return &cli.Command{
		Name:            "split",
		Usage:           "look into a split-brain, and resolve it",
		UsageText:       "lockstep split show VOLUME\nlockstep split resolve VOLUME --keep NODE [options]",
		Description:     "EXAMPLES:\n  lockstep split show data\n  lockstep split resolve data --keep alpha --dry-run",
		Subcommands:     []*cli.Command{splitShowCommand(), splitResolveCommand()},
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if word := c.Args().First(); word != "" {
				return usage("split", "split does not know what to do with %q", word)
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}
