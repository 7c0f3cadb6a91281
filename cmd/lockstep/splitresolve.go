package main

import (
	"fmt"
	"io"

	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func splitResolveCommand() *cli.Command {
	return &cli.Command{
		Name:      "resolve",
		Usage:     "end a split-brain: keep one side's writes, and have the other resynced",
		UsageText: "lockstep split resolve VOLUME --keep NODE [--dry-run] [--discard-losing-writes]",
		Description: "The side that is not kept gives up what it wrote since the two parted, and is resynced\n" +
			"from the other: the blocks that either side wrote. What it had goes to a snapshot on its\n" +
			"node first, which stays until `lockstep snapshot delete`: export it, compare the two, or\n" +
			"go back to it (`lockstep snapshot`). --discard-losing-writes keeps it nowhere. --dry-run\n" +
			"says who loses what, and no more.\n" +
			"A losing Primary is demoted if the command is typed there: its clients are disconnected.\n\n" +
			"It may be typed on either node, and says what is to be typed on the other. It holds for\n" +
			"what was shown: should the losing side write more before the two meet, nothing is done.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep split resolve data --keep alpha --dry-run\n" +
			"  lockstep split resolve data --keep alpha",
		Flags: asking(
			&cli.StringFlag{Name: "keep", Usage: "the `NODE` whose writes are kept"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be given up, and change nothing", DisableDefaultText: true},
			&cli.BoolFlag{Name: "discard-losing-writes", Usage: "keep no snapshot of what is given up: it is lost", DisableDefaultText: true},
			jsonFlag()),
		Action: arguments([]string{"VOLUME"}, splitResolve),
	}
}

func splitResolve(c *cli.Context, args []string) error {
	name, keep, daemon := args[0], c.String("keep"), client(c)
	if keep == "" {
		return usage(nameOf(c), "%s needs --keep NODE: the node whose writes are kept", nameOf(c))
	}
	r := node.ResolveRequest{Keep: keep, DryRun: true, DiscardLosingWrites: c.Bool("discard-losing-writes")}
	plan, err := daemon.Resolve(c.Context, name, r)
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		printLoss(c.App.Writer, plan)
	}
	if r.DryRun = c.Bool("dry-run"); !r.DryRun {
		if plan, err = daemon.Resolve(c.Context, name, r); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, plan)
	}
	printSteps(c.App.Writer, plan, c.Bool("dry-run"))
	return nil
}

// printLoss says who loses what.
func printLoss(w io.Writer, p mirror.SplitPlan) {
	fmt.Fprintf(w, "volume %s: %s is kept, and %s gives up what it wrote since they parted %s\n", p.Volume, p.Keep, p.Lost.Node, partedAt(p.Since))
	printSide(w, &p.Lost, "loses")
	if p.Preserved != "" {
		fmt.Fprintf(w, "\nWhat %s has is kept there as snapshot %s, until `lockstep snapshot delete %s %s`.\n", p.Lost.Node, p.Preserved, p.Volume, p.Preserved)
	} else {
		fmt.Fprintf(w, "\n%s's writes are NOT kept: once the two have met they are gone.\n", p.Lost.Node)
	}
	if p.Demotes {
		fmt.Fprintf(w, "%s is demoted, and its clients are disconnected.\n", p.Lost.Node)
	}
}

// printSteps says what is left to do.
func printSteps(w io.Writer, p mirror.SplitPlan, dry bool) {
	if dry {
		fmt.Fprintf(w, "Nothing was changed. ")
	}
	if len(p.Next) == 0 {
		fmt.Fprintln(w)
		return
	}
	when := "Now type:"
	if dry {
		when = "Afterwards there would be left to do:"
	}
	fmt.Fprintln(w, when)
	for _, s := range p.Next {
		fmt.Fprintf(w, "  %s$ %s\n", s.Node, s.Command)
	}
}
