package world

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
)

// A history is what clients did, and what they may therefore read: each block is a
// register. It knows nothing of the code that it judges, only when each write was
// submitted, when it was acknowledged, and what each read returned.
//
// Time is counted in steps, one for every event. A write takes effect at one moment
// between its submission and its acknowledgement; one whose session ended without an
// answer, before the next session could begin or never. So:
//
//   - a read returns a write that no other can have replaced before the read began;
//   - what a read did not return although it was over is never returned again;
//   - after a loss that is allowed (World.loss), what no flush covered may be gone:
//     a suffix of the order, so that whatever is left has everything before it.
type history struct {
	w      *World
	step   int64
	blocks []register
	last   uint64 // version that was given away
}

const never = math.MaxInt64

type register struct {
	writes []*write // as they were submitted; the first one is the volume's beginning
}

// A write is one block of a client's request.
type write struct {
	version uint64 // 0: zeroes
	name    string
	// submit and ack are steps, ack never until there was an answer. Of acked it is the
	// same, but not taken back by a loss.
	submit, ack, acked int64
	session            *session
	flushed            bool  // a flush covers it
	replaced           int64 // when a read had shown that it is over; 0: none has
}

// A session is a client's, from its attachment to its end.
type session struct {
	attached int64 // step
	ended    int64
}

func newHistory(w *World, blocks int) *history {
	h := &history{w: w, blocks: make([]register, blocks)}
	zero := &session{}
	for i := range h.blocks {
		h.blocks[i].writes = []*write{{name: "the beginning", session: zero, flushed: true}}
	}
	return h
}

func (h *history) tick() int64 {
	h.step++
	return h.step
}

func (h *history) attach() *session { return &session{attached: h.tick(), ended: never} }

func (h *history) detach(s *session) { s.ended = min(s.ended, h.tick()) }

// submit notes a request for blocks [first, first+n), which writes one version to all
// of them, zeroes if zero.
func (h *history) submit(s *session, first, n int, zero bool) []*write {
	h.last++
	step, version := h.tick(), h.last
	name := fmt.Sprintf("#%d", h.last)
	if zero {
		version = 0
	}
	ws := make([]*write, n)
	for i := range ws {
		ws[i] = &write{version: version, name: name, submit: step, ack: never, acked: never, session: s}
		h.blocks[first+i].writes = append(h.blocks[first+i].writes, ws[i])
	}
	return ws
}

// ack notes that a request was completed; durable ones a flush covers from now on.
func (h *history) ack(ws []*write, durable bool) {
	step := h.tick()
	for _, x := range ws {
		x.ack, x.acked, x.flushed = step, step, durable
	}
}

// refuse notes that a request did not take place, and never will.
func (h *history) refuse(first int, ws []*write) {
	for i, x := range ws {
		r := &h.blocks[first+i]
		for j, y := range r.writes {
			if y == x {
				r.writes = append(r.writes[:j], r.writes[j+1:]...)
				break
			}
		}
	}
}

// flushed notes that a flush that was submitted at a step was acknowledged.
func (h *history) flush(submitted int64) {
	for i := range h.blocks {
		for _, x := range h.blocks[i].writes {
			if x.ack < submitted {
				x.flushed = true
			}
		}
	}
}

// over is when x had its effect, if any, at the latest, as those see it who come in a
// session that was attached at a step.
func (x *write) over(attached int64) int64 {
	if x.session.ended < attached {
		return min(x.ack, x.session.ended)
	}
	return x.ack
}

// legal says why a read that began at a step, in a session, may not return x; "" if it
// may.
func (r *register) legal(x *write, began, attached int64) string {
	if x.replaced != 0 && x.replaced < began { // else both reads were under way at once
		return x.name + " is over, as an earlier read has shown"
	}
	for _, y := range r.writes {
		if y != x && y.ack < began && x.over(y.session.attached) < y.submit {
			return fmt.Sprintf("%s was submitted after %s was over, and acknowledged before the read", y.name, x.name)
		}
	}
	return ""
}

