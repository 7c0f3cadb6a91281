package mirror

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The fields that frames, superblock and generation records are made of. All
// integers are little-endian, a string is one length byte and as many bytes.

// errFormat says that bytes are not what they should be. Errors that wrap it
// say which field.
var errFormat = errors.New("invalid format")

// maxName is the longest name of a volume or node, bytes: its length is a byte.
const maxName = 255

var le = binary.LittleEndian

func appendString(dst []byte, s string) []byte {
	if len(s) > maxName {
		panic(fmt.Sprintf("mirror: name of %d bytes encoded, the limit is %d", len(s), maxName))
	}
	return append(append(dst, byte(len(s))), s...)
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendPosition(dst []byte, p Position) []byte {
	return le.AppendUint64(append(dst, p.Generation[:]...), uint64(p.LSN))
}

func appendMembers(dst []byte, set []Member) []byte {
	dst = append(dst, byte(len(set)))
	for _, m := range set {
		dst = le.AppendUint64(appendString(dst, m.Node), m.Incarnation)
	}
	return dst
}

// A fieldReader takes fields off the front of b. The first one that is missing
// or out of range sets err; those after it read as zero.
type fieldReader struct {
	b   []byte
	err error
}

func (r *fieldReader) fail(format string, a ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{errFormat}, a...)...)
	}
}

// take returns the next n bytes, or nil once reading has failed.
func (r *fieldReader) take(n int) []byte {
	if r.err == nil && len(r.b) < n {
		r.fail("%d bytes left where %d are wanted", len(r.b), n)
	}
	if r.err != nil {
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *fieldReader) u8() uint8 {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *fieldReader) u16() uint16 {
	if p := r.take(2); p != nil {
		return le.Uint16(p)
	}
	return 0
}

func (r *fieldReader) u32() uint32 {
	if p := r.take(4); p != nil {
		return le.Uint32(p)
	}
	return 0
}

func (r *fieldReader) u64() uint64 {
	if p := r.take(8); p != nil {
		return le.Uint64(p)
	}
	return 0
}

func (r *fieldReader) lsn() LSN { return LSN(r.u64()) }

// size is a number of bytes that fits an int64.
func (r *fieldReader) size(what string) int64 {
	n := r.u64()
	if n > 1<<62 {
		r.fail("%s is %d bytes", what, n)
		return 0
	}
	return int64(n)
}

func (r *fieldReader) bool(what string) bool {
	n := r.u8()
	if n > 1 {
		r.fail("%s is %d, neither 0 nor 1", what, n)
	}
	return n == 1
}

// enum is a byte that is less than n.
func (r *fieldReader) enum(what string, n int) uint8 {
	v := r.u8()
	if int(v) >= n {
		r.fail("%s is %d, the greatest known is %d", what, v, n-1)
		return 0
	}
	return v
}

func (r *fieldReader) zero(n int) {
	for _, b := range r.take(n) {
		if b != 0 {
			r.fail("a reserved byte is %#x", b)
			return
		}
	}
}

func (r *fieldReader) id() (id ID) {
	copy(id[:], r.take(len(id)))
	return id
}

func (r *fieldReader) string() string {
	return string(r.take(int(r.u8())))
}

func (r *fieldReader) position() Position {
	return Position{Generation: r.id(), LSN: r.lsn()}
}

// members reads a set, sorted by node.
func (r *fieldReader) members() []Member {
	n := int(r.u8())
	if n > MaxMembers {
		r.fail("an in-sync set of %d, the limit is %d", n, MaxMembers)
	}
	var set []Member
	for range n {
		if r.err != nil {
			return nil
		}
		set = append(set, Member{Node: r.string(), Incarnation: r.u64()})
	}
	r.checkSet(set)
	return set
}

func (r *fieldReader) checkSet(set []Member) {
	for i, m := range set {
		if m.Node == "" || i > 0 && set[i-1].Node >= m.Node {
			r.fail("in-sync set %v is not sorted by node", set)
			return
		}
	}
}

// end checks that nothing is left and returns the first error.
func (r *fieldReader) end() error {
	if len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}
