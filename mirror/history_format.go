package mirror

import "fmt"

// A generation record's payload (journal.KindGeneration); the generation's
// first LSN is the record's own:
//
//	offset size field
//	 0     1    version, 1
//	 1    16    id
//	17    16    parent's id, zero for the volume's first generation
//	33     8    epoch
//	41     8    set version
//	49     1    members, at most 9
//	50     -    per member, sorted by node: name (1 length byte, 1 to 255 bytes), incarnation (8)
const (
	generationVersion = 1
	// MaxGenerationPayload is the most bytes of a generation record's payload.
	MaxGenerationPayload = 50 + MaxMembers*(1+maxName+8)
)

// EncodeGeneration appends the payload of g's generation record to dst.
func EncodeGeneration(dst []byte, g *Generation) []byte {
	dst = append(dst, generationVersion)
	dst = append(dst, g.ID[:]...)
	dst = append(dst, g.Parent[:]...)
	dst = le.AppendUint64(dst, g.Epoch)
	dst = le.AppendUint64(dst, g.SetVersion)
	return appendMembers(dst, g.Set)
}

// DecodeGeneration reads the payload of the generation record at first.
func DecodeGeneration(payload []byte, first LSN) (Generation, error) {
	r := fieldReader{b: payload}
	if v := r.u8(); v != generationVersion {
		r.fail("generation record of version %d, this program knows %d", v, generationVersion)
	}
	g := Generation{First: first, ID: r.id(), Parent: r.id(), Epoch: r.u64(), SetVersion: r.u64(), Set: r.members()}
	if g.ID.IsZero() {
		r.fail("the generation's id is zero")
	}
	if err := r.end(); err != nil {
		return Generation{}, fmt.Errorf("generation record at LSN %d: %w", first, err)
	}
	return g, nil
}

// A history, in the superblock and in frames. The nodes' names stand once, so
// that it stays below maxHistorySize whatever they are:
//
//	1    names, at most 255
//	-    per name, in order of first use: 1 length byte, 1 to 255 bytes
//	2    generations, at most 1000
//	-    per generation, oldest first:
//	       16 id
//	       16 parent's id
//	        8 epoch
//	        8 first LSN
//	        8 set version
//	        1 members, at most 9
//	        - per member, sorted by node: 1 index of its name, 8 incarnation
const (
	maxHistoryNames = 255
	maxHistorySize  = 1 + maxHistoryNames*(1+maxName) + 2 + MaxGenerations*(57+MaxMembers*9)
)

// nameTable lists the nodes of h in order of first use.
func (h History) nameTable() (names []string, index map[string]int) {
	index = make(map[string]int)
	for i := range h {
		for _, m := range h[i].Set {
			if _, ok := index[m.Node]; !ok {
				index[m.Node] = len(names)
				names = append(names, m.Node)
			}
		}
	}
	return names, index
}

// check reports what is beyond the format's bounds.
func (h History) check() error {
	if len(h) > MaxGenerations {
		return fmt.Errorf("a history of %d generations, the limit is %d", len(h), MaxGenerations)
	}
	for i := range h {
		if len(h[i].Set) > MaxMembers {
			return fmt.Errorf("generation %v has %d members, the limit is %d", h[i].ID, len(h[i].Set), MaxMembers)
		}
	}
	if names, _ := h.nameTable(); len(names) > maxHistoryNames {
		return fmt.Errorf("a history that names %d nodes, the limit is %d", len(names), maxHistoryNames)
	}
	return nil
}

// appendHistory encodes h, for which check must have returned nil.
func appendHistory(dst []byte, h History) []byte {
	names, index := h.nameTable()
	dst = append(dst, byte(len(names)))
	for _, name := range names {
		dst = appendString(dst, name)
	}
	dst = le.AppendUint16(dst, uint16(len(h)))
	for i := range h {
		g := &h[i]
		dst = append(dst, g.ID[:]...)
		dst = append(dst, g.Parent[:]...)
		dst = le.AppendUint64(dst, g.Epoch)
		dst = le.AppendUint64(dst, uint64(g.First))
		dst = le.AppendUint64(dst, g.SetVersion)
		dst = append(dst, byte(len(g.Set)))
		for _, m := range g.Set {
			dst = le.AppendUint64(append(dst, byte(index[m.Node])), m.Incarnation)
		}
	}
	return dst
}

// history reads what appendHistory wrote, and only that: one history has one
// encoding.
func (r *fieldReader) history() History {
	names := make([]string, r.u8())
	seen := make(map[string]bool, len(names))
	for i := range names {
		names[i] = r.string()
		if r.err == nil && seen[names[i]] {
			r.fail("node %q stands twice in the history's names", names[i])
		}
		seen[names[i]] = true
	}
	n := int(r.u16())
	if n > MaxGenerations {
		r.fail("a history of %d generations, the limit is %d", n, MaxGenerations)
	}
	var h History
	used := 0
	for range n {
		g := r.generation(names, &used)
		if r.err != nil {
			return nil
		}
		if last := h.Last(); last != nil && (g.First <= last.First || g.Parent != last.ID) {
			r.fail("generation %v at LSN %d does not follow generation %v at LSN %d", g.ID, g.First, last.ID, last.First)
		}
		h = append(h, g)
	}
	if used != len(names) {
		r.fail("the history uses %d of %d names", used, len(names))
	}
	if r.err != nil {
		return nil
	}
	return h
}

// generation reads one entry of a history; used counts the names used so far.
func (r *fieldReader) generation(names []string, used *int) Generation {
	g := Generation{ID: r.id(), Parent: r.id(), Epoch: r.u64(), First: r.lsn(), SetVersion: r.u64()}
	n := int(r.u8())
	if g.ID.IsZero() || g.First == 0 {
		r.fail("generation %v at LSN %d", g.ID, g.First)
	}
	if n > MaxMembers {
		r.fail("generation %v has %d members, the limit is %d", g.ID, n, MaxMembers)
	}
	for range n {
		i, incarnation := int(r.u8()), r.u64()
		if r.err != nil {
			return g
		}
		if i > *used || i >= len(names) {
			r.fail("generation %v has a member with name %d of %d", g.ID, i, *used)
			return g
		}
		*used = max(*used, i+1)
		g.Set = append(g.Set, Member{Node: names[i], Incarnation: incarnation})
	}
	r.checkSet(g.Set)
	return g
}
