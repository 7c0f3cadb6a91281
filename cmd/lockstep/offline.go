package main

import (
	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

// offline are the flags of every command that reads a stopped daemon's files,
// with its own.
func offline(own ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "the daemon's configuration `FILE`, which says where its volumes are", DefaultText: "the default data directory"},
		&cli.StringFlag{Name: "dir", Usage: "the `DIRECTORY` of one replica, in place of a volume's name"},
		jsonFlag(),
	}, own...)
}

// openOffline takes the replicas that the command line names: a volume, a
// directory, or all.
func openOffline(c *cli.Context, args []string) (*node.Offline, error) {
	cfg, err := config(c.String("config"))
	if err != nil {
		return nil, err
	}
	volume := ""
	if len(args) > 0 {
		volume = args[0]
	}
	switch dir := c.String("dir"); {
	case dir != "" && volume != "":
		return nil, usage(nameOf(c), "%s takes a volume or --dir, not both", nameOf(c))
	case dir != "":
		return node.OpenOfflineDir(cfg, dir)
	}
	return node.OpenOffline(cfg, volume)
}
