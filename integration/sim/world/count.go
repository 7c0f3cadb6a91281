package world

import (
	"fmt"
	"strings"

	"github.com/lockstep-storage/lockstep/mirror"
)

// What a run reached is counted: states and verdicts as the status says them, whenever
// somebody looks, which is each time that a node says something in its log, and
// whenever the operator does. What is shorter than that is missed.

// coverLog counts what a node says, without what is different each time, and looks at
// the node once it has done what it says: a logger may be called with its locks held.
func (w *World) coverLog(p *process, message string) {
	message, _, _ = strings.Cut(message, ":")
	w.cover("log " + message)
	go func() {
		if !p.dead && p.vol != nil {
			w.coverStatus(p.vol.Status())
		}
	}()
}

// coverStatus counts the state of a node, and what became of it since it was last seen.
func (w *World) coverStatus(s mirror.Status) {
	w.cover(fmt.Sprintf("state %v %v", s.Role, s.Disk))
	for what, is := range map[string]bool{
		"state suspended":             s.Suspended,
		"state writes wait":           s.Waiting != "",
		"state undo of a resync":      s.Undo != nil,
		"journal trimmed":             s.Journal.First > 1,
		"journal three quarters full": s.Journal.Used > s.Journal.Size/4*3,
		"journal without a record":    s.Journal.First > s.End,
	} {
		if is {
			w.cover(what)
		}
	}
	old, known := w.seen[s.Node]
	w.seen[s.Node] = s
	if known && old.Disk != s.Disk {
		w.cover(fmt.Sprintf("becomes %v, was %v", s.Disk, old.Disk))
	}
	if known && old.Role != s.Role {
		w.cover(fmt.Sprintf("becomes %v, was %v", s.Role, old.Role))
	}
	if s.End < old.End {
		w.cover("becomes shorter: records are given up")
	}
	for i, p := range s.Peers {
		w.cover(fmt.Sprintf("peer %v %v", p.Connection, p.Replication))
		if p.OutOfSync > 0 {
			w.cover("peer with a bitmap")
		}
		if p.Verdict != "" {
			w.cover("verdict " + p.Verdict)
		}
		if !known {
			continue
		}
		q := old.Peers[i]
		if p.CatchUps > q.CatchUps {
			w.cover("catch-up is through")
		}
		if p.Resyncs > q.Resyncs {
			w.cover("resync is through")
		}
		if p.Replication != q.Replication {
			w.cover(fmt.Sprintf("peer becomes %v, was %v", p.Replication, q.Replication))
		}
	}
}

// coverNothing has all that there is in the counts, so that a campaign can say what it
// never reached.
func (w *World) coverNothing() {
	never := func(what string) { w.covered[what] += 0 }
	for _, role := range all[mirror.Role]() {
		for _, disk := range all[mirror.DiskState]() {
			never(fmt.Sprintf("state %v %v", role, disk))
		}
		for _, old := range all[mirror.Role]() {
			if old != role {
				never(fmt.Sprintf("becomes %v, was %v", role, old))
			}
		}
	}
	for disk := mirror.Failed; disk <= mirror.UpToDate; disk++ { // that are recorded
		for old := mirror.Inconsistent; old <= mirror.UpToDate; old++ {
			if old != disk {
				never(fmt.Sprintf("becomes %v, was %v", disk, old))
			}
		}
	}
	for _, c := range all[mirror.ConnState]() {
		for _, r := range all[mirror.ReplState]() {
			if c == mirror.Connected || r == mirror.ReplOff {
				never(fmt.Sprintf("peer %v %v", c, r))
			}
		}
	}
	for _, v := range all[mirror.Verdict]() {
		never("verdict " + v.String())
	}
	for _, e := range all[mirror.EventKind]() {
		never("event " + e.String())
	}
	for _, k := range faultKinds {
		never("fault " + k.name)
	}
	for _, what := range []string{"state suspended", "state writes wait", "state undo of a resync", "journal trimmed",
		"journal three quarters full", "journal without a record", "peer with a bitmap", "becomes shorter: records are given up",
		"catch-up is through", "resync is through", "two histories after a loss", "promote --force: done"} {
		never(what)
	}
}

// all returns the values of a type that have a name.
func all[T interface {
	~uint8
	fmt.Stringer
}]() (values []T) {
	for v := T(0); !strings.HasPrefix(v.String(), "unknown("); v++ {
		values = append(values, v)
	}
	return values
}
