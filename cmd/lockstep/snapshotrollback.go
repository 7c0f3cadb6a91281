package main

import (
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func snapshotRollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "have the volume be what it was, on every replica",
		UsageText: "lockstep snapshot rollback VOLUME NAME [--dry-run] [--yes]",
		Description: "For a Primary without clients. What was overwritten since the snapshot is written back as a\n" +
			"client would write it, so every replica follows. EVERYTHING WRITTEN SINCE IS LOST, unless\n" +
			"another snapshot is made first. It says how much that is and asks for the snapshot's name,\n" +
			"unless --yes is given. The snapshot stays.\n\n" +
			"Until it is through no client is served, by no node: nobody reads what is half rolled back. It\n" +
			"goes on if this command is interrupted. After a crash, do it again, here; or go back to what\n" +
			"was before it, which every replica keeps meanwhile as snapshot before-rollback, on whichever\n" +
			"node is Primary. `lockstep status` says so.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep snapshot rollback data monday --dry-run\n" +
			"  lockstep snapshot create data before && lockstep snapshot rollback data monday --yes\n" +
			"  lockstep snapshot rollback data before-rollback",
		Flags: asking(
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask", DisableDefaultText: true},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be lost, and change nothing", DisableDefaultText: true},
			jsonFlag()),
		Action: arguments([]string{"VOLUME", "NAME"}, snapshotRollback),
	}
}

func snapshotRollback(c *cli.Context, args []string) error {
	volume, name, daemon := args[0], args[1], client(c)
	plan, err := daemon.PlanSnapshotRollback(c.Context, volume, name)
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		printSnapshotRollback(c.App.Writer, plan)
	}
	switch {
	case c.Bool("dry-run") && c.Bool("json"):
		return printJSON(c.App.Writer, plan)
	case c.Bool("dry-run"):
		return nil
	case plan.Refused != "":
		return fmt.Errorf("volume %q was not rolled back: %s", volume, plan.Refused)
	case !typedName(c, name):
		return fmt.Errorf("volume %q was not rolled back: the snapshot's name was not typed in (--yes does without)", volume)
	}
	done := make(chan struct{})
	var s node.Snapshot
	go func() {
		defer close(done)
		s, err = daemon.RollbackToSnapshot(c.Context, volume, name)
	}()
	showRollback(c, volume, name, done)
	if err != nil {
		return err
	}
	return printSnapshot(c, volume, s, fmt.Sprintf("the volume is rolled back to it, LSN %d", s.At.LSN))
}

func snapshotGiveUpCommand() *cli.Command {
	return &cli.Command{
		Name:      "give-up",
		Usage:     "take a volume that is half rolled back to a snapshot as it is",
		UsageText: "lockstep snapshot give-up VOLUME [--dry-run] [--yes]",
		Description: "For a Primary that serves nobody because a rollback was interrupted, when neither the node of\n" +
			"the snapshot nor anything of before the rollback is to be had any more. CLIENTS THEN FIND A\n" +
			"VOLUME THAT IS IN PART WHAT IT WAS, IN PART WHAT IT WAS TO BE. It asks for the volume's name,\n" +
			"unless --yes is given.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep snapshot give-up data --dry-run\n" +
			"  lockstep snapshot give-up data --yes",
		Flags: asking(
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask", DisableDefaultText: true},
			&cli.BoolFlag{Name: "dry-run", Usage: "say how the rollback stands, and change nothing", DisableDefaultText: true},
			jsonFlag()),
		Action: arguments([]string{"VOLUME"}, snapshotGiveUp),
	}
}

func snapshotGiveUp(c *cli.Context, args []string) error {
	volume, daemon := args[0], client(c)
	st, err := daemon.Volume(c.Context, volume)
	if err != nil {
		return err
	}
	half := "no rollback to a snapshot is under way"
	if st.Status != nil && st.Unfinished != "" {
		half = st.Unfinished
	}
	if !c.Bool("json") {
		fmt.Fprintf(c.App.Writer, "volume %s: %s\n", volume, half)
	}
	switch {
	case c.Bool("dry-run") && c.Bool("json"):
		return printJSON(c.App.Writer, st)
	case c.Bool("dry-run"):
		return nil
	case st.Status == nil || st.Unfinished == "":
		return fmt.Errorf("volume %q is not half rolled back: there is nothing to give up", volume)
	case !c.Bool("yes") && !typed(c, "volume", volume):
		return fmt.Errorf("the rollback of volume %q was not given up: its name was not typed in (--yes does without)", volume)
	}
	st, err = daemon.GiveUpRollback(c.Context, volume)
	return printChanged(c, st, err)
}

// showRollback prints how far it has come, until it is done.
func showRollback(c *cli.Context, volume, name string, done <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		s, err := findSnapshot(c, volume, name)
		if err != nil || s.Rollback == nil || s.Rollback.Total == 0 {
			continue
		}
		line, p := rollingBack(s.Rollback), s.Rollback
		if speed := float64(p.Done) / time.Since(began).Seconds(); speed >= 1 {
			left := time.Duration(float64(p.Total-p.Done) / speed * float64(time.Second))
			line += fmt.Sprintf(", %s/s, %v left", humanize.IBytes(uint64(speed)), left.Round(time.Second))
		}
		fmt.Fprintln(c.App.ErrWriter, line)
	}
}

func printSnapshotRollback(w io.Writer, p mirror.SnapshotRollbackPlan) {
	fmt.Fprintf(w, "volume %s, %s, goes back to snapshot %s of node %s, LSN %d, made at %s\n",
		p.Volume, humanize.IBytes(uint64(p.Size)), p.Snapshot.Name, p.Node, p.Snapshot.At.LSN, p.Snapshot.Created.Format(time.RFC3339))
	writes := "what was written since"
	if p.Writes >= 0 {
		writes = counted(int(p.Writes), "write") + " since"
	}
	fmt.Fprintf(w, "Up to %s are written back, on every replica. Lost: %s.\n", humanize.IBytes(uint64(p.Restores)), writes)
	if p.Resumes {
		fmt.Fprintln(w, "It has begun already, and was interrupted: it is finished.")
	}
	if p.Refused != "" {
		fmt.Fprintf(w, "It cannot be done now: %s.\n", p.Refused)
	}
}
