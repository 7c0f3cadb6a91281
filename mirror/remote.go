package mirror

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/lockstep-storage/lockstep/block"
)

// Reads of a diskless Primary, which a member answers. A Read names the LSN that
// was committed when it was asked. The member has that, and shows it: what it
// has not applied yet lies over its store as on a Primary (invariant 3, a read
// returns committed data). The Primary's own memory answers nothing: the member
// may have been promoted, and then it has closed the connection (16c).

// errPeerRead: the member could not read what it was asked for.
var errPeerRead = errors.New("read error")

// remoteReads is the Primary's side, for one link.
type remoteReads struct {
	slots chan struct{} // one for each that may be under way

	mu      sync.Mutex
	last    uint64 // id
	waiting map[uint64]remoteRead
}

// A remoteRead waits for its answer: the bytes, or nil if they could not be read.
type remoteRead struct {
	length int64
	answer chan *block.Buffer
}

// readPeers fills p from the members of the in-sync set.
func (s *session) readPeers(p []byte, off int64) error {
	for len(p) > 0 {
		n := min(len(p), MaxReadPayload)
		if err := s.readPeer(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// readPeer asks one member, and another, or the same again, if the connection
// ends first.
func (s *session) readPeer(p []byte, off int64) error {
	v := s.v
	for {
		if err := s.check(off, int64(len(p))); err != nil {
			return err
		}
		l, committed, err := v.awaitReader()
		if err != nil {
			return err
		}
		if err = l.readRemote(p, off, committed); !errors.Is(err, errLinkLost) {
			return err
		}
	}
}

// awaitReader waits until a member is connected, and returns it with the LSN
// that is committed then.
func (v *Volume) awaitReader() (l *link, committed LSN, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	err = v.await(v.ctx, func() (bool, error) {
		for _, m := range v.super.Set {
			if p := v.peers[m.Node]; p != nil && v.counted(p.peerState) && p.link.ctx.Err() == nil {
				l, committed = p.link, v.committed
				return true, nil
			}
		}
		return false, v.failure
	})
	return l, committed, err
}

// readRemote asks the peer for one piece. It fails with errLinkLost if the
// connection ends before the answer.
func (l *link) readRemote(p []byte, off int64, committed LSN) error {
	r := &l.reads
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-l.ctx.Done():
		return errLinkLost
	}
	wait := remoteRead{int64(len(p)), make(chan *block.Buffer, 1)}
	r.mu.Lock()
	r.last++
	id := r.last
	r.waiting[id] = wait
	r.mu.Unlock()
	if err := l.write(&Read{ID: id, Committed: committed, Offset: off, Length: int64(len(p))}); err != nil {
		l.stop() // half a frame may be out
	}
	var buf *block.Buffer
	select {
	case buf = <-wait.answer:
	case <-l.ctx.Done(): // an answer that comes now is left to the garbage collector
		return errLinkLost
	}
	if buf == nil {
		return fmt.Errorf("read %d bytes at %d from node %q: %w", len(p), off, l.peer.node, errPeerRead)
	}
	copy(p, buf.Bytes())
	buf.Unref()
	return nil
}

// readReply hands an answer to whoever asked. It waits for nobody.
func (l *link) readReply(body []byte) error {
	var m ReadReply
	if err := m.Decode(body); err != nil {
		return err
	}
	buf, err := l.in.ReadReplied(&m)
	if err != nil {
		return err
	}
	r := &l.reads
	r.mu.Lock()
	defer r.mu.Unlock()
	wait, ok := r.waiting[m.ID]
	if !ok || buf != nil && m.Length != wait.length {
		if buf != nil {
			buf.Unref()
		}
		return fmt.Errorf("%w: an answer of %d bytes to read %d, which nobody waits for", ErrFrame, m.Length, m.ID)
	}
	delete(r.waiting, m.ID)
	wait.answer <- buf
	return nil
}

// A readServer is the member's side, for one link: each Read is answered by a
// goroutine of its own, so that the receiver waits for no disk.
type readServer struct {
	slots chan struct{} // one for each that is not answered yet
	wg    sync.WaitGroup
	out   sync.Mutex // one answer at a time
}

// serveRead takes in a Read.
func (l *link) serveRead(body []byte) error {
	s := &l.server
	var m Read
	if err := m.Decode(body); err != nil {
		return err
	}
	if m.Offset > l.v.store.Size()-m.Length {
		return fmt.Errorf("%w: read of %d bytes at %d, past the volume's end", ErrFrame, m.Length, m.Offset)
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return fmt.Errorf("%w: more than %d reads at once", ErrFrame, cap(s.slots))
	}
	s.wg.Go(func() { l.answerRead(&m) })
	return nil
}

// answerRead sends what was read, or that it failed.
func (l *link) answerRead(m *Read) {
	v, s := l.v, &l.server
	buf := block.Get(int(m.Length))
	defer buf.Unref()
	payload := buf.Bytes()
	err := v.show(l, m.Committed)
	if err == nil {
		reader := session{v: v}
		err = reader.ReadAt(payload, m.Offset)
	}
	if err != nil {
		v.log.Error("a read for the Primary failed", "peer", l.peer.node, "offset", m.Offset, "bytes", m.Length, "error", err)
		payload = nil
	}
	s.out.Lock()
	defer s.out.Unlock()
	<-s.slots // before the answer makes room for another
	head := AppendReadReplyHeader(nil, &ReadReply{ID: m.ID}, payload)
	if l.writeBuffers(net.Buffers{head, payload}) != nil {
		l.stop()
	}
}

// show makes the records up to c, which are committed, visible to reads on a
// Secondary. What the applier has brought into the store meanwhile is read from
// there; what it is at is entered, and taken out again by it.
func (v *Volume) show(l *link, c LSN) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.failure != nil:
		return v.failure
	case l.peer.link != l || v.role == Primary:
		return errLinkLost
	case c > v.end || v.super.Disk == Inconsistent:
		return fmt.Errorf("this replica is %v and ends at LSN %d, and was asked for LSN %d", v.super.Disk, v.end, c)
	}
	if from := max(v.committed, v.applied) + 1; c >= from {
		v.pending.enter(v.queue, from, c)
		v.committed = c
	}
	return nil
}
