package mirror

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/lockstep-storage/lockstep/journal"
)

// The file "superblock" is two slots of 256 KiB. A slot is
//
//	offset size field
//	 0     8    magic "LOCKSTSB"
//	 8     4    format version: 1, 2 with an undo, 3 with snapshots, 4 with a
//	           rollback in the history or a snapshot of before one
//	12     4    slot number, 0 or 1
//	16     8    sequence number
//	24     4    length of the body, bytes
//	28     4    CRC32C of bytes 0..27 and of the body
//	32     -    body
//
// and the body of version 1 is
//
//	16    volume id
//	 -    volume name    (1 length byte, up to 255 bytes)
//	 -    node name      (the same)
//	 8    size, bytes
//	 1    write cache    (0 off, 1 on)
//	 1    protocol       (0 C, 1 B)
//	 8    epoch, the newest seen
//	 8    set version, the newest seen
//	 -    in-sync set    (1 count, at most 9; per member its name and 8 bytes of incarnation)
//	 1    excluded       (0, 1)
//	 8    incarnation
//	 -    boot id        (1 length byte, up to 255 bytes)
//	 1    disk state     (0 Diskless, 1 Attaching, 2 Failed, 3 Inconsistent, 4 Outdated, 5 Consistent, 6 UpToDate)
//	 8    loss counter
//	 1    resync mark    (0, 1, 2 journal lost); with 1 and 2 follow 16 base generation, 8 base LSN, source's name
//	 -    history        (history_format.go)
//
// The body of version 2 goes on with
//
//	 1    undo           (1 of the resync under way, 2 rolling back by it)
//	16    its id
//
// and the body of version 3 with
//
//	 1    undo           (as in version 2; 0 none)
//	16    its id         (zero without one)
//	 1    snapshots      (1 to 16; 0 in version 4), and per snapshot
//	 -      name         (1 length byte, up to 64 bytes)
//	16      id of its file
//	24      the newest record in the image: 16 generation, 8 LSN
//	 8      when it was created, nanoseconds since 1970 UTC
//	 1      flags        (1 settling; 2 rolling back, which version 3 said in place of the
//	                     history; 4 of before a rollback, in version 4)
//	 -      peer         (1 length byte, up to 255 bytes; empty: a user's)
//	 -      why it is lost (1 length byte, up to 255 bytes; empty: it is whole)
//
// All little-endian. The 32 header bytes mean the same in every version. A slot
// that was never written is all zeroes.
const (
	superblockMagic     = "LOCKSTSB"
	superblockVersion   = 4
	superblockPlain     = 1 // with neither undo nor snapshots
	superblockUndo      = 2 // without snapshots
	superblockSnapshots = 3 // without rollbacks
	superblockHeader    = 32

	// SuperblockSlotSize is the length of one slot, bytes.
	SuperblockSlotSize = 256 << 10
)

// Every superblock that check accepts fits its slot.
const _ = uint(SuperblockSlotSize - superblockHeader - 4096 - MaxMembers*(1+maxName+8) - maxHistorySize - MaxSnapshots*maxSnapshotEntry)

// Flags of a snapshot.
const (
	entrySettling    = 1
	entryRollingBack = 2 // of version 3
	entryBefore      = 4 // of version 4
)

// maxSnapshotEntry is the most bytes of one.
const maxSnapshotEntry = 1 + maxSnapshotName + 16 + 24 + 8 + 1 + 2*(1+maxName)

// Why a slot could not be read.
var (
	errSlotEmpty   = errors.New("it was never written")
	errSlotVersion = errors.New("unknown version")
)

// check reports what is beyond the format's bounds.
func (s *Superblock) check() error {
	names := []string{s.Name, s.Node, s.BootID}
	if s.Resync != nil {
		names = append(names, s.Resync.Source)
	}
	for i := range s.Set {
		names = append(names, s.Set[i].Node)
	}
	for _, name := range names {
		if len(name) > maxName {
			return fmt.Errorf("name %.20q... has %d bytes, the limit is %d", name, len(name), maxName)
		}
	}
	if len(s.Snapshots) > MaxSnapshots {
		return fmt.Errorf("%d snapshots, the limit is %d", len(s.Snapshots), MaxSnapshots)
	}
	for i := range s.Snapshots {
		if err := s.Snapshots[i].check(); err != nil {
			return err
		}
	}
	if len(s.Set) > MaxMembers {
		return fmt.Errorf("an in-sync set of %d, the limit is %d", len(s.Set), MaxMembers)
	}
	if s.Size < 0 || s.Size > 1<<62 {
		return fmt.Errorf("size %d", s.Size)
	}
	return s.History.check()
}

