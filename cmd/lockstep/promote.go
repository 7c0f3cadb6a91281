package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func promoteCommand() *cli.Command {
	return &cli.Command{
		Name:      "promote",
		Usage:     "make this node the volume's Primary, which serves it",
		UsageText: "lockstep promote VOLUME [--force] [--wait TIME]",
		Description: "Refused while it is not known to be safe: a node that can't be reached may be\n" +
			"Primary, or hold writes that this one lacks. --force goes ahead all the same; if\n" +
			"the other has acknowledged writes, that is a split-brain, reported on both sides.\n" +
			"Without --force it asks again for a while, for a node that was just started or\n" +
			"whose volume was just made takes a moment to connect.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep promote data\n" +
			"  lockstep promote data --force",
		Flags: asking(
			&cli.BoolFlag{Name: "force", Usage: "promote although it is not known to be safe", DisableDefaultText: true},
			&cli.DurationFlag{Name: "wait", Usage: "ask again for this `TIME` before it counts as refused", Value: 2 * time.Second},
			jsonFlag()),
		Action: arguments([]string{"VOLUME"}, promote),
	}
}

func promote(c *cli.Context, args []string) error {
	daemon := client(c)
	giveUp := time.After(c.Duration("wait"))
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := daemon.Promote(c.Context, args[0], node.PromoteRequest{Force: c.Bool("force")})
		refused, ok := errors.AsType[*node.Error](err)
		if !ok || refused.Code != node.CodeUnsafe {
			return printChanged(c, st, err)
		}
		select {
		case <-giveUp:
			return unsafePromotion(c, args[0], refused)
		case <-tick.C:
		}
	}
}

// unsafePromotion says what is unknown, and how to go ahead all the same.
func unsafePromotion(c *cli.Context, name string, refused *node.Error) error {
	var b strings.Builder
	fmt.Fprintf(&b, "volume %q was not promoted, because it is not known to be safe:", name)
	for _, u := range refused.Unknown {
		fmt.Fprintf(&b, "\n  - %s", u)
	}
	if len(refused.Unknown) == 0 {
		fmt.Fprintf(&b, "\n  - %s", refused.Text)
	}
	_, words := socketOf(c)
	fmt.Fprintf(&b, "\nIf no other node serves it, and losing what only they hold is acceptable, type:\n  lockstep promote %s --force%s", name, words)
	return errors.New(b.String())
}

// printChanged prints what became of a volume, in one line or as JSON.
func printChanged(c *cli.Context, st node.VolumeStatus, err error) error {
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, st)
	}
	if st.Status == nil {
		return errors.New(st.Problem)
	}
	fmt.Fprintf(c.App.Writer, "volume %s: %s, %s", st.Name, st.Role, st.Disk)
	for _, p := range st.Peers {
		fmt.Fprintf(c.App.Writer, "; peer %s %s", p.Node, p.Connection)
	}
	fmt.Fprintln(c.App.Writer)
	return nil
}
