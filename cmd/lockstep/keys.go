package main

import (
	"fmt"
	"io"
	"time"

	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func keysCommand() *cli.Command {
	return &cli.Command{
		Name:      "keys",
		Usage:     "make the keys with which nodes prove to each other who they are",
		UsageText: "lockstep keys NODE... [--dir DIRECTORY] [--replace]",
		Description: "Makes DIRECTORY/NODE for each node, with what its peer.tls needs: ca.crt, node.crt and\n" +
			"node.key. The CA that vouches for them, ca.crt and ca.key in DIRECTORY, is made as well\n" +
			"unless it is there, and is never replaced. Whoever has ca.key can pose as any node.\n" +
			"No daemon is asked; each reads its files anew for every connection.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep keys alpha beta\n" +
			"  lockstep keys gamma\n" +
			"  lockstep keys alpha --replace",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "the `DIRECTORY` of the CA and the nodes' keys", Value: "lockstep-keys"},
			&cli.BoolFlag{Name: "replace", Usage: "make new keys for nodes that have some", DisableDefaultText: true},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usage("keys", "keys needs NODE...")
			}
			k, err := node.MakeKeys(node.KeysOptions{Dir: c.String("dir"), Nodes: c.Args().Slice(), Replace: c.Bool("replace")})
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, k)
			}
			return writeKeys(c.App.Writer, k)
		},
	}
}

// writeKeys says what was made, and what to do with it.
func writeKeys(w io.Writer, k node.Keys) error {
	made := "the CA that is there"
	if k.CA.Made {
		made = "a new CA"
	}
	fmt.Fprintf(w, "%s: %s and %s, until %s\n", made, k.CA.Cert, k.CA.Key, k.CA.Until.Local().Format(time.DateOnly))
	for _, n := range k.Nodes {
		fmt.Fprintf(w, "node %s: ca.crt, node.crt and node.key in %s, until %s\n", n.Node, n.Dir, n.Until.Local().Format(time.DateOnly))
	}
	fmt.Fprintln(w, "\nCopy to each node its three files, into a directory of which only the daemon's user may read anything:")
	for _, n := range k.Nodes {
		fmt.Fprintf(w, "  scp %s/* %s:/etc/lockstep/tls/\n", n.Dir, n.Node)
	}
	_, err := fmt.Fprintf(w, "and name them in the configuration of every node, the same on all:\n"+
		"  peer:\n"+
		"    tls: {ca: /etc/lockstep/tls/ca.crt, cert: /etc/lockstep/tls/node.crt, key: /etc/lockstep/tls/node.key}\n"+
		"\nNo node needs %s. Keep it, and keep it from others: it makes keys for more nodes, and new ones.\n", k.CA.Key)
	return err
}
