package mirror

import "fmt"

// sayRegions tells a Primary which parts of our store differ from its own and are
// not known to it: what is in doubt, if our journal was lost, and what we wrote, if
// we are the loser of a split-brain.
func (l *link) sayRegions() error {
	v := l.v
	var m Regions
	say := func(off, n int64) error {
		if last := len(m.Ranges) - 1; last >= 0 && m.Ranges[last].end() == off {
			m.Ranges[last].Length += n
			return nil
		}
		if len(m.Ranges) == maxRegions {
			if err := l.write(&m); err != nil {
				return err
			}
			m.Ranges = m.Ranges[:0]
		}
		m.Ranges = append(m.Ranges, Range{off, n})
		return nil
	}
	switch mark := l.mine.Description.Resync; {
	case l.loser == Ours:
		blocks := l.losingBlocks()
		for off, n, ok := blocks.Next(0); ok; off, n, ok = blocks.Next(off + n) {
			if err := say(off, n); err != nil {
				return err
			}
		}
	case mark != nil && mark.JournalLost:
		size, unit := v.store.Size(), v.intent.RegionSize()
		for r := range v.intent.Regions() {
			off := int64(r) * unit
			if err := say(off, min(unit, size-off)); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	m.Last = true
	return l.write(&m)
}

// takeRegions sets what a Secondary names (sayRegions) in its out-of-sync bitmap,
// in which it stays, whatever comes between, until the Secondary is a member again.
func (l *link) takeRegions() error {
	v, p := l.v, l.peer
	if mark := l.theirs.Resync; l.loser != Theirs && (mark == nil || !mark.JournalLost) {
		return nil
	}
	size := v.store.Size()
	for {
		t, body, err := l.next()
		if err != nil {
			return err
		}
		if t != FrameRegions {
			return l.unexpected(t)
		}
		var m Regions
		if err := m.Decode(body); err != nil {
			return err
		}
		for _, r := range m.Ranges {
			if r.Length <= 0 || r.Offset > size-r.Length {
				return fmt.Errorf("%w: a region of %d bytes at %d, and the volume has %d", ErrFrame, r.Length, r.Offset, size)
			}
			p.mark(r.Offset, r.Length)
		}
		if m.Last {
			return nil
		}
	}
}
