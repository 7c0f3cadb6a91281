package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func snapshotCommand() *cli.Command {
	return &cli.Command{
		Name:  "snapshot",
		Usage: "keep, read and go back to images of a volume at one point of its order",
		UsageText: "lockstep snapshot create VOLUME NAME\nlockstep snapshot list VOLUME\nlockstep snapshot export VOLUME NAME --read-only\n" +
			"lockstep snapshot unexport VOLUME NAME\nlockstep snapshot rollback VOLUME NAME [--dry-run] [--yes]\nlockstep snapshot give-up VOLUME [--dry-run] [--yes]\nlockstep snapshot delete VOLUME NAME [--dry-run] [--yes]",
		Description: "A snapshot is of this node's replica, Primary or not, and is kept on this node alone, in its\n" +
			"data directory. It costs the old content of what is overwritten since, and the write that\n" +
			"overwrites a block first waits for that. With no room it is lost, and the volume goes on.\n" +
			"The losing side of a split-brain is kept as one, too (`lockstep split resolve`).\n\n" +
			"EXAMPLES:\n  lockstep snapshot create data monday\n  lockstep snapshot list data\n  lockstep snapshot export data monday --read-only\n  lockstep snapshot rollback data monday --dry-run",
		Subcommands: []*cli.Command{
			snapshotCreateCommand(), snapshotListCommand(), snapshotExportCommand(), snapshotUnexportCommand(), snapshotRollbackCommand(), snapshotGiveUpCommand(), snapshotDeleteCommand(),
		},
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if word := c.Args().First(); word != "" {
				return usage("snapshot", "snapshot does not know what to do with %q", word)
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

func snapshotCreateCommand() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "make a snapshot of this node's replica",
		UsageText: "lockstep snapshot create VOLUME NAME",
		Description: "It is the volume at one point of its order: everything that was written before the command,\n" +
			"flushed or not, and nothing torn. A file system in it is as after a power failure; freeze it\n" +
			"first (`fsfreeze`) for more than that. Clients go on meanwhile. A replica has at most 16.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep snapshot create data monday",
		Flags: asking(jsonFlag()),
		Action: arguments([]string{"VOLUME", "NAME"}, func(c *cli.Context, args []string) error {
			s, err := client(c).CreateSnapshot(c.Context, args[0], node.SnapshotRequest{Name: args[1]})
			if err != nil {
				return err
			}
			return printSnapshot(c, args[0], s, fmt.Sprintf("made, up to LSN %d", s.At.LSN))
		}),
	}
}

func snapshotListCommand() *cli.Command {
	return &cli.Command{
		Name:      "list",
		Usage:     "list the snapshots of this node's replica",
		UsageText: "lockstep snapshot list VOLUME",
		Description: "OVERWRITTEN is how much of the volume was overwritten since, and ON DISK what its old content\n" +
			"takes.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep snapshot list data",
		Flags: asking(jsonFlag()),
		Action: arguments([]string{"VOLUME"}, func(c *cli.Context, args []string) error {
			list, err := client(c).Snapshots(c.Context, args[0])
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, list)
			}
			return writeSnapshots(c.App.Writer, args[0], list)
		}),
	}
}

func snapshotExportCommand() *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "export a snapshot read-only",
		UsageText: "lockstep snapshot export VOLUME NAME --read-only",
		Description: "The export's name is VOLUME@NODE@NAME. It stays until `lockstep snapshot unexport`, and ends\n" +
			"with the snapshot, and with the daemon.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep snapshot export data monday --read-only",
		Flags: asking(&cli.BoolFlag{Name: "read-only", Usage: "which it has to be", DisableDefaultText: true}, jsonFlag()),
		Action: arguments([]string{"VOLUME", "NAME"}, func(c *cli.Context, args []string) error {
			if !c.Bool("read-only") {
				return usage("snapshot export", "a snapshot takes no writes: add --read-only")
			}
			s, err := client(c).ExportSnapshot(c.Context, args[0], args[1], node.ExportRequest{ReadOnly: true})
			if err != nil {
				return err
			}
			return printSnapshot(c, args[0], s, "exported read-only as "+s.Export)
		}),
	}
}

func snapshotUnexportCommand() *cli.Command {
	return &cli.Command{
		Name:        "unexport",
		Usage:       "end the read-only export of a snapshot",
		UsageText:   "lockstep snapshot unexport VOLUME NAME",
		Description: "Its clients are disconnected.\n\nEXAMPLES:\n  lockstep snapshot unexport data monday",
		Flags:       asking(jsonFlag()),
		Action: arguments([]string{"VOLUME", "NAME"}, func(c *cli.Context, args []string) error {
			s, err := client(c).UnexportSnapshot(c.Context, args[0], args[1])
			if err != nil {
				return err
			}
			return printSnapshot(c, args[0], s, "not exported any more")
		}),
	}
}

