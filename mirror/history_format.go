package mirror

import "fmt"

// A generation record's payload (journal.KindGeneration); the generation's
// first LSN is the record's own:
//
//	offset size field
//	 0     1    version: 1, 2 while the volume is being rolled back to a snapshot
//	 1    16    id
//	17    16    parent's id, zero for the volume's first generation
//	33     8    epoch
//	41     8    set version
//	49     1    members, at most 9
//	50     -    per member, sorted by node: name (1 length byte, 1 to 255 bytes), incarnation (8)
//
// and version 2 goes on with
//
//   - -    the node that has the snapshot (1 length byte, 1 to 255 bytes)
//   - -    its name (1 length byte, 1 to 64 bytes)
const (
	generationVersion = 2
	generationPlain   = 1 // of a volume that is not being rolled back
	// MaxGenerationPayload is the most bytes of a generation record's payload.
	MaxGenerationPayload = 50 + MaxMembers*(1+maxName+8) + 1 + maxName + 1 + maxSnapshotName
)

// EncodeGeneration appends the payload of g's generation record to dst.
func EncodeGeneration(dst []byte, g *Generation) []byte {
	version := byte(generationPlain)
	if !g.RollingBack.IsZero() {
		version = generationVersion
	}
	dst = append(dst, version)
	dst = append(dst, g.ID[:]...)
	dst = append(dst, g.Parent[:]...)
	dst = le.AppendUint64(dst, g.Epoch)
	dst = le.AppendUint64(dst, g.SetVersion)
	dst = appendMembers(dst, g.Set)
	if version == generationPlain {
		return dst
	}
	return appendString(appendString(dst, g.RollingBack.Node), g.RollingBack.Snapshot)
}

// DecodeGeneration reads the payload of the generation record at first.
func DecodeGeneration(payload []byte, first LSN) (Generation, error) {
	r := fieldReader{b: payload}
	v := r.u8()
	if v != generationPlain && v != generationVersion {
		r.fail("generation record of version %d, this program knows %d", v, generationVersion)
	}
	g := Generation{First: first, ID: r.id(), Parent: r.id(), Epoch: r.u64(), SetVersion: r.u64(), Set: r.members()}
	if v == generationVersion {
		g.RollingBack = r.target(r.string())
	}
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
//	2    generations, at most 1000; and bit 15 if any of them is of a volume that is
//	     being rolled back
//	-    per generation, oldest first:
//	       16 id
//	       16 parent's id
//	        8 epoch
//	        8 first LSN
//	        8 set version
//	        1 members, at most 9
//	        - per member, sorted by node: 1 index of its name, 8 incarnation
//	       and, with bit 15,
//	        1 rolling back: 0 not, 1 to the snapshot of the generation before, 2 to one that
//	          follows: 1 index of its node's name, its own name (1 length byte, 1 to
//	          64 bytes); at most 500 times in a history
const (
	maxHistoryNames     = 255
	maxHistoryRollbacks = 500
	maxHistorySize      = 1 + maxHistoryNames*(1+maxName) + 2 + MaxGenerations*(57+MaxMembers*9+1) + maxHistoryRollbacks*(1+1+maxSnapshotName)

	historyRollbacks = 1 << 15 // the flag beside the number of generations
)

// nameTable lists the nodes of h in order of first use.
func (h History) nameTable() (names []string, index map[string]int) {
	index = make(map[string]int)
	use := func(node string) {
		if _, ok := index[node]; !ok {
			index[node] = len(names)
			names = append(names, node)
		}
	}
	for i := range h {
		for _, m := range h[i].Set {
			use(m.Node)
		}
		if t := h[i].RollingBack; !t.IsZero() {
			use(t.Node)
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
		if t := h[i].RollingBack; !t.IsZero() && (t.Node == "" || len(t.Node) > maxName || t.Snapshot == "" || len(t.Snapshot) > maxSnapshotName) {
			return fmt.Errorf("generation %v rolls back to snapshot %q of node %q", h[i].ID, t.Snapshot, t.Node)
		}
	}
	if n := h.rollbacks(); n > maxHistoryRollbacks {
		return fmt.Errorf("a history of %d rollbacks to snapshots, the limit is %d", n, maxHistoryRollbacks)
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
	count, rolled := uint16(len(h)), h.rollbacks() > 0
	if rolled {
		count |= historyRollbacks
	}
	dst = le.AppendUint16(dst, count)
	was := RollbackTarget{}
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
		switch t := g.RollingBack; {
		case !rolled:
		case t.IsZero():
			dst = append(dst, 0)
		case t == was:
			dst = append(dst, 1)
		default:
			dst = appendString(append(dst, 2, byte(index[t.Node])), t.Snapshot)
		}
		was = g.RollingBack
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
	count := r.u16()
	n, rolled := int(count&^historyRollbacks), count&historyRollbacks != 0
	if n > MaxGenerations {
		r.fail("a history of %d generations, the limit is %d", n, MaxGenerations)
	}
	var h History
	used := 0
	was := RollbackTarget{}
	for range n {
		g := r.generation(names, &used)
		if rolled {
			g.RollingBack = r.rollingBack(was, names, &used)
		}
		was = g.RollingBack
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
	if n := h.rollbacks(); r.err == nil && (n > maxHistoryRollbacks || rolled != (n > 0)) {
		r.fail("a history of %d rollbacks, the limit is %d, that are said to be there: %v", n, maxHistoryRollbacks, rolled)
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
		node := r.indexed(names, used)
		g.Set = append(g.Set, Member{Node: node, Incarnation: r.u64()})
		if r.err != nil {
			return g
		}
	}
	r.checkSet(g.Set)
	return g
}

// indexed is one of the history's names.
func (r *fieldReader) indexed(names []string, used *int) string {
	i := int(r.u8())
	if r.err == nil && (i > *used || i >= len(names)) {
		r.fail("the history has name %d where %d of %d were used", i, *used, len(names))
	}
	if r.err != nil {
		return ""
	}
	*used = max(*used, i+1)
	return names[i]
}

// rollingBack reads what a generation says of a rollback; was is what the one before
// it says.
func (r *fieldReader) rollingBack(was RollbackTarget, names []string, used *int) RollbackTarget {
	switch kind := r.enum("rolling back", 3); {
	case kind == 0:
		return RollbackTarget{}
	case kind == 1:
		if was.IsZero() {
			r.fail("a rollback to the same snapshot as before, and there was none")
		}
		return was
	}
	t := r.target(r.indexed(names, used))
	if r.err == nil && t == was {
		r.fail("a rollback to snapshot %q is named twice", t.Snapshot)
	}
	return t
}

// target reads the name of a snapshot of that node.
func (r *fieldReader) target(node string) RollbackTarget {
	t := RollbackTarget{Node: node, Snapshot: r.string()}
	if t.Node == "" || t.Snapshot == "" || len(t.Snapshot) > maxSnapshotName {
		r.fail("a rollback to snapshot %.70q of node %q", t.Snapshot, t.Node)
	}
	return t
}
