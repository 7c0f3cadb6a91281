package load

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// ErrLost: the connection ended before the answer came. Whether the request
// took place is unknown.
var ErrLost = errors.New("the connection is lost")

// Errno is an error that the server answered with, an NBD error number.
type Errno uint32

func (e Errno) Error() string { return fmt.Sprintf("the server answered with NBD error %d", uint32(e)) }

// The numbers of the NBD protocol that a client needs.
const (
	magicInit    = 0x4e42444d41474943 // NBDMAGIC
	magicOption  = 0x49484156454f5054 // IHAVEOPT
	magicReply   = 0x3e889045565a9    // of an option
	magicRequest = 0x25609513
	magicSimple  = 0x67446698

	fixedNewstyle = 1
	noZeroes      = 2

	optGo      = 7
	repAck     = 1
	repInfo    = 3
	repError   = 1 << 31
	infoExport = 0

	cmdRead   = 0
	cmdWrite  = 1
	cmdDisc   = 2
	cmdFlush  = 3
	cmdTrim   = 4
	cmdZeroes = 6
	flagFUA   = 1
)

// A Client is one connection. Its methods may be called concurrently; each
// waits for its own answer, and answers may come in any order.
type Client struct {
	Size int64 // of the export, bytes
	conn net.Conn

	sending sync.Mutex // held while a request goes out

	mu      sync.Mutex // guards what follows
	next    uint64
	waiting map[uint64]*call
	lost    error
}

type call struct {
	into []byte // a read's
	done chan error
}

// Dial connects to an export; addr is "host:port" or "unix:PATH".
func Dial(ctx context.Context, addr, export string) (*Client, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	c := &Client{conn: conn, waiting: map[uint64]*call{}}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	r := bufio.NewReaderSize(conn, 1<<16)
	if err := c.handshake(r, export); err != nil {
		conn.Close()
		return nil, fmt.Errorf("handshake for export %q: %w", export, err)
	}
	go c.receive(r)
	return c, nil
}

// DialServing is Dial until the export takes a client or ctx ends: a daemon that
// has just started refuses one at first.
func DialServing(ctx context.Context, addr, export string) (*Client, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var refusal error
	for {
		c, err := Dial(ctx, addr, export)
		if err == nil {
			return c, nil
		}
		if ctx.Err() == nil {
			refusal = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for export %q: %w; the last refusal: %w", export, context.Cause(ctx), refusal)
		}
	}
}

func (c *Client) handshake(r io.Reader, export string) error {
	var hello struct {
		Init, Option uint64
		Flags        uint16
	}
	if err := binary.Read(r, binary.BigEndian, &hello); err != nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	if hello.Init != magicInit || hello.Option != magicOption || hello.Flags&fixedNewstyle == 0 {
		return fmt.Errorf("no fixed newstyle NBD server: %+v", hello)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(hello.Flags&(fixedNewstyle|noZeroes)))
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, optGo)
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(export)+2))
	b = binary.BigEndian.AppendUint32(b, uint32(len(export)))
	b = append(b, export...)
	b = append(b, 0, 0) // no information asked for; the export's comes anyway
	if _, err := c.conn.Write(b); err != nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	for {
		var reply struct {
			Magic        uint64
			Option, Type uint32
			Length       uint32
		}
		if err := binary.Read(r, binary.BigEndian, &reply); err != nil {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
		if reply.Magic != magicReply || reply.Option != optGo || reply.Length > 4096 {
			return fmt.Errorf("a reply that makes no sense: %+v", reply)
		}
		data := make([]byte, reply.Length)
		if _, err := io.ReadFull(r, data); err != nil {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
		switch {
		case reply.Type == repAck:
			return nil
		case reply.Type&repError != 0:
			return fmt.Errorf("refused with %#x: %s", reply.Type, data)
		case reply.Type == repInfo && len(data) == 12 && binary.BigEndian.Uint16(data) == infoExport:
			c.Size = int64(binary.BigEndian.Uint64(data[2:]))
		}
	}
}

// receive hands each answer to whoever waits for it.
func (c *Client) receive(r io.Reader) {
	var err error
	for err == nil {
		err = c.receiveOne(r)
	}
	c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = fmt.Errorf("%w: %w", ErrLost, err)
	for _, w := range c.waiting {
		w.done <- c.lost
	}
	clear(c.waiting)
}

func (c *Client) receiveOne(r io.Reader) error {
	var reply struct {
		Magic, Errno uint32
		Handle       uint64
	}
	if err := binary.Read(r, binary.BigEndian, &reply); err != nil {
		return err
	}
	c.mu.Lock()
	w := c.waiting[reply.Handle]
	delete(c.waiting, reply.Handle)
	c.mu.Unlock()
	if reply.Magic != magicSimple || w == nil {
		return fmt.Errorf("an answer that makes no sense: %+v", reply)
	}
	if reply.Errno != 0 {
		w.done <- Errno(reply.Errno)
		return nil
	}
	if _, err := io.ReadFull(r, w.into); err != nil {
		w.done <- fmt.Errorf("%w: %w", ErrLost, err)
		return err
	}
	w.done <- nil
	return nil
}

// do sends one request and waits for its answer.
func (c *Client) do(cmd, flags uint16, off int64, n int, payload, into []byte) error {
	w := &call{into: into, done: make(chan error, 1)}
	c.mu.Lock()
	if c.lost != nil {
		c.mu.Unlock()
		return c.lost
	}
	c.next++
	h := binary.BigEndian.AppendUint32(make([]byte, 0, 28), magicRequest)
	h = binary.BigEndian.AppendUint16(h, flags)
	h = binary.BigEndian.AppendUint16(h, cmd)
	h = binary.BigEndian.AppendUint64(h, c.next)
	h = binary.BigEndian.AppendUint64(h, uint64(off))
	h = binary.BigEndian.AppendUint32(h, uint32(n))
	c.waiting[c.next] = w
	c.mu.Unlock()
	// The receiver needs mu while a server waits for it to take an answer.
	c.sending.Lock()
	bufs := net.Buffers{h, payload}
	_, err := bufs.WriteTo(c.conn)
	c.sending.Unlock()
	if err != nil {
		c.conn.Close() // the receiver then answers everybody, us too
	}
	return <-w.done
}

// ReadAt fills p from byte off.
func (c *Client) ReadAt(p []byte, off int64) error { return c.do(cmdRead, 0, off, len(p), nil, p) }

// WriteAt writes p at byte off; with fua it is durable when it is answered.
func (c *Client) WriteAt(p []byte, off int64, fua bool) error {
	var flags uint16
	if fua {
		flags = flagFUA
	}
	return c.do(cmdWrite, flags, off, len(p), p, nil)
}

// Trim and Zero make n bytes at off read as zeroes.
func (c *Client) Trim(off int64, n int) error { return c.do(cmdTrim, 0, off, n, nil, nil) }
func (c *Client) Zero(off int64, n int) error { return c.do(cmdZeroes, 0, off, n, nil, nil) }

// Flush makes every answered write durable.
func (c *Client) Flush() error { return c.do(cmdFlush, 0, 0, 0, nil, nil) }

// Close says good-bye and ends the connection.
func (c *Client) Close() {
	c.sending.Lock()
	defer c.sending.Unlock()
	h := make([]byte, 28)
	binary.BigEndian.PutUint32(h, magicRequest)
	binary.BigEndian.PutUint16(h[6:], cmdDisc)
	_, _ = c.conn.Write(h) // a courtesy
	c.conn.Close()
}