func snapshotDeleteCommand() *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "delete a snapshot",
		UsageText: "lockstep snapshot delete VOLUME NAME [--dry-run] [--yes]",
		Description: "The volume is not touched. It says what the snapshot is and asks for its name first, unless\n" +
			"--yes is given. Of the losing side of a split-brain nothing is left then.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep snapshot delete data monday\n" +
			"  lockstep snapshot delete data monday --yes",
		Flags: asking(
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask", DisableDefaultText: true},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be deleted, and change nothing", DisableDefaultText: true},
			jsonFlag()),
		Action: arguments([]string{"VOLUME", "NAME"}, snapshotDelete),
	}
}

func snapshotDelete(c *cli.Context, args []string) error {
	volume, name, daemon := args[0], args[1], client(c)
	s, err := findSnapshot(c, volume, name)
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		fmt.Fprintf(c.App.Writer, "snapshot %s of volume %s, up to LSN %d, made at %s: %s\n", s.Name, volume, s.At.LSN, s.Created.Format(time.RFC3339), snapshotState(&s))
	}
	if c.Bool("dry-run") {
		if c.Bool("json") {
			return printJSON(c.App.Writer, s)
		}
		return nil
	}
	if !typedName(c, name) {
		return fmt.Errorf("snapshot %q was not deleted: its name was not typed in (--yes does without)", name)
	}
	if err := daemon.DeleteSnapshot(c.Context, volume, name); err != nil {
		return err
	}
	return printSnapshot(c, volume, s, "deleted")
}

// findSnapshot asks for one of a volume's.
func findSnapshot(c *cli.Context, volume, name string) (node.Snapshot, error) {
	list, err := client(c).Snapshots(c.Context, volume)
	if err != nil {
		return node.Snapshot{}, err
	}
	for _, s := range list {
		if s.Name == name {
			return s, nil
		}
	}
	return node.Snapshot{}, fmt.Errorf("volume %q has no snapshot %q on this node: `lockstep snapshot list %s` lists them", volume, name, volume)
}

// typedName has the user type a name, unless --yes is given. An end of input is a no.
func typedName(c *cli.Context, name string) bool {
	if c.Bool("yes") {
		return true
	}
	return typed(c, "snapshot", name)
}

// typed has the user type the name of something.
func typed(c *cli.Context, what, name string) bool {
	fmt.Fprintf(c.App.ErrWriter, "Type the %s's name to go on: ", what)
	answer, _ := bufio.NewReader(c.App.Reader).ReadString('\n')
	return strings.TrimSpace(answer) == name
}

// printSnapshot prints what became of a snapshot, in one line or as JSON.
func printSnapshot(c *cli.Context, volume string, s node.Snapshot, what string) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, s)
	}
	fmt.Fprintf(c.App.Writer, "snapshot %s of volume %s: %s\n", s.Name, volume, what)
	return nil
}

func writeSnapshots(w io.Writer, volume string, list []node.Snapshot) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(w, "volume %s has no snapshots on this node\n", volume)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SNAPSHOT\tCREATED\tLSN\tOVERWRITTEN\tON DISK\tSTATE")
	for i := range list {
		s := &list[i]
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", s.Name, s.Created.Format(time.DateTime), s.At.LSN,
			humanize.IBytes(uint64(s.Preserved)), humanize.IBytes(uint64(s.Used)), snapshotState(s))
	}
	return table.Flush()
}

// snapshotState is how a snapshot is, in words.
func snapshotState(s *node.Snapshot) string {
	state := "whole"
	if s.Lost != "" {
		state = "LOST: " + s.Lost
	}
	if s.Peer != "" {
		state += ", the losing side of the split-brain with " + s.Peer
	}
	if s.Before {
		state += ", of before a rollback, and dropped once that is through"
	}
	if s.Export != "" && s.Image != nil {
		state += fmt.Sprintf(", exported read-only as %s, %s", s.Export, counted(s.Image.Sessions, "client"))
	}
	if s.Rollback != nil {
		state += ", " + rollingBack(s.Rollback)
	}
	return state
}

// rollingBack says how far a rollback has come.
func rollingBack(p *mirror.RollbackProgress) string {
	if p.Total == 0 {
		return "a rollback to it was interrupted: do it again"
	}
	return fmt.Sprintf("the volume is being rolled back to it: %d%%, %s of %s", 100*p.Done/p.Total, humanize.IBytes(uint64(p.Done)), humanize.IBytes(uint64(p.Total)))
}
