package world

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/disk"
	"github.com/lockstep-storage/lockstep/disk/fakedisk"
	"github.com/lockstep-storage/lockstep/journal"
	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/store"
)

// A node is a host: its disk outlives its processes.
type node struct {
	w    *World
	name string
	rng  *rand.Rand // of the disk
	fs   *fakedisk.FS
	boot int
	dark bool          // the host has no power
	proc *process      // nil while there is none
	slow time.Duration // at most, on top of every operation of the disk
	ends []*process    // whose Close has not returned
}

// A process is one run of the program on a node, from its start to its end by
// whatever means. A dead one may still have goroutines: its disk and its network answer
// them with errors, and what they complete is nobody's.
type process struct {
	w    *World
	node *node
	fs   *fakedisk.FS
	vol  *mirror.Volume // nil until it is open
	dead bool
	gone chan struct{} // closed when it dies
	// heldUntil is when a pause ends: until then neither its disk nor its network
	// answers it.
	heldUntil time.Time
}

const dataFile, journalDir = "data", "journal"

func (w *World) newNode(name string) (*node, error) {
	n := &node{w: w, name: name, rng: w.random("disk " + name)}
	return n, n.format()
}

// format gives the node an empty disk with a new replica.
func (n *node) format() error {
	n.fs = fakedisk.New(n.rng.Uint64())
	f, err := n.fs.Create(dataFile)
	if err == nil {
		err = errors.Join(f.Truncate(n.w.plan.Size), f.Datasync(), f.Close(), n.fs.SyncDir())
	}
	if err != nil {
		return err
	}
	p := n.w.plan
	err = mirror.Create(n.fs, mirror.CreateOptions{Node: n.name, Volume: volumeName, Size: p.Size, Protocol: p.Protocol, NoWriteCache: p.NoWriteCache, JournalSize: 64 << 20})
	if err != nil {
		return err
	}
	return remakeJournal(n.fs, p.Journal)
}

// remakeJournal gives a replica that was never opened a journal that is small: to fill
// it is part of many runs.
func remakeJournal(d disk.FS, o journal.Options) error {
	dir, err := d.Sub(journalDir)
	if err != nil {
		return err
	}
	names, err := dir.List()
	for _, name := range names {
		err = errors.Join(err, dir.Remove(name))
	}
	return errors.Join(err, journal.Create(dir, o))
}

// start begins a process, if there is none. What cannot be opened is a violation: no
// fault that is injected without further ado may leave a replica that does not open.
func (n *node) start() {
	if n.proc != nil {
		return
	}
	w := n.w
	p := &process{w: w, node: n, fs: n.fs, gone: make(chan struct{})}
	n.proc = p
	if n.dark {
		n.dark = false
		w.net.returned(n.name)
	}
	n.fs.OnOp(p.onOp)
	w.note(n.name, "starts")
	w.cover("process starts")
	go p.open()
}

func (p *process) open() {
	w, n := p.w, p.node
	if r, err := mirror.Check(p.fs, mirror.CheckOptions{StoreSize: w.plan.Size}); !p.dead {
		if err != nil {
			w.violated("the replica of %s cannot be checked before its start: %v", n.name, err)
			return
		}
		for _, problem := range r.Problems {
			if !strings.Contains(problem.Text, "is Failed") {
				w.violated("the replica of %s is damaged before its start: %v", n.name, problem)
			}
		}
	}
	f, err := p.fs.Open(dataFile)
	var v *mirror.Volume
	if err == nil {
		v, err = mirror.Open(p.options(store.OnDisk(f, w.plan.Size)))
	}
	switch {
	case p.dead && err == nil:
		p.end(v)
		return
	case p.dead:
		return
	case err != nil:
		w.violated("the replica of %s does not open: %v", n.name, err)
		return
	}
	p.vol = v
	s := v.Status()
	w.note(n.name, "is open: %v, end %d, stable %d", s.Disk, s.End, s.Stable)
}

