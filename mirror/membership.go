package mirror

// What follows for the peers once the in-sync set has changed.

// confirmSet has the members told of a set that grew (11g). One that was not
// greeted yet is told then. v.mu is held.
func (v *Volume) confirmSet() {
	for _, m := range v.super.Set {
		if p := v.peers[m.Node]; p != nil && p.link != nil && p.link.source.greeted {
			p.link.source.confirm = true
			kick(p.link.kick)
		}
	}
}

// settleBits: p is a member by the generation at lsn, so what its bitmap said is
// settled (replication.md 7).
func (v *Volume) settleBits(p *peer, lsn LSN) {
	p.remaining.Store(nil)
	if v.abandoned() {
		return
	}
	v.tail.Lock() // what is about to leave the journal is set in it before, or not at all
	defer v.tail.Unlock()
	v.mu.Lock()
	base := v.position(lsn)
	v.mu.Unlock()
	if err := p.bits.Reset(base); err != nil {
		v.fault(err)
		return
	}
	v.mu.Lock()
	p.bitsThrough = max(p.bitsThrough, lsn)
	v.mu.Unlock()
}
