package main

import "github.com/urfave/cli/v2"

func demoteCommand() *cli.Command {
	return &cli.Command{
		Name:      "demote",
		Usage:     "make this node a Secondary of the volume",
		UsageText: "lockstep demote VOLUME",
		Description: "The volume's clients on this node are disconnected first; what they were answered\n" +
			"stays written.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep demote data",
		Flags: asking(jsonFlag()),
		Action: arguments([]string{"VOLUME"}, func(c *cli.Context, args []string) error {
			st, err := client(c).Demote(c.Context, args[0])
			return printChanged(c, st, err)
		}),
	}
}
