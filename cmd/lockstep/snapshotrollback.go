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
			"While it goes on no client is served here, and a crash leaves it so: doing it again finishes\n" +
			"it, deleting the snapshot gives it up. It goes on if this command is interrupted. Do not\n" +
			"promote another node in the middle of it: that would serve a volume that is half rolled back.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep snapshot rollback data monday --dry-run\n" +
			"  lockstep snapshot create data before && lockstep snapshot rollback data monday --yes",
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
