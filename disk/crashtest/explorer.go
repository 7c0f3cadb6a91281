package crashtest

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// An explorer runs one workload and crashes it at every moment.
type explorer struct {
	*run
	script              int64
	only                bool // one state alone is checked
	onlyMoment, onlyWay int64

	w      *Workload
	hash   maphash.Hash
	seen   map[uint64]bool
	moment int64
	way    int64  // of this moment; the next one to be numbered
	syncs  int64  // operations so far that made something durable
	last   string // the operation before this moment, for messages
	lastOp fakedisk.Op
	err    error // of a check
}

var errStop = errors.New("a crash state failed its check")

// explore runs the workload to its end.
func (e *explorer) explore() error {
	e.seen = map[uint64]bool{}
	w, err := e.begin(rand.New(rand.NewPCG(e.seed, uint64(e.script))))
	if err != nil {
		return fmt.Errorf("begin workload %d: %w", e.script, err)
	}
	e.w, e.last = w, "nothing"
	w.Disk.OnOp(func(op fakedisk.Op, name string) error {
		if !op.Changes() {
			return nil
		}
		e.crashes()
		e.last, e.lastOp = fmt.Sprintf("%s %q", op, name), op
		if e.err != nil {
			return errStop
		}
		if w.Meanwhile != nil {
			w.Meanwhile()
		}
		return nil
	})
	err = w.Do()
	w.Disk.OnOp(nil)
	if e.err == nil && err != nil {
		e.err = fmt.Errorf("workload %d of seed %d failed by itself: %w", e.script, e.seed, err)
	}
	if e.err == nil {
		e.crashes()
	}
	if w.Close != nil {
		w.Close()
	}
	return e.err
}

// crashes checks what a crash can leave at this moment. The disk is as the last
// operation left it.
func (e *explorer) crashes() {
	if e.err != nil {
		return
	}
	defer func() { e.moment++ }()
	if e.lastOp == fakedisk.OpDatasync || e.lastOp == fakedisk.OpSyncDir {
		e.syncs++
	}
	if e.only && e.moment != e.onlyMoment || !e.only && (e.moment+e.script)%e.stride != 0 {
		return
	}
	e.moments.Add(1)
	e.way = 0
	e.kill()
	var pieces []fakedisk.Unsynced
	e.w.Disk.CrashClone(func(u fakedisk.Unsynced) bool {
		pieces = append(pieces, u)
		return true
	})
	most := Ways
	if e.Exhaustive {
		most = MostWays
	}
	if len(pieces) < 62 && 1<<len(pieces) <= most {
		var c fakedisk.Choices
		for more := true; more; more = c.Next() {
			e.crash(c.Keep)
		}
		return
	}
	if e.Exhaustive {
		e.err = fmt.Errorf("%d pieces are unsynced after %s, too many to try all combinations", len(pieces), e.last)
		return
	}
	e.crash(fakedisk.LoseAll)
	e.crash(fakedisk.KeepAll)
	e.tears(pieces)
	for e.way < Ways {
		e.crash(fakedisk.KeepSome(e.mix(e.way)))
	}
}

// tears has the newest operation torn before each of its sectors, either side
// of it lost, with what came before it kept or lost.
func (e *explorer) tears(pieces []fakedisk.Unsynced) {
	newest, sectors := 0, 0
	for _, u := range pieces {
		if u.Number > newest {
			newest, sectors = u.Number, 0
		}
		if u.Number == newest {
			sectors++
		}
	}
	step := max(1, (4*sectors+Ways-1)/Ways)
	for at := step; at < sectors; at += step {
		for _, older := range []bool{true, false} {
			for _, front := range []bool{true, false} {
				n := 0
				e.crash(func(u fakedisk.Unsynced) bool {
					if u.Number != newest {
						return older
					}
					n++
					return (n <= at) == front
				})
			}
		}
	}
}

// mix is a seed for one way of this moment.
func (e *explorer) mix(way int64) uint64 {
	return rand.New(rand.NewPCG(e.seed^uint64(e.script)<<32, uint64(e.moment)<<20|uint64(way))).Uint64()
}

// crash checks what a power loss under keep leaves.
func (e *explorer) crash(keep fakedisk.Policy) {
	if !e.wanted() {
		return
	}
	e.hash.Reset()
	left := e.w.Disk.CrashClone(func(u fakedisk.Unsynced) bool {
		k := keep(u)
		if k {
			maphash.WriteComparable(&e.hash, u)
		}
		return k
	})
	maphash.WriteComparable(&e.hash, e.syncs)
	e.check(left, false)
}

// kill checks what a kill leaves.
func (e *explorer) kill() {
	if !e.wanted() {
		return
	}
	e.hash.Reset()
	maphash.WriteComparable(&e.hash, e.moment)
	e.check(e.w.Disk.KillClone(), true)
}

// wanted numbers a way and reports whether it is to be checked.
func (e *explorer) wanted() bool {
	e.way++
	return e.err == nil && (!e.only || e.way-1 == e.onlyWay)
}

// check checks a state, whose hash was taken, unless it was seen before.
func (e *explorer) check(left *fakedisk.FS, killed bool) {
	maphash.WriteComparable(&e.hash, e.w.Promised())
	state := e.hash.Sum64()
	if e.seen[state] {
		return
	}
	e.seen[state] = true
	e.checked.Add(1)
	if err := e.w.Check(left, killed); err != nil {
		what := "power loss"
		if killed {
			what = "kill"
		}
		e.err = fmt.Errorf("to repeat: LOCKSTEP_SEED=%d LOCKSTEP_CRASH=%d/%d/%d go test -run '^%s$'\n%s after %s: %w",
			e.seed, e.script, e.moment, e.way-1, e.name, what, e.last, err)
	}
}
