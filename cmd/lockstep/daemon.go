package main

import (
	"encoding/json"
	"io"
	"os"

	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

const (
	socketEnv   = "LOCKSTEP_SOCKET"
	socketUsage = "the daemon's admin `SOCKET`"
)

func globalSocket() cli.Flag {
	return &cli.StringFlag{Name: "socket", Usage: socketUsage, EnvVars: []string{socketEnv},
		Value: node.DefaultSocket(), DefaultText: "admin.sock in the default data directory"}
}

// asking are the flags of every command that asks the daemon, with its own.
func asking(own ...cli.Flag) []cli.Flag {
	return append(own, &cli.StringFlag{Name: "socket", Usage: socketUsage})
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON", DisableDefaultText: true}
}

// socketOf gives the socket that the command or else the whole line names, and
// what to add to a command that we tell the user to type.
func socketOf(c *cli.Context) (path, words string) {
	if path = c.String("socket"); path == "" {
		lineage := c.Lineage()
		path = lineage[1].String("socket")
	}
	if path != node.DefaultSocket() && path != os.Getenv(socketEnv) {
		words = " --socket " + path
	}
	return path, words
}

func client(c *cli.Context) *node.Client {
	path, _ := socketOf(c)
	return node.NewClient(path)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
