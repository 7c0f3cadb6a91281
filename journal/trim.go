package journal

// Trim lets the segments go whose records are all at or below upTo; never the
// last one. Why that is safe is the owner's affair (invariant 5, retention or
// bitmap). It does no I/O: a segment's space is used again only under a header
// that says, durably, which segments are still needed. After a crash the
// journal may begin earlier than it was trimmed to.
func (j *Journal) Trim(upTo LSN) error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	n := 0
	for n < len(j.chain)-1 && j.chain[n].end <= upTo {
		n++
	}
	j.release(j.chain[:n])
	j.chain = append(j.chain[:0:0], j.chain[n:]...)
	j.publish()
	return nil
}

// release makes segments free. Readers see at once that they are gone. j.mu is
// held.
func (j *Journal) release(segments []*segment) {
	for _, s := range segments {
		s.gone = true
		j.free = append(j.free, s)
	}
}
