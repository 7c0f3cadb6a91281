package journal

import (
	"io"

	"github.com/lockstep-storage/lockstep/disk"
)

// A stream reads this much at once, and so many of these pieces ahead. More in
// all than a processor's cache holds would be slower, not faster.
const (
	streamPiece = 256 << 10
	streamAhead = 3
)

// A stream is a window for whoever goes through whole files: while one piece is
// looked at, the next ones are read. Nothing else may be done to the file before
// it is stopped. It takes 1 MiB of memory, and MaxPayload once a request lies on
// the border of two pieces.
type stream struct {
	f    disk.File
	size int64 // of the file
	piece
	scratch []byte
	spare   [][]byte
	// To and from the goroutine that reads; nil if there is none.
	empty chan []byte
	full  chan piece
}

// A piece is a part of the file that was read.
type piece struct {
	off int64
	p   []byte
	err error
}

func (p *piece) end() int64 { return p.off + int64(len(p.p)) }

// begin goes on to another file.
func (s *stream) begin(f disk.File, size int64) {
	s.stop()
	s.f, s.size = f, size
}

// stop ends the reading. How much was read ahead does not depend on the time at
// which it is called.
func (s *stream) stop() {
	if s.full != nil {
		close(s.empty)
		for p := range s.full {
			s.spare = append(s.spare, p.p)
		}
		for p := range s.empty {
			s.spare = append(s.spare, p)
		}
		s.empty, s.full = nil, nil
	}
	s.drop()
}

// drop gives back the piece that is looked at.
func (s *stream) drop() {
	switch {
	case s.p == nil:
	case s.full == nil:
		s.spare = append(s.spare, s.p)
	default:
		s.empty <- s.p[:cap(s.p)]
	}
	s.piece = piece{}
}

// at returns n bytes, at most MaxPayload, at off. They are valid until the next
// call.
func (s *stream) at(off int64, n int) ([]byte, error) {
	if s.p == nil || off < s.off {
		s.start(off)
	}
	for off >= s.end() {
		if err := s.proceed(); err != nil {
			return nil, err
		}
	}
	p := s.p[off-s.off:]
	if n <= len(p) {
		return p[:n:n], nil
	}
	s.scratch = append(s.scratch[:0], p...)
	for len(s.scratch) < n {
		if err := s.proceed(); err != nil {
			return nil, err
		}
		s.scratch = append(s.scratch, s.p[:min(n-len(s.scratch), len(s.p))]...)
	}
	return s.scratch, nil
}

// start begins to read at off.
func (s *stream) start(off int64) {
	s.stop()
	s.off = off
	n := min(streamPiece, s.size)
	s.empty, s.full = make(chan []byte, streamAhead+1), make(chan piece, streamAhead+1)
	for range streamAhead + 1 {
		var p []byte
		if last := len(s.spare) - 1; last >= 0 {
			p, s.spare = s.spare[last], s.spare[:last]
		}
		if int64(cap(p)) < n {
			p = make([]byte, n)
		}
		s.empty <- p[:n]
	}
	go readPieces(s.f, off, s.size, s.empty, s.full)
}

// readPieces reads a file from off on, up to size, until there is an error or no
// empty piece will come any more.
func readPieces(f disk.File, off, size int64, empty <-chan []byte, full chan<- piece) {
	defer close(full)
	for p := range empty {
		p = p[:min(int64(len(p)), size-off)]
		if len(p) == 0 {
			return
		}
		_, err := f.ReadAt(p, off)
		full <- piece{off, p, err}
		if err != nil {
			return
		}
		off += int64(len(p))
	}
}

// proceed goes on to the next piece.
func (s *stream) proceed() error {
	off := s.end()
	s.drop()
	next, ok := <-s.full
	if !ok {
		next = piece{off: off, err: io.ErrUnexpectedEOF}
	}
	if next.err != nil {
		s.stop()
		return next.err
	}
	s.piece = next
	return nil
}
