package mirror

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/journal"
)

// setAsideLimit bounds the file that keeps what a truncation took away, bytes.
const setAsideLimit = 64 << 20

const setAsidePrefix = "set-aside."

// truncateTo gives up every record past c (replication.md 6): the applier is
// drained, the suffix set aside, the superblock told the other's next history
// entry, the journal cut, and the queue. l is the session for whose Primary it is
// done, and next that entry; both are nil if the records are dropped on our own
// account.
//
// What is known to be stable stays, but for generation records at the end: they
// change no byte of the store, so for it the image at c is the one that it has.
func (v *Volume) truncateTo(c LSN, l *link, next *Generation) error {
	v.tail.Lock()
	defer v.tail.Unlock()
	v.apply.Lock()
	defer v.apply.Unlock()
	v.seq.Lock()
	defer v.seq.Unlock()
	v.mu.Lock()
	end, stable := v.end, v.stable
	writes := v.super.History.Writes(c+1, end)
	v.mu.Unlock()
	switch {
	case l != nil && l.over():
		return errAgain
	case c >= end:
		return nil
	case c < stable && writes > 0:
		return fmt.Errorf("truncation to LSN %d is refused: everything through LSN %d is known to be stable, and there are writes among it", c, stable)
	case c < v.journal.First()-1:
		return fmt.Errorf("truncation to LSN %d is refused: the journal begins at LSN %d; delete this replica and create it again", c, v.journal.First())
	}
	if writes > 0 {
		if err := v.setAside(c+1, end); err != nil {
			return err
		}
	} else {
		v.log.Info("gives up generation records, and no write", "from", c+1, "to", end)
	}
	if err := v.rebase(c); err != nil {
		return err
	}
	err := v.commitSuper(func(sb *Superblock) {
		sb.History = sb.History.CutTo(c)
		if next != nil {
			sb.History = append(sb.History, *next)
		}
	})
	if err != nil {
		return err
	}
	if err := v.journal.Truncate(c); err != nil {
		v.fault(err)
		return fmt.Errorf("truncate the journal to LSN %d: %w", c, err)
	}
	if next != nil {
		// The entry did its work: its record comes with the stream, and brings it
		// again.
		if err := v.commitSuper(func(sb *Superblock) { sb.History = sb.History.CutTo(c) }); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pending.reset()
	if v.queue.truncate(c); v.queue.next() > c+1 {
		v.queue.reset(c + 1)
	}
	v.cuts++
	v.end, v.appended, v.durable = c, c, c // a truncation is durable
	v.stable, v.noted, v.stableNote = min(v.stable, c), min(v.noted, c), min(v.stableNote, c)
	v.applied, v.checkpoint, v.trimmed = min(v.applied, c), min(v.checkpoint, c), min(v.trimmed, c)
	v.applyWant, v.committed = min(v.applyWant, c), v.applied // nothing is pending
	v.chain = v.journal.EndCRC()
	v.broadcast()
	return nil
}

// rebase moves the bitmaps whose base lies past c back to it, durably, before
// what they are relative to is gone. The records in between are to be truncated
// and none of them is a write, for a base is at most the stable LSN: so the same
// bits say the same of a peer at c.
func (v *Volume) rebase(c LSN) error {
	base := v.position(c)
	for _, p := range v.peers {
		p.remaining.Store(nil) // what was sent may have held what is given up
		if LSN(p.bits.Base().LSN) > c {
			p.bits.SetBase(base)
			if err := p.bits.Flush(); err != nil {
				err = fmt.Errorf("write the out-of-sync bitmap of %q: %w", p.node, err)
				v.fault(err)
				return err
			}
		}
		v.mu.Lock()
		p.bitsThrough = min(p.bitsThrough, c)
		v.mu.Unlock()
	}
	return nil
}

// setAside keeps the records from … to in a file, as the journal has them, for
// they may hold writes that were acknowledged from memory (3c).
func (v *Volume) setAside(from, to LSN) error {
	name := fmt.Sprintf("%s%d", setAsidePrefix, from)
	_ = v.opts.FS.Remove(name)
	f, err := v.opts.FS.Create(name)
	if err != nil {
		return fmt.Errorf("set records aside: %w", err)
	}
	defer f.Close()
	var off, bytes int64
	kept := 0
	var head [journal.HeaderSize]byte
	var werr error
	err = v.scan(from, to, func(r *journal.Record) bool {
		r.EncodeHeader(head[:])
		werr = f.WritevAt([][]byte{head[:], r.Payload}, off)
		off += journal.HeaderSize + int64(len(r.Payload))
		bytes += r.Length
		kept++
		return werr == nil && off < setAsideLimit
	})
	if err == nil {
		err = werr
	}
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = v.opts.FS.SyncDir()
	}
	if err != nil {
		return fmt.Errorf("set the records %d to %d aside in %s: %w", from, to, name, err)
	}
	v.log.Warn("gives up records that no client was answered for without the peer; they are set aside",
		"from", from, "to", to, "records", to-from+1, "kept", kept, "bytes", bytes, "file", name)
	return nil
}
