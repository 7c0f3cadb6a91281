package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/node"
	"github.com/urfave/cli/v2"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "say whether the files of a stopped daemon's replicas are sound",
		UsageText: "lockstep check [VOLUME | --dir DIRECTORY] [--config FILE] [--json]",
		Description: "Reads superblock, journal and bitmaps of one volume, or of all, and changes nothing.\n" +
			"Stop the daemon first. The exit status is 0 if all is sound, and 1 if anything is\n" +
			"damaged; what a crash leaves, and the next start mends, is remarked and no damage.\n" +
			"The volume's own bytes have no checksums: what is in them is not judged.\n\n" +
			"EXAMPLES:\n" +
			"  lockstep check\n" +
			"  lockstep check data --config /etc/lockstep.yaml\n" +
			"  lockstep check --dir /mnt/old-disk/volumes/data --json",
		Flags:  offline(),
		Action: arguments([]string{"[VOLUME]"}, check),
	}
}

// checked is what --json prints.
type checked struct {
	Sound    bool                  `json:"sound"`
	Replicas []node.CheckedReplica `json:"replicas"`
}

func check(c *cli.Context, args []string) (err error) {
	o, err := openOffline(c, args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	all := checked{Sound: true, Replicas: []node.CheckedReplica{}}
	var damaged []string
	for _, volume := range o.Volumes {
		r, err := o.Check(volume)
		if err != nil {
			return fmt.Errorf("check volume %q: %w", volume, err)
		}
		all.Replicas = append(all.Replicas, r)
		if !r.Sound {
			all.Sound = false
			damaged = append(damaged, fmt.Sprintf("volume %q is damaged, in %s", volume, counted(len(r.Problems), "place")))
		}
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, all)
	} else {
		err = printChecked(c.App.Writer, all.Replicas, o.DataDir)
	}
	if len(damaged) > 0 {
		err = errors.Join(err, errors.New(strings.Join(damaged, "; ")))
	}
	return err
}

func printChecked(w io.Writer, replicas []node.CheckedReplica, dataDir string) error {
	if len(replicas) == 0 {
		_, err := fmt.Fprintf(w, "there are no volumes in %s\n", dataDir)
		return err
	}
	var b strings.Builder
	for i, r := range replicas {
		if i > 0 {
			b.WriteString("\n")
		}
		printReplica(&b, &r)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printReplica(w io.Writer, r *node.CheckedReplica) {
	judged := "sound"
	if !r.Sound {
		judged = "DAMAGED"
	}
	fmt.Fprintf(w, "volume %s in %s: %s\n", r.Volume, r.Directory, judged)
	line := func(what, format string, a ...any) {
		fmt.Fprintf(w, "  %-12s  %s\n", what, fmt.Sprintf(format, a...))
	}
	if s := r.Superblock; s != nil {
		line("superblock", "%s on node %s, %s, %s, epoch %d, in-sync set of %s, %s", humanize.IBytes(uint64(s.Size)), s.Node, s.Disk,
			"sequence number "+fmt.Sprint(s.Sequence), s.Epoch, counted(len(s.InSync), "node"), counted(s.Generations, "generation"))
	}
	if j := r.Journal; j != nil {
		records := fmt.Sprintf("LSN %d to %d", j.First, j.End)
		if j.First > j.End {
			records = fmt.Sprintf("no record, after LSN %d", j.End)
		}
		line("journal", "%s, in %s, %s used of %s", records, counted(j.Segments, "segment"), humanize.IBytes(uint64(j.Used)), humanize.IBytes(uint64(j.Size)))
	}
	for _, m := range r.Bitmaps {
		if m.Peer == "" {
			line("write-intent", "%s marked", humanize.IBytes(uint64(m.Marked)))
		} else {
			line("out-of-sync", "%s marked for peer %s, since LSN %d", humanize.IBytes(uint64(m.Marked)), m.Peer, m.Base.LSN)
		}
	}
	for _, s := range r.Snapshots {
		state := humanize.IBytes(uint64(s.Preserved))
		if s.Lost != "" {
			state = "lost: " + s.Lost
		}
		line("snapshot", "%s, up to LSN %d, made at %s: %s", s.Name, s.At.LSN, s.Created.Format(time.RFC3339), state)
	}
	if u := r.Undo; u != nil {
		line("undo", "%s of a resync that began at %s, to go back to LSN %d", humanize.IBytes(uint64(u.Preserved)), u.Began.Format(time.RFC3339), u.Base.LSN)
	}
	if r.StoreSize > 0 {
		line("store", "%s in %s", humanize.IBytes(uint64(r.StoreSize)), r.Store)
	}
	for _, findings := range []struct {
		what string
		list []mirror.Finding
	}{{"remark", r.Remarks}, {"PROBLEM", r.Problems}} {
		for _, f := range findings.list {
			line(findings.what, "%v", f)
		}
	}
}

// counted is a number of things, such as "1 node" or "2 nodes".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
