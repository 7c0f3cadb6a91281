package mirror

import "time"

// SplitFrame is what each side tells the other of its own when their histories
// say SplitBrain, and no more is to come but Refuse: what its Hello does not say
// already.
//
//	24 common position, the policies after-sb-0pri, after-sb-1pri and after-sb-2pri,
//	name of the node that an operator wants kept ("" none), 8 trimmed, 8 bytes, 1 accuracy (0 exact, 1 blocks, 2 filled,
//	3 unknown), 2 generations (at most 64), per generation 16 id, 8 when it began
//	(Unix time, nanoseconds; 0 not known), 1 forced (0 not known, 1 no, 2 yes),
//	2 ranges (at most 1024), per range 8 offset, 8 length,
//	and, only if the writes that are not kept are to be kept nowhere, 1 (always 1)
type SplitFrame struct {
	Common   Position // the last record that both hold
	Policies SplitPolicies
	Keep     string // the node whose writes an operator wants kept, "" none
	Discard  bool   // and the other's kept nowhere, not in a snapshot either
	Trimmed  uint64 // see SplitSide
	Bytes    int64
	Accuracy RangeAccuracy
	// Known are the newest generations of which more is known than the history
	// says.
	Known  []KnownGeneration
	Ranges []Range // sorted, and apart from each other
}

// KnownGeneration is what no disk keeps of a generation.
type KnownGeneration struct {
	ID     ID
	Began  int64 // Unix time, nanoseconds; 0 not known
	Forced uint8 // 0 not known, 1 no, 2 yes
}

const (
	maxKnown = 64
	maxSplit = 24 + 4*(1+maxName) + 8 + 8 + 1 + 2 + maxKnown*25 + 2 + 16*maxSplitRanges + 1
)

// splitFrame is what is told of a side.
func splitFrame(common Position, s *SplitSide) SplitFrame {
	m := SplitFrame{Common: common, Trimmed: s.Trimmed, Bytes: s.Bytes, Accuracy: s.Accuracy, Ranges: s.Ranges}
	for i := max(len(s.Generations)-maxKnown, 0); i < len(s.Generations); i++ {
		g := &s.Generations[i]
		k := KnownGeneration{ID: g.ID}
		if !g.Began.IsZero() {
			k.Began = g.Began.UnixNano()
		}
		if g.Forced != nil {
			k.Forced = 1
			if *g.Forced {
				k.Forced = 2
			}
		}
		if k.Began != 0 || k.Forced != 0 {
			m.Known = append(m.Known, k)
		}
	}
	return m
}

// notes is Known as generationsPast wants it.
func (m *SplitFrame) notes() map[ID]genNote {
	notes := make(map[ID]genNote, len(m.Known))
	for _, k := range m.Known {
		var n genNote
		if k.Began != 0 {
			n.began = time.Unix(0, k.Began)
		}
		if k.Forced != 0 {
			forced := k.Forced == 2
			n.forced = &forced
		}
		notes[k.ID] = n
	}
	return notes
}

func (*SplitFrame) FrameType() FrameType { return FrameSplit }

func (m *SplitFrame) Encode(dst []byte) []byte {
	dst = appendPosition(dst, m.Common)
	for _, s := range []string{m.Policies.ZeroPri, m.Policies.OnePri, m.Policies.TwoPri, m.Keep} {
		dst = appendString(dst, s)
	}
	dst = le.AppendUint64(dst, m.Trimmed)
	dst = le.AppendUint64(dst, uint64(m.Bytes))
	dst = le.AppendUint16(append(dst, byte(m.Accuracy)), uint16(len(m.Known)))
	for _, k := range m.Known {
		dst = append(dst, k.ID[:]...)
		dst = append(le.AppendUint64(dst, uint64(k.Began)), k.Forced)
	}
	dst = appendRanges(dst, m.Ranges)
	if m.Discard {
		dst = append(dst, 1)
	}
	return dst
}

func (m *SplitFrame) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = SplitFrame{
		Common:   r.position(),
		Policies: SplitPolicies{ZeroPri: r.string(), OnePri: r.string(), TwoPri: r.string()},
		Keep:     r.string(), Trimmed: r.u64(), Bytes: r.size("what was written"),
		Accuracy: RangeAccuracy(r.enum("the accuracy", len(accuracyNames))),
	}
	n := int(r.u16())
	if n > maxKnown {
		r.fail("%d generations, the limit is %d", n, maxKnown)
	}
	for i := 0; i < n && r.err == nil; i++ {
		m.Known = append(m.Known, KnownGeneration{ID: r.id(), Began: int64(r.u64()), Forced: r.enum("forced", 3)})
	}
	m.Ranges = r.ranges(maxSplitRanges)
	for i := range m.Ranges {
		x := m.Ranges[i]
		if x.Length == 0 || x.Offset > 1<<62-x.Length || i > 0 && x.Offset <= m.Ranges[i-1].end() {
			r.fail("range %d+%d is empty, or does not lie past the one before", x.Offset, x.Length)
		}
	}
	if r.err == nil && len(r.b) > 0 {
		if m.Discard = r.bool("discard"); !m.Discard {
			r.fail("what is to be kept nowhere is said to be kept")
		}
	}
	return r.finish(FrameSplit)
}

// appendRanges encodes ranges: 2 their number, per range 8 offset, 8 length.
func appendRanges(dst []byte, ranges []Range) []byte {
	dst = le.AppendUint16(dst, uint16(len(ranges)))
	for _, r := range ranges {
		dst = le.AppendUint64(le.AppendUint64(dst, uint64(r.Offset)), uint64(r.Length))
	}
	return dst
}

// ranges reads what appendRanges wrote, limit of them at most.
func (r *fieldReader) ranges(limit int) (list []Range) {
	n := int(r.u16())
	if n > limit {
		r.fail("%d ranges, the limit is %d", n, limit)
	}
	for i := 0; i < n && r.err == nil; i++ {
		list = append(list, Range{r.size("the offset"), r.size("the range")})
	}
	return list
}
