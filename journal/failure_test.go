package journal

import (
	"errors"
	"testing"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

var errCut = errors.New("power cut")

// history is what a workload knows of the journal that it wrote.
type history struct {
	gens    map[LSN]uint64 // generation in force at an LSN, as last written
	durable LSN            // Sync, Truncate or Reset returned for it
	first   LSN            // where the journal began after the last Reset
	end     LSN
	// maybe is what an operation that was cut off would have made of it.
	maybe *history
	noted LSN // greatest stable LSN in an empty batch that was synced
}

func (h *history) clone() *history {
	c := *h
	c.gens = map[LSN]uint64{}
	for l, g := range h.gens {
		c.gens[l] = g
	}
	c.maybe = nil
	return &c
}

// workload rolls, trims, recycles segments that still hold valid old records,
// truncates and resets. It stops at the first error. Each step first says in
// h.maybe what it may leave behind.
func workload(j *Journal, h *history) error {
	gen := uint64(1)
	write := func(n int) error {
		next := h.clone()
		for i := range n {
			next.gens[next.end+LSN(i)+1] = gen
		}
		next.end += LSN(n)
		h.maybe = next
		if err := j.Append(records(j.End(), j.EndCRC(), gen, n), Notes{Stable: h.durable}, true); err != nil {
			return err
		}
		*h = *next
		return nil
	}
	flush := func() error {
		lsn, err := j.Sync()
		h.durable = max(h.durable, lsn)
		return err
	}
	truncate := func(c LSN) error {
		next := h.clone()
		next.end, next.durable = c, c
		h.maybe = next
		h.durable = min(h.durable, c)
		if err := j.Truncate(c); err != nil {
			return err
		}
		*h = *next
		gen++
		return nil
	}
	for round := range 4 {
		for range 8 {
			if err := write(11); err != nil {
				return err
			}
			if round%2 == 0 {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		if err := flush(); err != nil {
			return err
		}
		if err := j.Append(nil, Notes{Stable: h.durable}, true); err != nil {
			return err
		}
		stable := h.durable
		if err := flush(); err != nil {
			return err
		}
		h.noted = stable
		if err := write(9); err != nil {
			return err
		}
		if err := truncate(h.end - 5); err != nil {
			return err
		}
		if err := write(3); err != nil {
			return err
		}
		if err := j.Trim(h.end - 30); err != nil {
			return err
		}
	}
	next := &history{gens: map[LSN]uint64{}, first: 5000, end: 4999, durable: 4999, noted: min(h.noted, 4999)}
	h.maybe = next
	if err := j.Reset(5000, 77); err != nil {
		return err
	}
	*h = *next
	gen++
	for range 10 {
		if err := write(13); err != nil {
			return err
		}
	}
	return flush()
}

// agrees says how a journal that was found contradicts h.
func (h *history) agrees(j *Journal, st State) error {
	switch {
	case st.End < h.durable || st.End > h.end:
		return errors.New("it does not end between what is durable and what was written")
	case st.First < h.first:
		return errors.New("it begins before its beginning")
	case st.Noted.Stable < h.noted:
		return errors.New("what was noted is lost")
	}
	r, err := j.NewReader(j.First())
	if err != nil {
		return err
	}
	defer r.Close()
	for lsn := j.First(); lsn <= st.End; lsn++ {
		var rec Record
		if more, err := r.Next(&rec); err != nil || !more {
			return errors.Join(err, errors.New("a record is missing"))
		}
		err := same(&rec, lsn, h.gens[lsn])
		drop(&rec)
		if err != nil {
			return err
		}
	}
	return nil
}

// crashAt runs the workload with the power cut at the k-th operation of a kind,
// and checks what each policy leaves. It reports whether the cut came.
func crashAt(t *testing.T, op fakedisk.Op, k int, seed uint64) bool {
	d := fakedisk.New(seed)
	ok(t, Create(d, small))
	j, _, err := Open(d, small)
	ok(t, err)
	d.FailFrom(op, k, errCut)
	h := &history{gens: map[LSN]uint64{}, first: 1}
	err = workload(j, h)
	left := []*fakedisk.FS{
		d.CrashClone(fakedisk.LoseAll), d.CrashClone(fakedisk.KeepAll),
		d.CrashClone(fakedisk.KeepSome(seed)), d.CrashClone(fakedisk.KeepSome(seed + 1)), d.KillClone(),
	}
	ok(t, j.Close())
	for i, l := range left {
		recovered(t, l, h, func(format string, a ...any) {
			t.Helper()
			t.Fatalf("power cut at %s %d (seed %d, outcome %d): "+format, append([]any{op, k, seed, i}, a...)...)
		})
	}
	return err != nil
}

// recovered opens what a crash left, twice, and goes on with it.
func recovered(t *testing.T, d *fakedisk.FS, h *history, fatal func(string, ...any)) {
	t.Helper()
	var end LSN
	for try := range 2 {
		j, st, err := Open(d, small)
		if err != nil {
			fatal("open: %v", err)
		}
		err = h.agrees(j, st)
		if err != nil && h.maybe != nil {
			err = errors.Join(err, h.maybe.agrees(j, st))
			if h.maybe.agrees(j, st) == nil {
				err = nil
			}
		}
		if err != nil {
			fatal("journal of %d to %d, durable %d, written %d: %v", st.First, st.End, h.durable, h.end, err)
		}
		if try == 1 && st.End != end {
			fatal("ends at %d, then at %d", end, st.End)
		}
		end = st.End
		if try == 1 {
			goOn(t, j, d, fatal)
		}
		ok(t, j.Close())
	}
}

// goOn appends other records where the torn ones were: those must not return.
func goOn(t *testing.T, j *Journal, d *fakedisk.FS, fatal func(string, ...any)) {
	t.Helper()
	from := j.End()
	ok(t, j.Trim(from))
	for range 3 {
		if err := j.Append(records(j.End(), j.EndCRC(), 99, 2), Notes{}, true); err != nil {
			fatal("append after the crash: %v", err)
		}
	}
	end := syncAll(t, j)
	k, st, err := Open(d.CrashClone(fakedisk.LoseAll), small)
	if err != nil {
		fatal("open once more: %v", err)
	}
	defer k.Close()
	if st.End != end {
		fatal("ends at %d, and %d was appended and synced", st.End, end)
	}
	r, err := k.NewReader(from + 1)
	ok(t, err)
	defer r.Close()
	for lsn := from + 1; lsn <= end; lsn++ {
		var rec Record
		_, err := r.Next(&rec)
		ok(t, err)
		if err := same(&rec, lsn, 99); err != nil {
			fatal("%v", err)
		}
		drop(&rec)
	}
}

// TestCrashAtEveryChange cuts the power at the k-th write, sync and other change
// for every k: what Sync returned for is there, the result is a prefix, and a
// restart needs no help (P1, P2; invariant 9c of the counter-examples).
func TestCrashAtEveryChange(t *testing.T) {
	base := seed(t)
	for _, op := range []fakedisk.Op{fakedisk.OpWrite, fakedisk.OpDatasync, fakedisk.AnyChange} {
		t.Run(string(op), func(t *testing.T) {
			k := 0
			for step := 1; crashAt(t, op, k, base+uint64(k)); k += step {
				if testing.Short() || underRace {
					step = 7
				}
			}
			t.Logf("%d cuts", k)
			if k < 20 {
				t.Errorf("only %d cuts: the workload is too short", k)
			}
		})
	}
}
