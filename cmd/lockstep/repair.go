package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func repairCommand() *cli.Command {
	return &cli.Command{
		Name:      "repair",
		Usage:     "give up the lost journal of this node's replica, and have it resynced",
		UsageText: "lockstep repair VOLUME [--yes] [--force] [--dry-run]",
		Description: "For a replica that is not open because its journal is missing or damaged, or that is\n" +
			"Failed. What is left of the journal is set aside and a new one made; the replica is\n" +
			"Inconsistent until a peer that is Primary has resynced what is in doubt: the regions\n" +
			"that were marked as being written, and what the peer knows to be out of sync. It says\n" +
			"what it will do and asks for the volume's name first, unless --yes is given.\n\n" +
			"Refused if no peer has what the clients wrote last. --force then makes the volume what\n" +
			"this node's store holds; writes may be missing from it, and the replicas on other nodes\n" +
			"have to be deleted and created again.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep repair data --dry-run\n" +
			"  lockstep repair data\n" +
			"  lockstep repair data --force --yes",
		Flags: asking(
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask", DisableDefaultText: true},
			&cli.BoolFlag{Name: "force", Usage: "take what the store holds for the volume, whatever is missing from it", DisableDefaultText: true},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what it would do, and change nothing", DisableDefaultText: true},
			&cli.StringFlag{Name: "journal-size", Usage: "`SIZE` of the new journal (default: the old one's, or 256MiB)"},
			jsonFlag()),
		Action: arguments([]string{"VOLUME"}, repair),
	}
}

func repair(c *cli.Context, args []string) error {
	name, daemon := args[0], client(c)
	r := node.RepairRequest{Force: c.Bool("force")}
	if text := c.String("journal-size"); text != "" {
		size, err := node.ParseSize(text)
		if err != nil {
			return usage("repair", "--journal-size: %v", err)
		}
		r.JournalSize = size
	}
	plan, err := daemon.PlanRepair(c.Context, name)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") && c.Bool("json") {
		return printJSON(c.App.Writer, plan)
	}
	if !c.Bool("json") {
		printRepair(c.App.Writer, plan, r.Force)
	}
	switch {
	case c.Bool("dry-run"):
		return nil
	case plan.Refused != "" && !r.Force:
		return refusedRepair(c, plan)
	case !c.Bool("yes"):
		fmt.Fprintf(c.App.ErrWriter, "Type the volume's name to go on: ")
		answer, _ := bufio.NewReader(c.App.Reader).ReadString('\n')
		if strings.TrimSpace(answer) != name {
			return fmt.Errorf("volume %q was not repaired: its name was not typed in (--yes does without)", name)
		}
	}
	st, err := daemon.Repair(c.Context, name, r)
	return printChanged(c, st, err)
}

func printRepair(w io.Writer, p mirror.RepairPlan, force bool) {
	reason := p.Reason
	if reason == "" {
		reason = p.Refused
	}
	fmt.Fprintf(w, "volume %s, %s, on node %s: %s\n", p.Volume, humanize.IBytes(uint64(p.Size)), p.Node, reason)
	fmt.Fprintf(w, "Its journal is set aside and a new one made.\n")
	if force {
		fmt.Fprintf(w, "What its store holds becomes the volume, and every other replica has to be created anew. Lost may be:\n")
		for _, s := range p.Loses {
			fmt.Fprintf(w, "  - %s\n", s)
		}
		return
	}
	fmt.Fprintf(w, "%s are in doubt, and are resynced from a Primary", humanize.IBytes(uint64(p.InDoubt)))
	if len(p.Sources) > 0 {
		fmt.Fprintf(w, " (%s)", strings.Join(p.Sources, ", "))
	}
	fmt.Fprintf(w, ", with what that knows to be out of sync. Until then the replica is Inconsistent.\n")
}

// refusedRepair says what only force would do.
func refusedRepair(c *cli.Context, p mirror.RepairPlan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "volume %q was not repaired: %s", p.Volume, p.Refused)
	_, words := socketOf(c)
	fmt.Fprintf(&b, "\nTo go on with what this node's store holds, and lose what may be missing from it:\n  lockstep repair %s --force%s", p.Volume, words)
	for _, s := range p.Loses {
		fmt.Fprintf(&b, "\n  - %s", s)
	}
	fmt.Fprintf(&b, "\nTo give this replica up instead: lockstep delete %s%s", p.Volume, words)
	return errors.New(b.String())
}
