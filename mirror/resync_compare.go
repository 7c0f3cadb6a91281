package mirror

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/block"
)

// cacheDropper is a Store that can forget what it holds in memory of what is
// durable, so that the next read is the disk's.
type cacheDropper interface{ DropCache() error }

// compareLoop answers a source's ChecksumRequests with the checksums of what the store
// holds, beside the receiver, so that the stream does not wait for reads and hashes.
//
// What turns out to be equal is not written again, so it has to be on the disk. A
// replica that was whole when the resync began had everything there, or in its
// journal. A resync that goes on after an interruption believes only the disk: the
// replica may have failed and been repaired meanwhile, and after a failed sync the
// page cache has what the disk has not (invariant 9). What the applier writes during
// the session is in the journal, and blocks that came in it were compared before.
func (l *link) compareLoop() error {
	v := l.v
	var h *hasher
	var key ID
	for {
		var m ChecksumRequest
		select {
		case m = <-l.target.compares:
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
		if h == nil && l.mine.Description.Resync != nil {
			if err := v.believeDisk(); err != nil {
				return err
			}
		}
		if h == nil || key != m.Key {
			key, h = m.Key, newHasher(m.Key)
		}
		buf := block.Get(int(m.Length))
		n, err := v.store.ReadAt(buf.Bytes(), m.Offset)
		if err != nil && n < len(buf.Bytes()) {
			buf.Unref()
			return fmt.Errorf("compare with the source: read the backing store at %d: %w", m.Offset, err)
		}
		answer := &Checksums{Offset: m.Offset, Sums: h.sums(make([]checksum, 0, maxCompareBlocks), buf.Bytes())}
		buf.Unref()
		if err := l.write(answer); err != nil {
			return err
		}
	}
}

// compare passes a ChecksumRequest to compareLoop.
func (l *link) compare(body []byte) error {
	var m ChecksumRequest
	if err := m.Decode(body); err != nil {
		return err
	}
	if l.target.resync == nil {
		return l.unexpected(FrameChecksumRequest)
	}
	if m.Offset+m.Length > l.v.store.Size() {
		return fmt.Errorf("%w: a ChecksumRequest of %d bytes at %d, past the volume's end", ErrFrame, m.Length, m.Offset)
	}
	select {
	case l.target.compares <- m:
		return nil
	default:
		return fmt.Errorf("%w: more than %d ChecksumRequests at once", ErrFrame, maxCompares)
	}
}

// believeDisk has what is read of the store be what is on its disk.
func (v *Volume) believeDisk() error {
	d, ok := v.store.(cacheDropper)
	if !ok {
		return nil
	}
	if err := v.syncStore(); err != nil { // what was not written cannot be dropped
		return err
	}
	if err := d.DropCache(); err != nil {
		return fmt.Errorf("compare with the source: %w", err)
	}
	return nil
}

// syncStore makes everything in the store durable.
func (v *Volume) syncStore() error {
	if err := v.store.Sync(); err != nil {
		v.faultStore(err)
		return fmt.Errorf("sync the backing store: %w", err)
	}
	return nil
}
