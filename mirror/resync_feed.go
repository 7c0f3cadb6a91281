package mirror

import (
	"fmt"
	"time"

	"github.com/lockstep-storage/lockstep/bitmap"
	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// A feeder walks through what a target may lack, at the pace that it is given, and
// finds what has to cross: the target says by checksums what its store holds, and
// only blocks that differ from ours are given to the sender (replication.md 7). It
// asks the target, rather than tell it ours, so that we read a block once to judge
// it and the answer is on our side, where the decision to send is.
//
// It is a goroutine of its own: neither live records nor acknowledgements wait for
// a disk, or for a hash. The sender reads anew what it sends, in its turn.
//
// That a block was equal at some time is enough. Say that the target had applied
// the records up to A when it read its block, and ours had those up to L. A byte
// that the records between them do not touch is the same after either; where A < L,
// those it has yet to apply, for they are on the stream, or are older than the
// stream and in what was equal; where L < A, it has applied those that we did not
// see. This holds byte by byte, so neither side's read has to be of one instant.
type feeder struct {
	l    *link
	r    *resyncSource
	key  ID
	hash *hasher // nil: everything is sent
	next int64   // the cursor
	// asked are the ChecksumRequests under way, oldest first.
	asked []ChecksumRequest
	sums  []checksum
	unlike
}

// unlike remembers how much was found to differ without a block between that is
// equal. As much again is then sent without a comparison, which costs both sides a
// read and a hash, before the next one: what is sent in vain where a stretch that
// differs ends is no more than went before, and bounded.
type unlike struct {
	run   int64 // bytes found to differ, or sent without a comparison
	blind int64 // bytes that are still to be sent so
}

const (
	blindLeast = 1 << 20 // a run is as long before it counts
	blindMost  = 64 << 20
)

// judged: of so many bytes that were compared, so many are equal.
func (u *unlike) judged(compared, equal int64) {
	if equal > 0 {
		*u = unlike{}
		return
	}
	if u.run += compared; u.run >= blindLeast && u.blind == 0 {
		u.blind = min(u.run, blindMost)
	}
}

// sends reports whether the next n bytes are to be sent without a comparison, and
// then counts them.
func (u *unlike) sends(n int64) bool {
	if u.blind == 0 {
		return false
	}
	u.blind -= min(n, u.blind)
	u.run += n
	return true
}

// A feed is a range that has to be sent.
type feed struct {
	off, n int64
	data   bool // not known to read as zeroes
}

// What waits for the sender at most; ranges alone, without their bytes.
const (
	feedBytes  = 16 << 20
	feedRanges = 1024
)

// feedLoop feeds the sender of a resync; without one it waits for the link's end.
func (l *link) feedLoop() error {
	v := l.v
	v.mu.Lock()
	r := l.source.resync
	v.mu.Unlock()
	if r != nil {
		if err := l.feed(r); err != nil {
			return err
		}
	}
	<-l.ctx.Done()
	return l.ctx.Err()
}

func (l *link) feed(r *resyncSource) error {
	v := l.v
	f := &feeder{l: l, r: r}
	if r.compares {
		key, err := NewID(nil)
		if err != nil {
			return err
		}
		f.key, f.hash = key, newHasher(key)
	}
	v.mu.Lock()
	// What the stream does not bring has to be committed, for a block shows no more.
	err := v.await(l.ctx, func() (bool, error) { return v.committed >= r.upTo, nil })
	r.estimate.pause(time.Now(), l.paused())
	v.pace.enter()
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		v.pace.leave()
		v.mu.Unlock()
	}()
	if err != nil {
		return err
	}
	if err := l.write(&ResyncStart{Bytes: r.total}); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait, err := f.step()
		if err != nil {
			return err
		}
		if wait == feedDone {
			return nil
		}
		if wait == feedAgain {
			continue
		}
		timer.Reset(wait)
		select {
		case m := <-r.sums:
			if err := f.judge(m); err != nil {
				return err
			}
		case <-r.feedKick:
		case <-timer.C:
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

// What step returns besides a time to wait.
const (
	feedAgain time.Duration = 0
	feedDone  time.Duration = -1
	feedIdle                = time.Hour // until something happens
)

// step takes the next range in hand, if it may, and says how long to wait before
// the next step.
func (f *feeder) step() (wait time.Duration, err error) {
	r, v := f.r, f.l.v
	off, n, ok := r.left.Next(f.next)
	v.mu.Lock()
	switch {
	case !ok && len(f.asked) == 0:
		r.fed = true
		kick(f.l.kick)
		v.mu.Unlock()
		return feedDone, nil
	case !ok, len(f.asked) == maxCompares, r.readyBytes >= feedBytes, len(r.ready) >= feedRanges, f.l.paused():
		v.mu.Unlock()
		return feedIdle, nil
	}
	wait = v.pace.wait()
	v.mu.Unlock()
	if wait > 0 {
		return wait, nil
	}
	return feedAgain, f.take(off, n)
}

// take compares the beginning of a run, or has it sent.
func (f *feeder) take(off, n int64) error {
	n = min(n, journal.MaxZeroRange)
	length, data := f.l.v.extentAt(off, n)
	if !data {
		if length = length / bitmap.BlockSize * bitmap.BlockSize; length == 0 && n > bitmap.BlockSize {
			length, data = bitmap.BlockSize, true
		} else if length == 0 {
			length, data = n, true
		}
	} else {
		length = min((length+bitmap.BlockSize-1)/bitmap.BlockSize*bitmap.BlockSize, n)
	}
	cost := int64(bitmap.BlockSize)
	compare := data && f.hash != nil
	if compare {
		length = min(length, MaxCompare)
		compare = !f.sends(length)
	} else if data {
		length = min(length, MaxBlockPayload)
	}
	if data {
		cost = length
	}
	f.next = off + length
	f.l.v.mu.Lock()
	f.l.v.pace.take(cost)
	if !compare {
		f.r.push(off, length, data)
		kick(f.l.kick)
		f.l.v.mu.Unlock()
		return nil
	}
	f.l.v.mu.Unlock()
	c := ChecksumRequest{Key: f.key, Offset: off, Length: length}
	f.asked = append(f.asked, c)
	return f.l.write(&c)
}

// judge holds what the target has against what we have. The blocks are out of the
// remaining bitmap before they are read, as the sender's are, and those that
// differ back in it until they are sent. What is equal is on the target's disk, or
// in its journal, durably (compareLoop).
func (f *feeder) judge(m *Checksums) error {
	r, v := f.r, f.l.v
	if len(f.asked) == 0 {
		return f.l.unexpected(FrameChecksums)
	}
	c := f.asked[0]
	if err := m.answers(&c); err != nil {
		return err
	}
	f.asked = append(f.asked[:0], f.asked[1:]...)
	r.remaining.Clear(c.Offset, c.Length)
	buf := block.Get(int(c.Length))
	defer buf.Unref()
	s := session{v: v}
	if err := s.ReadAt(buf.Bytes(), c.Offset); err != nil {
		r.remaining.Set(c.Offset, c.Length)
		return fmt.Errorf("resync of %q: %w", f.l.peer.node, err)
	}
	f.sums = f.hash.sums(f.sums[:0], buf.Bytes())
	equal := int64(0)
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, sum := range f.sums {
		off := c.Offset + int64(i)*bitmap.BlockSize
		n := min(bitmap.BlockSize, c.Offset+c.Length-off)
		if sum == m.Sums[i] {
			equal += n
			continue
		}
		r.remaining.Set(off, n)
		r.push(off, n, true)
	}
	f.judged(c.Length, equal)
	r.compared += c.Length
	r.equal += equal
	r.note()
	kick(f.l.kick)
	v.broadcast()
	return nil
}

// push gives the sender a range. v.mu is held.
func (r *resyncSource) push(off, n int64, data bool) {
	if data {
		r.readyBytes += n
	}
	if k := len(r.ready) - 1; k >= 0 && r.ready[k].off+r.ready[k].n == off && r.ready[k].n+n <= journal.MaxZeroRange && r.ready[k].data == data {
		r.ready[k].n += n
		return
	}
	r.ready = append(r.ready, feed{off, n, data})
}

// pop takes the first n bytes from what waits for the sender. v.mu is held.
func (r *resyncSource) pop(n int64) {
	first := &r.ready[0]
	if first.data {
		r.readyBytes -= n
	}
	if first.off, first.n = first.off+n, first.n-n; first.n == 0 {
		r.ready = append(r.ready[:0], r.ready[1:]...)
	}
	kick(r.feedKick)
}

// checksums passes the target's answer to the feeder.
func (l *link) checksums(body []byte) error {
	m := new(Checksums)
	if err := m.Decode(body); err != nil {
		return err
	}
	r := l.source.resync
	if r == nil {
		return l.unexpected(FrameChecksums)
	}
	select {
	case r.sums <- m:
		return nil
	default:
		return l.unexpected(FrameChecksums) // more than were asked for
	}
}