// read judges what a read of a block, from its beginning in a session, returned.
func (h *history) read(who string, block int, p []byte, began int64, s *session) *write {
	r := &h.blocks[block]
	version, torn := decode(p, block)
	if torn != "" {
		h.w.violated("%s read of block %d: %s", who, block, torn)
		return nil
	}
	var legal []*write
	why := "nobody wrote that"
	for _, x := range r.writes {
		if x.version != version {
			continue
		}
		if why = r.legal(x, began, s.attached); why == "" {
			legal = append(legal, x)
		}
	}
	if len(legal) == 0 {
		h.w.violated("%s read of block %d returned version %d: %s\n%s", who, block, version, why, r.describe())
		return nil
	}
	if len(legal) > 1 {
		return nil // zeroes, of one of several writes
	}
	x := legal[0]
	step := h.tick()
	for _, y := range r.writes {
		if y != x && y.over(s.attached) < began {
			y.replaced = cmp.Or(y.replaced, step)
		}
	}
	x.ack = min(x.ack, step)
	return x
}

// lose notes that what no flush covers may be lost.
func (h *history) lose() {
	for i := range h.blocks {
		for _, x := range h.blocks[i].writes {
			x.replaced = 0
			if !x.flushed {
				x.ack = never
			}
		}
	}
}

// prefix judges an image, the writes that were found in all blocks (nil where that is
// not known): what is left after a loss has everything before it.
func (h *history) prefix(who string, image []foundWrite) {
	var newest *write
	for _, f := range image {
		if f.write != nil && (newest == nil || f.write.submit > newest.submit) {
			newest = f.write
		}
	}
	if newest == nil {
		return
	}
	for i, f := range image {
		x := f.write
		if x == nil {
			continue
		}
		for _, y := range h.blocks[i].writes {
			if y != x && y.acked < newest.submit && min(x.acked, x.over(y.session.attached)) < y.submit {
				h.w.violated("%s holds %s, and of block %d %s: but %s was acknowledged before the former was submitted\n%s",
					who, newest.name, i, x.name, y.name, h.blocks[i].describe())
				return
			}
		}
	}
}

// settle notes what an audit, in a session, found in a block: of what was submitted in
// sessions that had ended before, the rest is replaced or lost, and gone for good.
func (h *history) settle(block int, version uint64, found *write, s *session) {
	r := &h.blocks[block]
	left := r.writes[:0]
	for _, y := range r.writes {
		gone := y != found && y.session.ended < s.attached && (found != nil || y.version != version)
		if !gone {
			left = append(left, y)
		}
	}
	r.writes = left
}

func (r *register) describe() string {
	s := ""
	for _, x := range r.writes[max(0, len(r.writes)-12):] {
		s += fmt.Sprintf("      %s version %d submitted %d ack %s (first %s) session %d to %s flushed %v replaced %d\n",
			x.name, x.version, x.submit, stepName(x.ack), stepName(x.acked), x.session.attached, stepName(x.session.ended), x.flushed, x.replaced)
	}
	return s
}

func stepName(s int64) string {
	if s == never {
		return "never"
	}
	return fmt.Sprint(s)
}

const blockSize = 4096

// encode fills blocks with a version: every word of a block tells which it is.
func encode(p []byte, first int, version uint64) {
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], version<<24|uint64(first+i/blockSize))
	}
}

// decode reads a block back, and says if it is not of one write.
func decode(p []byte, block int) (version uint64, torn string) {
	word := binary.LittleEndian.Uint64(p)
	for i := 8; i < len(p); i += 8 {
		if other := binary.LittleEndian.Uint64(p[i:]); other != word {
			return 0, fmt.Sprintf("it is torn: words %x and, at byte %d, %x", word, i, other)
		}
	}
	if word == 0 {
		return 0, ""
	}
	if at := int(word & (1<<24 - 1)); at != block {
		return 0, fmt.Sprintf("it holds what belongs into block %d", at)
	}
	return word >> 24, ""
}
