package main

import "github.com/urfave/cli/v2"

func splitCommand() *cli.Command {
	return &cli.Command{
		Name:            "split",
		Usage:           "look into a split-brain",
		UsageText:       "lockstep split show VOLUME [--json]",
		Description:     "EXAMPLES:\n  lockstep split show data",
		Subcommands:     []*cli.Command{splitShowCommand()},
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if word := c.Args().First(); word != "" {
				return usage("split", "split does not know what to do with %q", word)
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}
