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
// entry, the journal cut, and the queue. next is that entry, nil if the records
// are dropped on our own account.
func (v *Volume) truncateTo(c LSN, next *Generation) error {
	v.apply.Lock()
	defer v.apply.Unlock()
	v.seq.Lock()
	defer v.seq.Unlock()
	v.mu.Lock()
	end, stable := v.end, v.stable
	v.mu.Unlock()
	if c >= end {
		return nil
	}
	if c < stable {
		return fmt.Errorf("truncation to LSN %d is refused: everything through LSN %d is known to be stable", c, stable)
	}
	if err := v.setAside(c+1, end); err != nil {
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
	v.queue.truncate(c)
	v.pending.reset() // a Secondary answers no reads
	v.recount()
	v.end, v.appended = c, c
	v.durable = min(v.durable, c)
	v.chain = v.journal.EndCRC()
	v.broadcast()
	return nil
}

// recount sums the payload in the queue's memory. v.mu is held.
func (v *Volume) recount() {
	v.pendingBytes = 0
	for l := v.queue.first; l < v.queue.next(); l++ {
		if e := v.queue.at(l); e.rec.Buf != nil {
			v.pendingBytes += int64(len(e.rec.Payload))
		}
	}
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
