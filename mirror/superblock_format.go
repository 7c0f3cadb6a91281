package mirror

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/lockstep-storage/lockstep/journal"
)

// The file "superblock" is two slots of 256 KiB. A slot is
//
//	offset size field
//	 0     8    magic "LOCKSTSB"
//	 8     4    format version: 1, or 2 with an undo
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
// All little-endian. The 32 header bytes mean the same in every version. A slot
// that was never written is all zeroes.
const (
	superblockMagic   = "LOCKSTSB"
	superblockVersion = 2
	superblockPlain   = 1 // without an undo
	superblockHeader  = 32

	// SuperblockSlotSize is the length of one slot, bytes.
	SuperblockSlotSize = 256 << 10
)

// Every superblock that check accepts fits its slot.
const _ = uint(SuperblockSlotSize - superblockHeader - 4096 - MaxMembers*(1+maxName+8) - maxHistorySize)

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
	if len(s.Set) > MaxMembers {
		return fmt.Errorf("an in-sync set of %d, the limit is %d", len(s.Set), MaxMembers)
	}
	if s.Size < 0 || s.Size > 1<<62 {
		return fmt.Errorf("size %d", s.Size)
	}
	return s.History.check()
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
	kind := byte(1)
	if s.Resync.RollingBack {
		kind = 2
	}
	return append(append(b, kind), s.Resync.Undo[:]...)
}

// version is the format that the superblock needs: an older program that does not
// know of undos must not forget one.
func (s *Superblock) version() uint32 {
	if s.Resync == nil || s.Resync.Undo.IsZero() {
		return superblockPlain
	}
	return superblockVersion
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
	if version != superblockPlain {
		r.undo(s.Resync)
	}
	if err := r.end(); err != nil {
		return Superblock{}, err
	}
	return s, nil
}

func (r *fieldReader) undo(m *ResyncMark) {
	kind, id := r.enum("the undo", 3), r.id()
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
