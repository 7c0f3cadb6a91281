package journal

import "fmt"

// recoverTail prepares the last segment's end for being synced. What is beyond
// the noted durable LSN may be in the page cache only, and there in pages that a
// failed sync of an earlier process has marked clean: no later sync would write
// them (invariant 9). So it is written again, as it is. A crash while that is
// done leaves what it found.
func (j *Journal) recoverTail(durable LSN) error {
	s := j.tail()
	from := int64(firstBatch)
	for _, b := range s.batches {
		if b.first <= durable {
			from = b.off
		}
	}
	w := window{f: s.f, size: s.size}
	for off := from; off < s.tail; off += readAhead {
		p, err := w.at(off, int(min(readAhead, s.tail-off)))
		if err == nil {
			_, err = s.f.WriteAt(p, off)
		}
		if err != nil {
			return fmt.Errorf("write the end of segment %s again, at %d: %w", s.name, off, err)
		}
	}
	return nil
}

// recoverNames makes the segments' names durable: an earlier process may have
// ended between giving a segment its name and that.
func (j *Journal) recoverNames() error {
	if err := j.dir.SyncDir(); err != nil {
		return fmt.Errorf("sync the journal's directory %v: %w", j.dir, err)
	}
	return nil
}

// heal writes the headers of which one copy is lost, or says what the file was
// before, so that losing the other copy cannot make it that again.
func (j *Journal) heal() error {
	for _, s := range j.chain {
		if s.worn {
			if err := s.writeHeader(); err != nil {
				return err
			}
		}
	}
	return nil
}
