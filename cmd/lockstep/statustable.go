package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/node"
)

// writeStatus prints a line for the node, a table with a line for each volume
// and for each further peer of it, and below it what needs a sentence.
func writeStatus(w io.Writer, st node.Status) error {
	var nbd []string
	for _, a := range st.NBD {
		nbd = append(nbd, a.String())
	}
	fmt.Fprintf(w, "node %s, lockstep %s, NBD on %s, peers on %s\n\n", st.Node, st.Version, strings.Join(nbd, " "), st.Peer)
	if len(st.Volumes) == 0 {
		_, err := fmt.Fprintln(w, "no volumes: make one with `lockstep create`")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VOLUME\tSIZE\tROLE\tDISK\tCLIENTS\tPEER\tCONNECTION\tREPLICATION\tPEER ROLE\tPEER DISK\tBEHIND")
	var sentences []string
	for _, v := range st.Volumes {
		writeVolume(table, v)
		sentences = append(sentences, volumeSentences(v)...)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(sentences) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(sentences, "\n"))
	return err
}

func writeVolume(w io.Writer, v node.VolumeStatus) {
	if v.Status == nil {
		fmt.Fprintf(w, "%s\t-\t-\tnot open\t-\t-\t-\t-\t-\t-\t-\n", v.Name)
		return
	}
	head := fmt.Sprintf("%s\t%s\t%s\t%s\t%d", v.Name, humanize.IBytes(uint64(v.Size)), v.Role, v.Disk, v.Sessions)
	if len(v.Peers) == 0 {
		fmt.Fprintf(w, "%s\t-\t-\t-\t-\t-\t-\n", head)
	}
	for _, p := range v.Peers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", head, p.Node, p.Connection, p.Replication, orUnknown(p.Role), orUnknown(p.Disk), behind(v.Status, p))
		head = "\t\t\t\t"
	}
}

func orUnknown[T fmt.Stringer](v *T) string {
	if v == nil {
		return "?"
	}
	return (*v).String()
}

// behind says about how much a peer lacks. Only a Primary knows.
func behind(v *mirror.Status, p mirror.PeerStatus) string {
	switch {
	case v.Role != mirror.Primary:
		return "-"
	case p.Behind < 0:
		return "?"
	}
	return humanize.IBytes(uint64(p.Behind))
}

// volumeSentences are a volume's troubles and progress, each a line.
func volumeSentences(v node.VolumeStatus) []string {
	if v.Status == nil {
		return []string{v.Problem}
	}
	var out []string
	add := func(format string, a ...any) { out = append(out, v.Name+fmt.Sprintf(format, a...)) }
	switch {
	case v.Disk == mirror.Diskless:
		add(": its own disk failed, and it goes on through its peers: demote it and promote a peer when that suits: %s", v.Failure)
	case v.Failure != "":
		add(": failed: %s", v.Failure)
	}
	if v.Role == mirror.Primary && !v.Serving {
		add(": Primary, but it does not serve its clients yet")
	}
	if v.Image != nil {
		add(": exported read-only as %s, up to LSN %d, %s", v.ReadOnlyExport, v.Image.UpTo, counted(v.Image.Sessions, "client"))
	}
	if v.Waiting != "" {
		add(": %s", v.Waiting)
	}
	if u := v.Undo; u != nil {
		add(": %s", undo(u))
	}
	if v.ResyncPaused {
		add(": resyncs are paused here: `lockstep resync resume %s` lets them go on", v.Name)
	}
	if v.Unfinished != "" {
		add(": %s", v.Unfinished)
	}
	for _, s := range v.Snapshots {
		switch {
		case s.Lost != "":
			add(": snapshot %s is lost: %s", s.Name, s.Lost)
		case s.Rollback != nil && s.Rollback.Total > 0:
			add(": snapshot %s: %s", s.Name, rollingBack(s.Rollback))
		case s.Peer != "":
			add(": snapshot %s keeps the losing side of the split-brain with %s, until it is deleted", s.Name, s.Peer)
		}
	}
	for _, p := range v.Peers {
		if p.Paused != "" && !v.ResyncPaused {
			add("/%s: %s", p.Node, p.Paused)
		}
		if p.Progress != nil {
			add("/%s: %s", p.Node, progress(p.Replication, p.Progress))
		}
		if p.Reason != "" {
			add("/%s: %s", p.Node, p.Reason)
		}
		if p.Slow != nil {
			add("/%s: %s", p.Node, p.Slow.Reason)
		}
		if p.SplitBrain != nil { // Problem says the same
			add("/%s: %s", p.Node, p.SplitBrain.Reason)
		} else if p.Problem != "" {
			add("/%s: %s", p.Node, p.Problem)
		}
	}
	return out
}

// undo says that a resync can be rolled back, and to what.
func undo(u *mirror.UndoStatus) string {
	s := fmt.Sprintf("its resync began at %s and can be rolled back to LSN %d; %s were overwritten, and are kept in %s",
		u.Began.Format(time.RFC3339), u.Base.LSN, humanize.IBytes(uint64(u.Preserved)), humanize.IBytes(uint64(u.Used)))
	if u.Limit > 0 {
		s += " of " + humanize.IBytes(uint64(u.Limit))
	}
	if u.RollingBack {
		s += "; that has begun, and is not through: run `lockstep rollback` again"
	}
	return s
}

func progress(what mirror.ReplState, p *mirror.Progress) string {
	percent := 100.0
	if p.Total > 0 {
		percent = 100 * float64(p.Done) / float64(p.Total)
	}
	left := "time left unknown"
	if p.Left >= 0 {
		left = p.Left.Round(time.Second).String() + " left"
	}
	s := fmt.Sprintf("%s %.0f%%, %s of %s, %s/s, %s", what, percent,
		humanize.IBytes(uint64(p.Done)), humanize.IBytes(uint64(p.Total)), humanize.IBytes(uint64(p.Speed)), left)
	if p.Compared > 0 {
		s += fmt.Sprintf("; %s compared, %s of them equal, %s copied",
			humanize.IBytes(uint64(p.Compared)), humanize.IBytes(uint64(p.Equal)), humanize.IBytes(uint64(p.Copied)))
	}
	return s
}
