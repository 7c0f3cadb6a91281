package mirror

import (
	"fmt"
	"slices"
	"time"
)

// What is known of a split-brain: two replicas of a volume of which each has
// writes that the other lacks (replication.md 5). Each measures its own side
// (split_measure.go) and tells the other when they meet (split_meet.go), so that
// either node can say all of it, also while they do not reach each other.

// SplitReport says where two replicas parted and what each has since.
type SplitReport struct {
	Volume string `json:"volume"`
	Peer   string `json:"peer"`
	// Common names the last record that both hold, LSN 0 the volume's beginning.
	Common Position `json:"common"`
	// Parted is the earliest time, by either node's clock, at which a generation
	// past Common is known to have begun; zero if it is not known. The two were
	// one until then, or parted a little before.
	Parted time.Time `json:"parted,omitzero"`
	// Met is when the two met last, by this node's clock. What the peer did since
	// is not in Theirs.
	Met    time.Time `json:"met"`
	Ours   SplitSide `json:"ours"`
	Theirs SplitSide `json:"theirs"`
	// Both are the ranges that both sides wrote, as far as Ours.Ranges and
	// Theirs.Ranges tell: with BothExact false there may be more or fewer.
	Both      []Range `json:"both"`
	BothExact bool    `json:"bothExact"`
	Reason    string  `json:"reason"` // one sentence
}

// A SplitSide is what one of the two replicas has past the last record that both
// hold.
type SplitSide struct {
	Node string    `json:"node"`
	Role Role      `json:"role"` // when it was measured
	Disk DiskState `json:"disk"`
	End  LSN       `json:"end"`
	// Stable: everything through it was made durable on the in-sync set, for a
	// client's flush or in the background. Which flushes clients asked for is not
	// recorded.
	Stable LSN `json:"stable"`
	// Writes are the records past the common one, less generation records. A
	// write of more than 1 MiB counts once for each.
	Writes uint64 `json:"writes"`
	// Trimmed of the writes have left the journal. They are counted by their LSNs,
	// their bytes are not known, and their blocks come from the out-of-sync bitmap.
	Trimmed uint64 `json:"trimmed"`
	// Bytes of the volume that the other writes covered, each counted in full.
	Bytes int64 `json:"bytes"`
	// Ranges were written, trimmed or zeroed; sorted, and apart from each other.
	Ranges   []Range       `json:"ranges"`
	Accuracy RangeAccuracy `json:"accuracy"`
	// Generations are what it went through, oldest first.
	Generations []SplitGeneration `json:"generations"`
}

// RangeBytes is how many bytes of the volume the ranges have.
func (s *SplitSide) RangeBytes() int64 { return lengthOf(s.Ranges) }

// RangeAccuracy is how well a SplitSide knows its ranges.
type RangeAccuracy uint8

const (
	// RangesExact: just these bytes were written.
	RangesExact RangeAccuracy = iota
	// RangesBlocks: where the journal does not reach back any more they are the
	// whole blocks of 4 KiB of the out-of-sync bitmap, which may have been written
	// before the two parted.
	RangesBlocks
	// RangesFilled: there were too many, and the narrowest gaps are counted in.
	RangesFilled
	// RangesUnknown: what is listed was written, and more may have been.
	RangesUnknown
)

// A SplitGeneration is one generation past the common record.
type SplitGeneration struct {
	ID    ID       `json:"id"`
	Epoch uint64   `json:"epoch"`
	First LSN      `json:"first"` // past the common record
	Last  LSN      `json:"last"`
	Set   []Member `json:"set"`
	// Continued: it had begun before the two parted.
	Continued bool `json:"continued,omitempty"`
	// Promotion: the epoch rose, for a node took the role, or its Primary had met a
	// higher epoch. Else the in-sync set changed, unless Continued.
	Promotion bool `json:"promotion"`
	// Without are the members of the generation before that this one does without.
	Without []string `json:"without,omitempty"`
	// Began is when, by the clock of the node whose side it is. Neither it nor
	// Forced is on the disk: both are known if the daemon was not started since.
	Began time.Time `json:"began,omitzero"`
	// Forced: the promotion was not known to be safe, and an operator forced it;
	// nil if that is not known.
	Forced *bool `json:"forced,omitempty"`
}

