package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/lockstep-storage/lockstep/bitmap"
)

// A link is one session with a peer: one connection, from its handshake to its
// end. What a peer acknowledged counts only within it.
type link struct {
	peer    *peer
	v       *Volume
	conn    net.Conn
	version uint16 // of the protocol; a dialler's own newest until the Hellos were exchanged
	dialled bool
	in      *FrameReader
	kick    chan struct{} // for the sender
	ctx     context.Context
	stop    context.CancelFunc

	// sending is held by whoever sends records: the sender, or in its place the
	// sequencer, who leaves it the error that ends the link in failed.
	sending sync.Mutex
	failed  error

	wmu   sync.Mutex // one frame at a time
	wbuf  []byte
	out   *bufio.Writer // gathers a frame's pieces; nil where the connection takes them in one vectored write
	ended error         // set once; guarded by wmu

	// Set by the handshake, before met.
	mine  Hello
	hello Hello // theirs, whole
	// untold: we refuse the peer, which may not know why.
	untold bool

	// v.mu guards the rest.
	meeting
	epoch uint64
	// parting is what closeLink tells the peer, whoever comes to say it first.
	parting *Bye
	split   *metSplit // what they are, if they are a split-brain
	// Of a split-brain that is settled: who gives up what it wrote, whether that is
	// kept nowhere, and which blocks we wrote; nil is not known. Set by the handshake.
	loser    Side
	discard  bool
	diverged *bitmap.Blocks

	source sourceState
	target targetState

	theirPause bool // the peer holds the resync back
	pauseSaid  bool // what it was told of us

	reads  remoteReads // as Primary (remote.go)
	server readServer  // as Secondary
}

const (
	// recvBuffer is how much is read from a peer's socket at once, bytes.
	recvBuffer = 256 << 10
	// sendBuffer is how much is gathered for a connection without vectored writes, bytes.
	sendBuffer = 64 << 10
)

// errAgain ends a link that is to be opened again at once.
var errAgain = errors.New("the handshake begins again")

// errStalled: nothing came of the peer for as long as it may be waited for.
var errStalled = errors.New("the peer stalls")

func newLink(p *peer, conn net.Conn, version uint16, dialled bool) *link {
	l := &link{peer: p, v: p.v, conn: conn, version: version, dialled: dialled, kick: make(chan struct{}, 1),
		in: NewFrameReader(bufio.NewReaderSize(conn, recvBuffer))}
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetNoDelay(true) // the default; batches are ours to make
	} else {
		l.out = bufio.NewWriterSize(conn, sendBuffer)
	}
	l.reads = remoteReads{slots: make(chan struct{}, maxReads), waiting: make(map[uint64]remoteRead)}
	l.server.slots = make(chan struct{}, maxReads)
	return l
}

// serve runs one connection to its end and reports whether the next attempt is
// to follow at once.
func (p *peer) serve(conn net.Conn, version uint16, dialled bool) (again bool) {
	p.one.Lock()
	defer p.one.Unlock()
	v, l := p.v, newLink(p, conn, version, dialled)
	l.ctx, l.stop = context.WithCancel(v.ctx)
	// A closed context must end a read that waits for the peer.
	unhook := context.AfterFunc(l.ctx, func() { _ = conn.Close() })
	defer unhook()
	if ok, again := l.register(); !ok {
		l.end(&Bye{Code: CodeBusy, Sentence: "not now"})
		return again
	}
	err := l.run()
	l.end(l.farewell(err))
	l.closeSource()
	return l.unregister(err)
}

// register makes l the peer's link and describes ourselves, in one step: a
// change of the role from now on ends the link. In the middle of a promotion
// there is nothing to describe yet: again asks for another attempt.
func (l *link) register() (ok, again bool) {
	v, p := l.v, l.peer
	v.mu.Lock()
	defer v.mu.Unlock()
	if !p.want && !p.untold || v.closing || v.failure != nil || p.leaving {
		return false, false
	}
	if v.role == Primary && v.generation == notBegun {
		return false, true
	}
	p.link, p.with = l, &l.meeting
	p.received, p.durable = 0, 0 // forgotten at the handshake (replication.md 2)
	l.mine, l.role = v.describe(p), v.role
	return true, false
}

// describe is what a peer is told of us. v.mu is held.
func (v *Volume) describe(p *peer) Hello {
	sb := &v.super
	base := p.bits.Base()
	return Hello{
		Session:      uint64(time.Now().UnixNano()),
		JournalFirst: v.journal.First(),
		Base:         Position{Generation: base.Generation, LSN: LSN(base.LSN)},
		Description: Description{
			Node: v.opts.Node, Volume: sb.Volume, Name: sb.Name, Size: sb.Size,
			Protocol: sb.Protocol, WriteCache: sb.WriteCache, Role: v.role, Disk: v.disk(),
			Epoch: sb.Epoch, SetVersion: sb.SetVersion, Set: sb.Set, Excluded: sb.Excluded,
			Incarnation: sb.Incarnation, History: sb.History,
			End: v.end, Durable: v.durable, Stable: v.stable, Resync: sb.Resync,
		},
	}
}

// over reports whether the session has ended meanwhile: by a promotion here, say,
// after which nothing that it decided holds. v.apply is held, without which nobody
// takes the role.
func (l *link) over() bool {
	l.v.mu.Lock()
	defer l.v.mu.Unlock()
	return l.peer.link != l
}

func (l *link) run() error {
	if err := l.meet(); err != nil {
		return err
	}
	switch {
	case l.mine.Description.Role == Primary:
		return l.lead()
	case l.theirs.Role == Primary:
		return l.follow()
	}
	return l.idle()
}