func (p *process) options(st mirror.Store) mirror.Options {
	n, w := p.node, p.w
	o := mirror.Options{
		Node: n.name, Volume: volumeName, FS: p.fs, Store: st, Dialer: p,
		BootID: fmt.Sprintf("%s-%d", n.name, n.boot), Logger: w.logger(p),
		PeerTimeout: w.plan.PeerTimeout, SyncInterval: w.plan.SyncInterval, RetryInterval: w.plan.RetryInterval,
		MinInSync: w.plan.MinInSync, OnNoQuorum: w.plan.OnNoQuorum, ResyncRate: w.plan.ResyncRate,
		NoResyncChecksums: w.plan.NoResyncChecksums,
		Hooks: mirror.Hooks{Event: func(e mirror.Event) {
			if !p.dead {
				w.note(n.name, "event %v %s %s", e.Kind, e.Peer, e.Reason)
				w.cover("event " + e.Kind.String())
			}
		}},
	}
	for _, name := range w.names {
		if name != n.name {
			o.Peers = append(o.Peers, name)
		}
	}
	return o
}

// Dial implements mirror.Dialer.
func (p *process) Dial(ctx context.Context, to string) (net.Conn, error) {
	return p.w.net.dial(ctx, p, to)
}

// accept takes a connection that a peer opened.
func (p *process) accept(c *conn) {
	go func() {
		_ = c.SetReadDeadline(time.Now().Add(p.w.plan.PeerTimeout))
		pre, version, err := mirror.ReadPreamble(c)
		if err != nil || p.dead || p.vol == nil {
			_ = c.Close()
			return
		}
		p.vol.Accept(c, pre, version)
	}()
}

// onOp is the disk's time: an operation takes what the node's disk needs for it.
func (p *process) onOp(op fakedisk.Op, name string) error {
	n := p.node
	var most time.Duration
	switch op {
	case fakedisk.OpRead, fakedisk.OpWrite:
		most = 40 * time.Microsecond
	case fakedisk.OpDatasync, fakedisk.OpSyncDir:
		most = p.w.plan.SyncTakes
	case fakedisk.OpCreate, fakedisk.OpRename, fakedisk.OpRemove:
		most = 20 * time.Microsecond
	}
	if most > 0 {
		d := time.Duration(n.rng.Int64N(int64(most)))
		if n.slow > 0 {
			d += time.Duration(n.rng.Int64N(int64(n.slow)))
		}
		time.Sleep(d)
	}
	for p.held() {
		time.Sleep(time.Until(p.heldUntil))
	}
	if !p.dead {
		p.w.mix(n.name, op, name)
	}
	return nil
}

func (p *process) held() bool { return !p.heldUntil.IsZero() && time.Now().Before(p.heldUntil) }

// die ends the process in the middle of whatever it does: by a kill, or because the
// host loses its power, and with that what keep does not keep and the page cache.
func (n *node) die(power bool, keep fakedisk.Policy) {
	p, w := n.proc, n.w
	if p == nil {
		return
	}
	w.beforeDeath(n, power)
	p.dead = true
	n.proc = nil
	if power {
		n.fs = p.fs.Crash(keep)
		n.boot++
		n.dark = true
	} else {
		n.fs = p.fs.Kill()
	}
	w.net.drop(p, power)
	close(p.gone)
	if p.vol != nil {
		p.end(p.vol)
	}
}

// end has what is left of a dead process end.
func (p *process) end(v *mirror.Volume) {
	n := p.node
	n.ends = append(n.ends, p)
	go func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = v.Close(ctx) // its disk answers everything with an error
		for i, q := range n.ends {
			if q == p {
				n.ends = append(n.ends[:i], n.ends[i+1:]...)
				break
			}
		}
	}()
}

// up reports whether the node's volume is open.
func (n *node) up() bool { return n.proc != nil && n.proc.vol != nil }

// status of a node that is up.
func (n *node) status() mirror.Status { return n.proc.vol.Status() }
