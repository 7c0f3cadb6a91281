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
		Usage:     "make the keys with which nodes and NBD clients prove who they are",
		UsageText: "lockstep keys [NODE...] [--client NAME]... [--dir DIRECTORY] [--replace]",
		Description: "Makes DIRECTORY/NODE for each node, with what its peer.tls and nbd.tls need: ca.crt,\n" +
			"node.crt and node.key. Makes DIRECTORY/clients/NAME for each NBD client, with what libnbd and\n" +
			"qemu look for: ca-cert.pem, client-cert.pem and client-key.pem. The CA that vouches for all,\n" +
			"ca.crt and ca.key in DIRECTORY, is made as well unless it is there, and is never replaced.\n" +
			"Whoever has ca.key can pose as any of them.\n" +
			"No daemon is asked; each reads its files anew for every connection.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep keys alpha beta\n" +
			"  lockstep keys gamma\n" +
			"  lockstep keys --client web1\n" +
			"  lockstep keys alpha --replace",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "the `DIRECTORY` of the CA and the nodes' keys", Value: "lockstep-keys"},
			&cli.StringSliceFlag{Name: "client", Usage: "make keys for the NBD client `NAME`; may be given several times"},
			&cli.BoolFlag{Name: "replace", Usage: "make new keys for those that have some", DisableDefaultText: true},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			clients := c.StringSlice("client")
			if c.NArg()+len(clients) == 0 {
				return usage("keys", "keys needs NODE... or --client NAME")
			}
			k, err := node.MakeKeys(node.KeysOptions{Dir: c.String("dir"), Nodes: c.Args().Slice(), Clients: clients, Replace: c.Bool("replace")})
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
	for _, n := range k.Clients {
		fmt.Fprintf(w, "client %s: ca-cert.pem, client-cert.pem and client-key.pem in %s, until %s\n", n.Client, n.Dir, n.Until.Local().Format(time.DateOnly))
	}
	if len(k.Nodes) > 0 {
		fmt.Fprintln(w, "\nCopy to each node its three files, into a directory of which only the daemon's user may read anything:")
		for _, n := range k.Nodes {
			fmt.Fprintf(w, "  scp %s/* %s:/etc/lockstep/tls/\n", n.Dir, n.Node)
		}
		fmt.Fprint(w, "and name them in the configuration of every node, the same on all:\n"+
			"  peer:\n"+
			"    tls: {ca: /etc/lockstep/tls/ca.crt, cert: /etc/lockstep/tls/node.crt, key: /etc/lockstep/tls/node.key}\n")
	}
	if len(k.Clients) > 0 {
		fmt.Fprintln(w, "\nA client takes the directory of its three files, copied to its host, and a node by the node's name:")
		for _, n := range k.Clients {
			fmt.Fprintf(w, "  nbdinfo 'nbds://NODE/VOLUME?tls-certificates=%s'\n", n.Dir)
		}
		fmt.Fprint(w, "The nodes' nbd.tls has the three files of the node, and under clients which volumes it may open.\n")
	}
	_, err := fmt.Fprintf(w, "\nNo node and no client needs %s. Keep it, and keep it from others: it makes keys for more of them, and new ones.\n", k.CA.Key)
	return err
}
