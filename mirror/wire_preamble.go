package mirror

import (
	"fmt"
	"hash/crc32"
	"io"

	"github.com/lockstep-storage/lockstep/journal"
)

// The peer protocol's versions that this program speaks.
const (
	ProtocolVersionMin = 1
	ProtocolVersionMax = 4
)

// A Preamble is the first thing that a dialler sends:
//
//	offset size field
//	 0     8    magic "LOCKSTEP"
//	 8     2    least protocol version it speaks
//	10     2    greatest protocol version it speaks
//	12     2    length of what follows, bytes
//	14     2    zero
//	16    16    nonce of the connection
//	32     -    volume name (1 length byte, up to 255 bytes)
//	 -     -    node name   (the same)
//	 -     4    CRC32C of everything before
//
// The first 16 bytes mean the same in every version.
type Preamble struct {
	Min, Max uint16 // protocol versions; WritePreamble fills them in
	Nonce    ID     // random, new for every connection
	Volume   string // its name
	Node     string // the dialler's name
}

const (
	preambleMagic  = "LOCKSTEP"
	preambleHeader = 16
	maxPreamble    = 16 + 2*(1+maxName) + 4 // bytes after the header
)

// WritePreamble sends p with this program's versions, in one write.
func WritePreamble(w io.Writer, p Preamble) error {
	p.Min, p.Max = ProtocolVersionMin, ProtocolVersionMax
	if _, err := w.Write(p.encode()); err != nil {
		return fmt.Errorf("sending the preamble: %w", err)
	}
	return nil
}

func (p *Preamble) encode() []byte {
	b := make([]byte, preambleHeader, preambleHeader+maxPreamble)
	copy(b, preambleMagic)
	le.PutUint16(b[8:], p.Min)
	le.PutUint16(b[10:], p.Max)
	b = append(b, p.Nonce[:]...)
	b = appendString(b, p.Volume)
	b = appendString(b, p.Node)
	le.PutUint16(b[12:], uint16(len(b)-preambleHeader+4))
	return le.AppendUint32(b, crc32.Checksum(b, journal.Castagnoli))
}

// ReadPreamble reads what a dialler sent, at most 548 bytes, and returns it with
// the protocol version to speak: the greatest that both know. Without one it
// fails with an error that satisfies errors.As for *VersionError.
func ReadPreamble(r io.Reader) (p Preamble, version uint16, err error) {
	fail := func(format string, a ...any) (Preamble, uint16, error) {
		return Preamble{}, 0, fmt.Errorf("%w: preamble: "+format, append([]any{ErrFrame}, a...)...)
	}
	var h [preambleHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return fail("%w", err)
	}
	if string(h[:8]) != preambleMagic {
		return fail("%q is not how a Lockstep peer begins", h[:8])
	}
	version, err = negotiate(le.Uint16(h[8:]), le.Uint16(h[10:]))
	if err != nil {
		return Preamble{}, 0, err
	}
	n := int(le.Uint16(h[12:]))
	if n > maxPreamble || n < 4 || h[14]|h[15] != 0 {
		return fail("%d bytes, the limit is %d", n, maxPreamble)
	}
	b := make([]byte, preambleHeader+n)
	copy(b, h[:])
	if _, err := io.ReadFull(r, b[preambleHeader:]); err != nil {
		return fail("%w", err)
	}
	body, crc := b[:len(b)-4], le.Uint32(b[len(b)-4:])
	if got := crc32.Checksum(body, journal.Castagnoli); got != crc {
		return fail("CRC %08x, computed %08x", crc, got)
	}
	f := fieldReader{b: body[preambleHeader:]}
	p = Preamble{Min: le.Uint16(h[8:]), Max: le.Uint16(h[10:]), Nonce: f.id(), Volume: f.string(), Node: f.string()}
	if err := f.end(); err != nil {
		return fail("%w", err)
	}
	return p, version, nil
}

// A VersionError says that a peer speaks no protocol version that we do.
type VersionError struct{ Min, Max uint16 }

func (e *VersionError) Error() string {
	older := "the peer"
	if e.Min > ProtocolVersionMax {
		older = "this node"
	}
	return fmt.Sprintf("the peer speaks protocol versions %d to %d, this node %d to %d: upgrade %s",
		e.Min, e.Max, ProtocolVersionMin, ProtocolVersionMax, older)
}

func negotiate(least, greatest uint16) (uint16, error) {
	v := min(greatest, ProtocolVersionMax)
	if v < max(least, ProtocolVersionMin) {
		return 0, &VersionError{Min: least, Max: greatest}
	}
	return v, nil
}
