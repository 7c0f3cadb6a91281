package memory

import (
	"sync/atomic"

	"github.com/lockstep-storage/lockstep/block"
)

// session implements block.Session.
type session struct {
	d      *Device
	closed atomic.Bool
}

func (s *session) ReadAt(p []byte, off int64) error {
	s.d.gate.waitOpen()
	return s.read(p, off)
}

func (s *session) TryReadAt(p []byte, off int64) (bool, error) {
	if s.d.opt.ColdReads || s.d.gate.shut() {
		return false, nil
	}
	return true, s.read(p, off)
}

func (s *session) read(p []byte, off int64) error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.d.inRange(off, int64(len(p))); err != nil {
		return err
	}
	if s.d.opt.Fault != nil {
		a := Access{Read: true, Request: block.Request{Off: off, Len: int64(len(p))}}
		if err := s.d.opt.Fault(a); err != nil {
			return err
		}
	}
	s.d.data.RLock()
	defer s.d.data.RUnlock()
	copy(p, s.d.bytes[off:])
	return nil
}

func (s *session) usable() error {
	if s.closed.Load() {
		return block.ErrSessionClosed
	}
	return s.d.notServing()
}

func (s *session) Submit(batch []*block.Request) {
	for _, r := range batch {
		r.State.Aux = s
		if !s.d.gate.keep(r) {
			s.d.finish(r)
		}
	}
}

// finish lets a request take effect and completes it.
func (d *Device) finish(r *block.Request) {
	s := r.State.Aux.(*session)
	err := d.apply(s, r)
	if r.Buf != nil {
		r.Buf.Unref()
		r.Buf = nil
	}
	r.State = block.RequestState{}
	r.Done.Complete(r, err)
}

// Close implements block.Session. Requests of this session that are held back
// complete with block.ErrSessionClosed: they were not ordered.
func (s *session) Close() {
	s.d.data.Lock()
	s.closed.Store(true)
	s.d.data.Unlock()
	s.d.mu.Lock()
	delete(s.d.sessions, s)
	s.d.mu.Unlock()
	s.d.gate.drop(s)
}
