package world

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/journal"
	"github.com/lockstep-storage/lockstep/mirror"
)

// A plan is all that a seed draws before the run begins: the volume, the speeds, the
// load, and the faults with their times. Faults can be left out by number, and the rest
// stays as it was: so a run that fails is made smaller.
type plan struct {
	Nodes        int
	New          bool  // the faults begin before the first promotion
	Size         int64 // bytes
	Journal      journal.Options
	Protocol     mirror.Protocol
	NoWriteCache bool
	MinInSync    int
	OnNoQuorum   mirror.QuorumPolicy

	PeerTimeout, SyncInterval, RetryInterval time.Duration
	ResyncRate                               int64
	NoResyncChecksums                        bool

	Least, Most time.Duration // that a piece is on its way
	SyncTakes   time.Duration // at most

	Clients int
	Think   time.Duration // at most, between the requests of a client
	Batch   int           // requests at once, at most
	Largest int           // blocks of a request, at most
	Hot     int           // blocks that get half of the requests; 0: none
	Reads   int           // percent of the requests
	Flushes int           // percent of the rest
	FUA     int           // percent of the writes

	Load   time.Duration // that faults happen
	Kinds  []string      // of faults, by name
	Faults []fault
}

// A fault is one that the nemesis makes (faults.go).
type fault struct {
	At   time.Duration // after the beginning
	For  time.Duration // until it ends, or what is dead comes back
	Kind string
	A, B string // the nodes that it concerns
	Seed uint64 // of what is left to chance in it
}

func (f fault) String() string {
	s := fmt.Sprintf("%s %s", f.Kind, f.A)
	if f.B != "" {
		s += " " + f.B
	}
	return fmt.Sprintf("%s for %v", s, f.For)
}

func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)+1))
}

// either draws one of the given.
func either[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

var nodeNames = []string{"a", "b", "c", "d"}

func drawPlan(rng *rand.Rand) *plan {
	p := &plan{
		Nodes:         either(rng, 2, 2, 2, 3),
		Size:          either[int64](rng, 16, 64, 256) * blockSize,
		New:           rng.IntN(3) == 0,
		Journal:       drawJournal(rng),
		Protocol:      either(rng, mirror.ProtocolC, mirror.ProtocolC, mirror.ProtocolB),
		NoWriteCache:  rng.IntN(4) == 0,
		PeerTimeout:   either(rng, 300*time.Millisecond, time.Second, 3*time.Second),
		SyncInterval:  either(rng, 20*time.Millisecond, 200*time.Millisecond, time.Second),
		RetryInterval: either(rng, 10*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond),
		ResyncRate:    either[int64](rng, mirror.ResyncUnlimited, mirror.ResyncAuto, 256<<10),

		NoResyncChecksums: rng.IntN(3) == 0,
		Least:             between(rng, 5*time.Microsecond, 100*time.Microsecond),
		SyncTakes:         either(rng, 50*time.Microsecond, time.Millisecond, 10*time.Millisecond),

		Clients: 1 + rng.IntN(3),
		Think:   either(rng, 2*time.Millisecond, 20*time.Millisecond, 100*time.Millisecond),
		Batch:   either(rng, 1, 4, 16),
		Largest: either(rng, 1, 4, 16),
		Hot:     either(rng, 0, 4),
		Reads:   either(rng, 5, 30, 60),
		Flushes: either(rng, 0, 5, 30),
		FUA:     either(rng, 0, 0, 10),
		Load:    between(rng, 500*time.Millisecond, 4*time.Second),
	}
	p.MinInSync = 1
	if rng.IntN(3) == 0 {
		p.MinInSync = 1 + rng.IntN(p.Nodes)
	}
	if rng.IntN(3) == 0 {
		p.OnNoQuorum = mirror.IOError
	}
	p.Most = p.Least + either(rng, 50*time.Microsecond, time.Millisecond, 20*time.Millisecond)
	for _, k := range faultKinds {
		if rng.IntN(2) == 0 {
			p.Kinds = append(p.Kinds, k.name)
		}
	}
	if len(p.Kinds) == 0 {
		return p
	}
	names := nodeNames[:p.Nodes]
	gap := either(rng, 50*time.Millisecond, 300*time.Millisecond, time.Second)
	for at := between(rng, 0, gap); at < p.Load && len(p.Faults) < 40; at += between(rng, time.Millisecond, 2*gap) {
		f := fault{At: at, Kind: either(rng, p.Kinds...), A: either(rng, names...), Seed: rng.Uint64(),
			For: either(rng, between(rng, time.Millisecond, 50*time.Millisecond), between(rng, 50*time.Millisecond, time.Second), between(rng, time.Second, 4*time.Second))}
		for f.B = either(rng, names...); f.B == f.A; {
			f.B = either(rng, names...)
		}
		p.Faults = append(p.Faults, f)
	}
	return p
}

// drawJournal draws one that no run fills, or one that many fill again and again, so
// that records leave it, go into bitmaps, and writers wait for room. All nodes have the
// same. Eight segments hold the longest write of a client.
func drawJournal(rng *rand.Rand) journal.Options {
	o := journal.Options{Size: 32 << 20, SegmentSize: 2 << 20, AnySize: true}
	if rng.IntN(2) == 0 {
		o.Size = either[int64](rng, 256, 512, 1024) << 10
		o.SegmentSize = max(32<<10, o.Size/either[int64](rng, 8, 16))
	}
	return o
}

func (p *plan) describe() string {
	return fmt.Sprintf("%d nodes, new %v, %d blocks, protocol %v, no write cache %v, min-in-sync %d, on no quorum %v, journal %d KiB in segments of %d KiB;\n"+
		"peer timeout %v, sync interval %v, retry interval %v, resync rate %d; network %v to %v, sync up to %v;\n"+
		"%d clients that think up to %v, batches up to %d requests of up to %d blocks, hot %d, reads %d%%, flushes %d%%, FUA %d%%;\n"+
		"%v of load with %d faults of the kinds: %s",
		p.Nodes, p.New, p.Size/blockSize, p.Protocol, p.NoWriteCache, p.MinInSync, p.OnNoQuorum, p.Journal.Size>>10, p.Journal.SegmentSize>>10,
		p.PeerTimeout, p.SyncInterval, p.RetryInterval, p.ResyncRate, p.Least, p.Most, p.SyncTakes,
		p.Clients, p.Think, p.Batch, p.Largest, p.Hot, p.Reads, p.Flushes, p.FUA,
		p.Load, len(p.Faults), strings.Join(p.Kinds, ", "))
}
