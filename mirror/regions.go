package mirror

import "fmt"

// sayRegions tells a Primary, if our journal was lost, which parts of our store
// are in doubt.
func (l *link) sayRegions() error {
	v := l.v
	if mark := l.mine.Description.Resync; mark == nil || !mark.JournalLost {
		return nil
	}
	size, unit := v.store.Size(), v.intent.RegionSize()
	var m Regions
	for r := range v.intent.Regions() {
		off := int64(r) * unit
		n := min(unit, size-off)
		if last := len(m.Ranges) - 1; last >= 0 && m.Ranges[last].Offset+m.Ranges[last].Length == off {
			m.Ranges[last].Length += n
			continue
		}
		if len(m.Ranges) == maxRegions {
			if err := l.write(&m); err != nil {
				return err
			}
			m.Ranges = m.Ranges[:0]
		}
		m.Ranges = append(m.Ranges, Range{off, n})
	}
	m.Last = true
	return l.write(&m)
}

// takeRegions sets what a Secondary that lost its journal is in doubt of in its
// out-of-sync bitmap, in which it stays, whatever comes between, until the
// Secondary is a member again.
func (l *link) takeRegions() error {
	v, p := l.v, l.peer
	if mark := l.theirs.Resync; mark == nil || !mark.JournalLost {
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