// check reports what is beyond the format's bounds.
func (e *SnapshotEntry) check() error {
	if err := checkSnapshotName(e.Name); err != nil {
		return err
	}
	for _, s := range []string{e.Peer, e.Lost} {
		if len(s) > maxName {
			return fmt.Errorf("snapshot %q: %.20q... has %d bytes, the limit is %d", e.Name, s, len(s), maxName)
		}
	}
	return nil
}

// encodeSlot returns the bytes of slot number slot, padded with zeroes to whole
// 4 KiB blocks. It fails for a superblock that could not be read back.
func (s *Superblock) encodeSlot(slot uint32) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	b := make([]byte, superblockHeader, 4096)
	copy(b, superblockMagic)
	b = s.appendBody(b)
	le.PutUint32(b[8:], s.version())
	le.PutUint32(b[12:], slot)
	le.PutUint64(b[16:], s.Seq)
	le.PutUint32(b[24:], uint32(len(b)-superblockHeader))
	le.PutUint32(b[28:], slotCRC(b))
	if _, err := decodeSlot(b, slot); err != nil {
		return nil, err
	}
	return slices.Concat(b, make([]byte, -len(b)&4095)), nil
}

// slotCRC covers everything of a slot but the CRC itself.
func slotCRC(b []byte) uint32 {
	crc := crc32.Checksum(b[:28], journal.Castagnoli)
	return crc32.Update(crc, journal.Castagnoli, b[superblockHeader:])
}

func (s *Superblock) appendBody(b []byte) []byte {
	b = append(b, s.Volume[:]...)
	b = appendString(b, s.Name)
	b = appendString(b, s.Node)
	b = le.AppendUint64(b, uint64(s.Size))
	b = appendBool(b, s.WriteCache)
	b = append(b, byte(s.Protocol))
	b = le.AppendUint64(b, s.Epoch)
	b = le.AppendUint64(b, s.SetVersion)
	b = appendMembers(b, s.Set)
	b = appendBool(b, s.Excluded)
	b = le.AppendUint64(b, s.Incarnation)
	b = appendString(b, s.BootID)
	b = append(b, byte(s.Disk))
	b = le.AppendUint64(b, s.LossCounter)
	b = appendResyncMark(b, s.Resync)
	b = appendHistory(b, s.History)
	if s.version() == superblockPlain {
		return b
	}
	b = appendUndo(b, s.Resync)
	if s.version() == superblockUndo {
		return b
	}
	b = append(b, byte(len(s.Snapshots)))
	for i := range s.Snapshots {
		b = s.Snapshots[i].append(b)
	}
	return b
}

// version is the format that the superblock needs: an older program must not forget
// what it does not know of.
func (s *Superblock) version() uint32 {
	switch {
	case s.History.rollbacks() > 0 || slices.ContainsFunc(s.Snapshots, func(e SnapshotEntry) bool { return e.Before }):
		return superblockVersion
	case len(s.Snapshots) > 0:
		return superblockSnapshots
	case s.Resync == nil || s.Resync.Undo.IsZero():
		return superblockPlain
	}
	return superblockUndo
}

func appendUndo(b []byte, m *ResyncMark) []byte {
	kind, id := byte(0), ID{}
	if m != nil && !m.Undo.IsZero() {
		if kind, id = 1, m.Undo; m.RollingBack {
			kind = 2
		}
	}
	return append(append(b, kind), id[:]...)
}

func (e *SnapshotEntry) append(b []byte) []byte {
	b = append(appendString(b, e.Name), e.ID[:]...)
	b = le.AppendUint64(appendPosition(b, e.At), uint64(e.Created.UnixNano()))
	flags := byte(0)
	if e.Settling {
		flags |= entrySettling
	}
	if e.Before {
		flags |= entryBefore
	}
	return appendString(appendString(append(b, flags), e.Peer), e.Lost)
}

func appendResyncMark(b []byte, m *ResyncMark) []byte {
	switch {
	case m == nil:
		return append(b, 0)
	case m.JournalLost:
		b = append(b, 2)
	default:
		b = append(b, 1)
	}
	return appendString(appendPosition(b, m.Base), m.Source)
}

