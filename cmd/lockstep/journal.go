package main

import "github.com/urfave/cli/v2"

func journalCommand() *cli.Command {
	return &cli.Command{
		Name:            "journal",
		Usage:           "look into the journal of a stopped daemon's replica",
		UsageText:       "lockstep journal dump [VOLUME | --dir DIRECTORY] [options]",
		Description:     "EXAMPLES:\n  lockstep journal dump data",
		Subcommands:     []*cli.Command{journalDumpCommand()},
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if word := c.Args().First(); word != "" {
				return usage("journal", "journal does not know what to do with %q", word)
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}
