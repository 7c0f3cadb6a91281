package nbdclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// Client is a connection to an export.
type Client struct {
	nc   net.Conn
	info Info

	sending sync.Mutex // guards the socket's writing half, header and bufs
	header  []byte
	bufs    net.Buffers

	mu      sync.Mutex // guards what follows
	calls   map[uint64]*call
	cookie  uint64
	lost    error         // why no call can succeed any more
	stopped chan struct{} // closed when the receiver has ended
}

// A call is a request that waits for its reply.
type call struct {
	into []byte // where a read's data goes
	done chan struct{}
	err  error
}

// Dial connects to an export; network and addr are net.Dial's, the empty name
// is the server's default export. ctx bounds the handshake.
func Dial(ctx context.Context, network, addr, export string) (*Client, error) {
	s, err := connect(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return begin(ctx, s, export)
}

// New does what Dial does on a connection that exists. It closes it on failure.
func New(ctx context.Context, nc net.Conn, export string) (*Client, error) {
	return begin(ctx, &session{nc}, export)
}

func begin(ctx context.Context, s *session, export string) (*Client, error) {
	c := &Client{nc: s.nc, calls: make(map[uint64]*call), stopped: make(chan struct{})}
	err := s.during(ctx, func() (err error) {
		if err = s.greet(); err == nil {
			c.info, err = s.describe(wire.OptGo, export)
		}
		return err
	})
	if err != nil {
		s.nc.Close()
		return nil, fmt.Errorf("attach to export %q: %w", export, err)
	}
	go c.receive()
	return c, nil
}

// Info is what the server said of the export.
func (c *Client) Info() Info { return c.info }

// Close tells the server goodbye and closes the connection. Calls in flight
// fail with ErrClosed; whether they took effect is not known.
func (c *Client) Close() error {
	c.mu.Lock()
	over := c.lost != nil
	if !over {
		c.lost = ErrClosed
	}
	c.mu.Unlock()
	if !over {
		c.sending.Lock()
		c.nc.Write(wire.Request{Type: wire.CmdDisc}.Append(nil)) // if it is lost the close says as much
		c.sending.Unlock()
	}
	err := c.nc.Close()
	<-c.stopped
	if over && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// do sends a request and waits for its reply.
func (c *Client) do(r wire.Request, payload, into []byte) error {
	cl := &call{into: into, done: make(chan struct{})}
	c.mu.Lock()
	if c.lost != nil {
		defer c.mu.Unlock()
		return c.lost
	}
	c.cookie++
	r.Cookie = c.cookie
	c.calls[r.Cookie] = cl
	c.mu.Unlock()

	if err := c.send(r, payload); err != nil {
		c.lose(fmt.Errorf("nbdclient: send a %s: %w", wire.CmdName(r.Type), err))
	}
	<-cl.done
	var no Errno
	if errors.As(cl.err, &no) {
		return &Error{Op: wire.CmdName(r.Type), Off: int64(r.Off), Len: int64(r.Len), Errno: no}
	}
	return cl.err
}

func (c *Client) send(r wire.Request, payload []byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.header = r.Append(c.header[:0])
	if len(payload) == 0 {
		_, err := c.nc.Write(c.header)
		return err
	}
	c.bufs = append(c.bufs[:0], c.header, payload)
	out := c.bufs
	_, err := out.WriteTo(c.nc)
	return err
}

// lose gives the connection up; the receiver then ends every call.
func (c *Client) lose(why error) {
	c.mu.Lock()
	if c.lost == nil {
		c.lost = why
	}
	c.mu.Unlock()
	c.nc.Close()
}

// receive hands replies to their calls until the connection ends. Only then do
// the calls that are left fail: nothing touches their buffers any more.
func (c *Client) receive() {
	defer close(c.stopped)
	in := bufio.NewReaderSize(c.nc, 64<<10)
	var err error
	for err == nil {
		err = c.reply(in)
	}
	c.lose(fmt.Errorf("nbdclient: the connection is lost: %w", err))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cl := range c.calls {
		cl.err = c.lost
		close(cl.done)
	}
	clear(c.calls)
}

func (c *Client) reply(in *bufio.Reader) error {
	var head [wire.SimpleReplySize]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	r, ok := wire.ParseReply(head[:])
	if !ok {
		return fmt.Errorf("% x is no reply", head)
	}
	c.mu.Lock()
	cl := c.calls[r.Cookie]
	c.mu.Unlock()
	if cl == nil {
		return fmt.Errorf("a reply to request %d, which is not in flight", r.Cookie)
	}
	if r.Errno != wire.OK {
		cl.err = Errno(r.Errno)
	} else if _, err := io.ReadFull(in, cl.into); err != nil {
		return err // the call is still in the table and fails with the rest
	}
	c.mu.Lock()
	delete(c.calls, r.Cookie)
	c.mu.Unlock()
	close(cl.done)
	return nil
}