// A genNote is what a node remembers of a generation and no disk keeps.
type genNote struct {
	began  time.Time
	forced *bool
}

// noteGeneration remembers when a generation began. v.mu is held.
func (v *Volume) noteGeneration(id ID) {
	if len(v.genNotes) >= 2*MaxGenerations {
		v.genNotes = make(map[ID]genNote)
	}
	v.genNotes[id] = genNote{began: time.Now()}
}

// generationsPast lists the generations of the records past c of a history that
// ends at end.
func generationsPast(h History, c, end LSN, notes map[ID]genNote) []SplitGeneration {
	list := []SplitGeneration{}
	for i := max(h.index(c+1), 0); i < len(h) && h[i].First <= end && c < end; i++ {
		g := &h[i]
		note := notes[g.ID]
		s := SplitGeneration{
			ID: g.ID, Epoch: g.Epoch, First: max(g.First, c+1), Last: min(h.endOf(i, end), end), Set: g.Set, Began: note.began,
		}
		if s.Continued = g.First <= c; !s.Continued {
			s.Promotion = i == 0 || g.Epoch > h[i-1].Epoch
			if s.Promotion {
				s.Forced = note.forced
			}
			if i > 0 {
				for _, m := range h[i-1].Set {
					if !setHasNode(g.Set, m.Node) {
						s.Without = append(s.Without, m.Node)
					}
				}
			}
		}
		list = append(list, s)
	}
	return list
}

// A metSplit is what a node keeps of a split-brain that it met.
type metSplit struct {
	at     time.Time
	hello  Hello      // the peer's
	told   SplitFrame // by the peer; Accuracy RangesUnknown if it came to tell nothing
	result Comparison
}

// status is the short form, for Status.
func (m *metSplit) status() *SplitBrainStatus {
	if m == nil {
		return nil
	}
	c := &m.result
	return &SplitBrainStatus{Common: c.Common, Ours: c.Ours.Writes, Theirs: c.Theirs.Writes, Reason: c.Reason}
}

// theirs is the peer's side.
func (m *metSplit) theirs() SplitSide {
	d, told := &m.hello.Description, &m.told
	return SplitSide{
		Node: d.Node, Role: d.Role, Disk: d.Disk, End: d.End, Stable: d.Stable, Writes: m.result.Theirs.Writes,
		Trimmed: min(told.Trimmed, m.result.Theirs.Writes), Bytes: told.Bytes, Ranges: slices.Clip(told.Ranges), Accuracy: told.Accuracy,
		Generations: generationsPast(d.History, m.result.Common, d.End, told.notes()),
	}
}

// SplitBrains says what is known of every split-brain that this replica is in,
// by peer. It reads the journal.
func (v *Volume) SplitBrains() ([]SplitReport, error) {
	list := []SplitReport{}
	for _, node := range v.opts.Peers {
		p := v.peers[node]
		v.mu.Lock()
		m := p.split
		v.mu.Unlock()
		if m == nil {
			continue
		}
		r, err := v.reportSplit(p, m)
		if err != nil {
			return nil, fmt.Errorf("volume %q: what was written since the split-brain with %q: %w", v.opts.Volume, node, err)
		}
		list = append(list, r)
	}
	return list, nil
}

func (v *Volume) reportSplit(p *peer, m *metSplit) (SplitReport, error) {
	c := m.result.Common
	ours, _, err := v.measureSplit(p, c)
	if err != nil {
		return SplitReport{}, err
	}
	v.mu.Lock()
	common := v.super.History.Position(c)
	v.mu.Unlock()
	r := SplitReport{
		Volume: v.opts.Volume, Peer: p.node, Common: common, Met: m.at, Ours: ours, Theirs: m.theirs(), Reason: m.result.Reason,
	}
	r.Both = slices.Clip(append([]Range{}, overlap(r.Ours.Ranges, r.Theirs.Ranges)...))
	r.BothExact = r.Ours.Accuracy == RangesExact && r.Theirs.Accuracy == RangesExact
	for _, s := range []*SplitSide{&r.Ours, &r.Theirs} {
		for _, g := range s.Generations {
			if !g.Continued && !g.Began.IsZero() && (r.Parted.IsZero() || g.Began.Before(r.Parted)) {
				r.Parted = g.Began
			}
		}
	}
	return r, nil
}