// farewell is the last frame to send after err, nil for none.
func (l *link) farewell(err error) Message {
	l.v.mu.Lock()
	parting := l.parting
	l.v.mu.Unlock()
	var r *refusal
	switch {
	case parting != nil:
		return parting
	case errors.As(err, &r):
		return &Refuse{Code: r.code, Sentence: r.sentence}
	case errors.Is(err, errAgain):
		return &Bye{Code: CodeBusy, Sentence: "the handshake begins again"}
	case errors.Is(err, ErrFrame):
		return &Bye{Code: CodeProtocol, Sentence: err.Error()}
	}
	return nil
}

// unregister takes the link down and says what that means for the peer.
func (l *link) unregister(err error) (again bool) {
	v, p := l.v, l.peer
	l.stop()
	var bye *Bye
	var refused *Refuse
	var refuses *refusal
	isBye := errors.As(err, &bye)
	again = errors.Is(err, errAgain) || isBye && bye.Code == CodeBusy
	v.mu.Lock()
	p.following = false
	if l.source.resync != nil || l.target.resync != nil && !l.target.told {
		v.emit(EventResync, p.node, "it is interrupted")
	}
	if p.link != l && err != nil {
		again = true // we closed it ourselves, to open another
	}
	if p.link == l {
		p.link = nil
	}
	if l.split != nil {
		p.split = l.split
	}
	if err != nil && !again {
		p.noteLocked(err.Error())
	}
	slow := v.tell(linkLost{
		node: p.node, with: &l.meeting, again: again, busy: isBye && bye.Code == CodeBusy,
		final:   errors.As(err, &refuses) || errors.As(err, &refused) && (!refused.Code.passes() || p.untold && refused.Code == CodeDisconnected),
		untold:  l.untold,
		stalled: errors.Is(err, errStalled) || errors.Is(err, os.ErrDeadlineExceeded), now: time.Now(),
	})
	v.broadcast()
	v.mu.Unlock()
	if len(slow) > 0 {
		l.cutOff()
	}
	return again
}

// cutOff records that whether others went on is unknown from here (10a).
func (l *link) cutOff() {
	v := l.v
	_ = v.commitSuper(func(sb *Superblock) { // fault has told everybody of an error
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.isCutOff(l.peer.peerState) && sb.Disk == UpToDate {
			sb.Disk = Consistent
		}
	})
}

// passes reports whether what was refused may be granted later without anybody
// asking for it again on this side.
func (c Code) passes() bool {
	switch c {
	case CodeSplitBrain, CodeUnrelated, CodeRole, CodeOldEpoch, CodeProtocol:
		return false
	}
	return true
}

// end sends a last message, if any, and closes the connection. It may be called
// from any goroutine, more than once.
func (l *link) end(last Message) {
	if last != nil {
		l.wmu.Lock()
		if l.ended == nil {
			_ = l.conn.SetWriteDeadline(time.Now().Add(l.v.opts.PeerTimeout / 4))
			_, _ = l.conn.Write(AppendFrame(nil, last))
			l.ended = net.ErrClosed
		}
		l.wmu.Unlock()
	}
	l.stop()
	_ = l.conn.Close()
}

// write sends messages in one go.
func (l *link) write(msgs ...Message) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.wbuf = l.wbuf[:0]
	for _, m := range msgs {
		l.wbuf = AppendFrame(l.wbuf, m)
	}
	return l.writeLocked(l.wbuf)
}

func (l *link) writeLocked(b []byte) error {
	if l.ended != nil {
		return l.ended
	}
	_ = l.conn.SetWriteDeadline(time.Now().Add(l.v.opts.PeerTimeout))
	if _, err := l.conn.Write(b); err != nil {
		return fmt.Errorf("send to %q: %w", l.peer.node, err)
	}
	return nil
}

// next reads the next frame. A peer that is silent for longer than it may be is
// lost. Bye and Refuse come back as errors.
func (l *link) next() (FrameType, []byte, error) {
	if !l.in.Buffered() {
		_ = l.conn.SetReadDeadline(time.Now().Add(l.v.opts.PeerTimeout))
	}
	t, body, err := l.in.Next()
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return 0, nil, fmt.Errorf("%w: node %q was silent for %v", errStalled, l.peer.node, l.v.opts.PeerTimeout)
		}
		return 0, nil, fmt.Errorf("connection to %q: %w", l.peer.node, err)
	}
	switch {
	case t.since() > l.version:
		return 0, nil, fmt.Errorf("%w: %v in a session of protocol version %d", ErrFrame, t, l.version)
	case t == FrameBye:
		var m Bye
		if err := m.Decode(body); err != nil {
			return 0, nil, err
		}
		return 0, nil, &m
	case t == FrameRefuse:
		var m Refuse
		if err := m.Decode(body); err != nil {
			return 0, nil, err
		}
		return 0, nil, &m
	}
	return t, body, nil
}

// Error makes a farewell the error that ends a link.
func (m *Bye) Error() string { return fmt.Sprintf("the peer closed (%v): %s", m.Code, m.Sentence) }

func (l *link) unexpected(t FrameType) error {
	return fmt.Errorf("%w: %v came out of turn", ErrFrame, t)
}

// together runs the functions side by side until the first returns; that ends
// the link, and with it the others. It returns the first one's error.
func (l *link) together(fs ...func() error) error {
	errs := make(chan error, len(fs))
	for _, f := range fs {
		go func() { errs <- f() }()
	}
	first := <-errs
	l.end(l.farewell(first))
	for range len(fs) - 1 {
		<-errs
	}
	return first
}
