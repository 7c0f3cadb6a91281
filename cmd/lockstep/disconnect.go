package main

import "github.com/urfave/cli/v2"

func disconnectCommand() *cli.Command {
	return &cli.Command{
		Name:      "disconnect",
		Usage:     "part the volume from its peers",
		UsageText: "lockstep disconnect VOLUME [PEER]",
		Description: "Puts the connection to the peer, or to all of them, into StandAlone, where it stays\n" +
			"until `lockstep connect`. A Primary goes on alone.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep disconnect data\n" +
			"  lockstep disconnect data beta",
		Flags: asking(jsonFlag()),
		Action: arguments([]string{"VOLUME", "[PEER]"}, func(c *cli.Context, args []string) error {
			st, err := client(c).Disconnect(c.Context, args[0], peerRequest(args))
			return printChanged(c, st, err)
		}),
	}
}
