package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func deleteCommand() *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "remove a volume's replica, and its data, from this node",
		UsageText: "lockstep delete VOLUME [--yes]",
		Description: "A Primary must be demoted first. The replicas on other nodes stay.\n" +
			"It asks for the volume's name before it does anything, unless --yes is given.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep delete data\n" +
			"  lockstep delete data --yes",
		Flags:  asking(&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask", DisableDefaultText: true}),
		Action: arguments([]string{"VOLUME"}, remove),
	}
}

func remove(c *cli.Context, args []string) error {
	name, daemon := args[0], client(c)
	if !c.Bool("yes") {
		st, err := daemon.Volume(c.Context, name)
		if err != nil {
			return err
		}
		if !confirmed(c, st) {
			return fmt.Errorf("volume %q was not deleted: its name was not typed in (--yes does without)", name)
		}
	}
	if err := daemon.Delete(c.Context, name); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "volume %s deleted from this node\n", name)
	return nil
}

// confirmed has the user type the volume's name. An end of input is a no.
func confirmed(c *cli.Context, st node.VolumeStatus) bool {
	what := "the replica of volume " + st.Name
	if st.Status != nil {
		what = fmt.Sprintf("node %s's replica of volume %s, %s", st.Node, st.Name, humanize.IBytes(uint64(st.Size)))
		if n := len(st.Snapshots); n > 0 {
			what += ", " + counted(n, "snapshot")
		}
	}
	fmt.Fprintf(c.App.Writer, "This deletes %s, and its data. Type the volume's name to go on: ", what)
	answer, _ := bufio.NewReader(c.App.Reader).ReadString('\n')
	return strings.TrimSpace(answer) == st.Name
}
