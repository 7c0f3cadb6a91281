package nbdclient

import (
	"fmt"
	"io"

	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// Flag changes how a request is carried out.
type Flag uint16

const (
	// FUA: the request is durable when it is answered.
	FUA = Flag(wire.CmdFlagFUA)
	// NoHole: write-zeroes leaves the space allocated.
	NoHole = Flag(wire.CmdFlagNoHole)
)

var (
	_ io.ReaderAt = (*Client)(nil)
	_ io.WriterAt = (*Client)(nil)
)

// maxEffect is the longest range of one trim or write-zeroes: what the
// protocol's 32 bits hold, in whole blocks of any size.
const maxEffect = 1<<32 - wire.MaxMinBlock

// ReadAt implements io.ReaderAt: a read that reaches the export's end is cut
// there and returns io.EOF.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("nbdclient: read at offset %d", off)
	}
	var atEnd error
	if left := max(c.info.Size-off, 0); int64(len(p)) > left {
		p, atEnd = p[:left], io.EOF
	}
	n, err := c.pieces(p, off, func(part []byte, at int64) error {
		return c.do(wire.Request{Type: wire.CmdRead, Off: uint64(at), Len: uint64(len(part))}, nil, part)
	})
	if err != nil {
		return n, err
	}
	return n, atEnd
}

// WriteAt implements io.WriterAt. What it wrote is durable after a Flush.
func (c *Client) WriteAt(p []byte, off int64) (int, error) { return c.Write(p, off, 0) }

// Write writes with flags: FUA or 0. More than the server's largest payload is
// written in several requests, one after the other.
func (c *Client) Write(p []byte, off int64, f Flag) (int, error) {
	return c.pieces(p, off, func(part []byte, at int64) error {
		r := wire.Request{Type: wire.CmdWrite, Flags: uint16(f), Off: uint64(at), Len: uint64(len(part))}
		return c.do(r, part, nil)
	})
}

func (c *Client) pieces(p []byte, off int64, do func(part []byte, at int64) error) (int, error) {
	most := int(c.info.MaxPayload - c.info.MaxPayload%c.info.MinBlock)
	n := 0
	for n < len(p) {
		part := p[n:min(n+most, len(p))]
		if err := do(part, off+int64(n)); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// Flush makes every write that was answered before it durable.
func (c *Client) Flush() error {
	return c.do(wire.Request{Type: wire.CmdFlush}, nil, nil)
}

// Trim tells the server that n bytes at off are no longer needed.
func (c *Client) Trim(off, n int64, f Flag) error { return c.effect(wire.CmdTrim, off, n, f) }

// WriteZeroes makes n bytes at off read as zeroes. Flags: FUA, NoHole or both.
func (c *Client) WriteZeroes(off, n int64, f Flag) error {
	return c.effect(wire.CmdWriteZeroes, off, n, f)
}

func (c *Client) effect(cmd uint16, off, n int64, f Flag) error {
	if off < 0 || n < 0 {
		return fmt.Errorf("nbdclient: %s of %d bytes at %d", wire.CmdName(cmd), n, off)
	}
	for n > 0 {
		k := min(n, maxEffect)
		if err := c.do(wire.Request{Type: cmd, Flags: uint16(f), Off: uint64(off), Len: uint64(k)}, nil, nil); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}
