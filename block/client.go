package block

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// A Client is a session for a program that waits for each of its requests, and has no
// use for Request and Buffer. Its methods may be called concurrently; p stays the
// caller's, and is not looked at once they have returned. Offsets and lengths are in
// bytes, and multiples of the device's SectorSize.
//
// It implements io.ReaderAt and io.WriterAt.
type Client struct {
	session Session
	info    Info
	submit  sync.Mutex // one goroutine at a time submits
}

// Open attaches to a device; see [Device.Attach] for what that waits for and how it
// fails. Once the device stops serving every request fails, with the reason; revoked,
// unless it is nil, is then called once, from a goroutine of its own, and must not block.
// The client has to be closed all the same.
func Open(ctx context.Context, d Device, revoked func(reason error)) (*Client, error) {
	if revoked == nil {
		revoked = func(error) {}
	}
	s, err := d.Attach(ctx, revoked)
	if err != nil {
		return nil, err
	}
	return &Client{session: s, info: d.Info()}, nil
}

// Info is the device's, as it was when the client was opened; it stays.
func (c *Client) Info() Info { return c.info }

// ReadAt fills p from the device at byte off. Like every io.ReaderAt it reads what there
// is, and returns io.EOF with it, where p ends beyond the device.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	var eof error
	if off >= 0 && int64(len(p)) > c.info.Size-off {
		p, eof = p[:max(0, c.info.Size-off)], io.EOF
	}
	if len(p) == 0 {
		return 0, eof
	}
	if err := c.judge("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	if err := c.session.ReadAt(p, off); err != nil {
		return 0, err
	}
	return len(p), eof
}

// WriteAt writes p at byte off. What it wrote may be lost by a power failure until Flush
// has returned, if the device has a write cache (Info.WriteCache). More than MaxBuffer is
// written as several requests, and where it fails, n says how much was written for sure.
func (c *Client) WriteAt(p []byte, off int64) (n int, err error) {
	if err := c.judge("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	for n < len(p) {
		part := p[n:min(len(p), n+MaxBuffer)]
		buf := Get(len(part))
		copy(buf.Bytes(), part)
		if err := c.do(Request{Op: OpWrite, Off: off + int64(n), Len: int64(len(part)), Buf: buf}); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// Flush returns once everything that had completed when it was called, on whatever
// session, is durable.
func (c *Client) Flush() error { return c.do(Request{Op: OpFlush}) }

// Trim makes n bytes at off read as zeroes, and gives their space back if it can.
func (c *Client) Trim(off, n int64) error { return c.zero(OpTrim, off, n) }

// WriteZeroes makes n bytes at off read as zeroes.
func (c *Client) WriteZeroes(off, n int64) error { return c.zero(OpWriteZeroes, off, n) }

func (c *Client) zero(op Op, off, n int64) error {
	if err := c.judge(op.String(), off, n); err != nil || n == 0 {
		return err
	}
	return c.do(Request{Op: op, Off: off, Len: n})
}

// Close ends the session; see [Session.Close] for what becomes of requests that other
// goroutines wait for. It is safe to call twice.
func (c *Client) Close() error {
	c.session.Close()
	return nil
}

// judge refuses what no device takes, before anything is allocated for it.
func (c *Client) judge(what string, off, n int64) error {
	switch s := c.info.SectorSize; {
	case off < 0 || n < 0 || n > c.info.Size-off:
		return fmt.Errorf("%s of %d bytes at %d, of a device of %d: %w", what, n, off, c.info.Size, ErrOutOfRange)
	case off%s != 0 || n%s != 0:
		return fmt.Errorf("%s of %d bytes at %d: both have to be multiples of the device's sectors of %d bytes", what, n, off, s)
	}
	return nil
}

func (c *Client) do(r Request) error {
	done := make(outcome, 1)
	r.Done = done
	c.submit.Lock()
	c.session.Submit([]*Request{&r})
	c.submit.Unlock()
	return <-done
}

// outcome is told how one request ended.
type outcome chan error

// Complete implements Completer.
func (o outcome) Complete(_ *Request, err error) { o <- err }