// decodeSlot reads slot number slot from b, which may be longer than the slot's
// content. Memory is bounded by b's length.
func decodeSlot(b []byte, slot uint32) (Superblock, error) {
	if len(b) < superblockHeader {
		return Superblock{}, fmt.Errorf("%w: %d bytes of a %d byte header", errFormat, len(b), superblockHeader)
	}
	if !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		return Superblock{}, errSlotEmpty
	}
	if string(b[:8]) != superblockMagic {
		return Superblock{}, fmt.Errorf("%w: the magic is %q", errFormat, b[:8])
	}
	n := uint64(le.Uint32(b[24:]))
	if n > uint64(len(b)-superblockHeader) {
		return Superblock{}, fmt.Errorf("%w: a body of %d bytes, the slot has room for %d", errFormat, n, len(b)-superblockHeader)
	}
	b = b[:superblockHeader+n]
	if crc := slotCRC(b); crc != le.Uint32(b[28:]) {
		return Superblock{}, fmt.Errorf("%w: CRC %08x, computed %08x", errFormat, le.Uint32(b[28:]), crc)
	}
	v := le.Uint32(b[8:])
	if v < superblockPlain || v > superblockVersion {
		return Superblock{}, fmt.Errorf("%w: format version %d, this program knows %d", errSlotVersion, v, superblockVersion)
	}
	if got := le.Uint32(b[12:]); got != slot {
		return Superblock{}, fmt.Errorf("%w: it is a copy of slot %d", errFormat, got)
	}
	s, err := decodeBody(b[superblockHeader:], v)
	s.Seq = le.Uint64(b[16:])
	return s, err
}

func decodeBody(b []byte, version uint32) (Superblock, error) {
	r := fieldReader{b: b}
	s := Superblock{
		Volume:      r.id(),
		Name:        r.string(),
		Node:        r.string(),
		Size:        r.size("the volume"),
		WriteCache:  r.bool("the write cache"),
		Protocol:    Protocol(r.enum("the protocol", len(protocolNames))),
		Epoch:       r.u64(),
		SetVersion:  r.u64(),
		Set:         r.members(),
		Excluded:    r.bool("excluded"),
		Incarnation: r.u64(),
		BootID:      r.string(),
		Disk:        DiskState(r.enum("the disk state", len(diskNames))),
		LossCounter: r.u64(),
		Resync:      r.resyncMark(),
		History:     r.history(),
	}
	if version >= superblockUndo {
		r.undo(s.Resync, version > superblockUndo)
	}
	if version > superblockUndo {
		s.Snapshots = r.snapshots(version, &s)
	}
	if err := r.end(); err != nil {
		return Superblock{}, err
	}
	// One superblock has one encoding, but for what version 3 says of a rollback.
	if v := s.version(); v != version && (version != superblockSnapshots || v != superblockVersion) {
		return Superblock{}, fmt.Errorf("%w: what it holds is of version %d", errFormat, v)
	}
	return s, nil
}

func (r *fieldReader) undo(m *ResyncMark, optional bool) {
	kind, id := r.enum("the undo", 3), r.id()
	if optional && kind == 0 && id.IsZero() {
		return
	}
	if m == nil || kind == 0 || id.IsZero() {
		r.fail("an undo without a resync, or without an id")
		return
	}
	m.Undo, m.RollingBack = id, kind == 2
}

func (r *fieldReader) resyncMark() *ResyncMark {
	kind := r.enum("the resync mark", 3)
	if kind == 0 {
		return nil
	}
	return &ResyncMark{JournalLost: kind == 2, Base: r.position(), Source: r.string()}
}

// snapshots reads the list. In version 3 an entry says that the volume is being rolled
// back to it, which the superblock's history says from now on.
func (r *fieldReader) snapshots(version uint32, s *Superblock) (list []SnapshotEntry) {
	n := int(r.enum("the number of snapshots", MaxSnapshots+1))
	known := byte(entrySettling | entryBefore)
	if version == superblockSnapshots {
		known = entrySettling | entryRollingBack
		if n == 0 {
			r.fail("no snapshot in a format that is for them")
		}
	}
	for i := 0; i < n && r.err == nil; i++ {
		e := SnapshotEntry{Name: r.string(), ID: r.id(), At: r.position(), Created: time.Unix(0, int64(r.u64()))}
		flags := r.u8()
		if flags&^known != 0 {
			r.fail("a snapshot's flags are %#x, those known are %#x", flags, known)
		}
		e.Settling, e.Before = flags&entrySettling != 0, flags&entryBefore != 0
		e.Peer, e.Lost = r.string(), r.string()
		if err := e.check(); err != nil && r.err == nil {
			r.fail("%v", err)
		}
		if last := s.History.Last(); flags&entryRollingBack != 0 && last != nil {
			last.RollingBack = RollbackTarget{Node: s.Node, Snapshot: e.Name}
		}
		list = append(list, e)
	}
	return list
}
