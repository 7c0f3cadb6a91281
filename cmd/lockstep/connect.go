package main

import (
	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func connectCommand() *cli.Command {
	return &cli.Command{
		Name:      "connect",
		Usage:     "let the volume seek its peers again",
		UsageText: "lockstep connect VOLUME [PEER]",
		Description: "Takes the connection to the peer, or to all of them, out of StandAlone.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep connect data\n" +
			"  lockstep connect data beta",
		Flags: asking(jsonFlag()),
		Action: arguments([]string{"VOLUME", "[PEER]"}, func(c *cli.Context, args []string) error {
			st, err := client(c).Connect(c.Context, args[0], peerRequest(args))
			return printChanged(c, st, err)
		}),
	}
}

func peerRequest(args []string) node.PeerRequest {
	if len(args) < 2 {
		return node.PeerRequest{}
	}
	return node.PeerRequest{Peer: args[1]}
}
