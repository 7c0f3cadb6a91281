package iscsi

import (
	"slices"

	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
)

// dataOut takes a PDU of a write's data (11.7). Data comes in order, within a
// burst and from burst to burst (DataPDUInOrder, DataSequenceInOrder).
func (c *conn) dataOut(h *wire.Header) error {
	itt, ttt := h.Get32(wire.ITT), h.Get32(wire.TTT)
	off, n := int(h.Get32(wire.Offset)), h.DataLen()
	c.mu.Lock()
	t := c.tasks.find(itt)
	if t == nil || t.state != collecting {
		dropped := t == nil && slices.Contains(c.skipped[:min(c.nSkipped, len(c.skipped))], itt)
		c.mu.Unlock()
		if dropped {
			return c.skip(h)
		}
		return c.turnDown(h, wire.RejectField, "data for no command that waits for any")
	}
	solicited := ttt != wire.Reserved
	var f *fault
	final := h.Flags()&wire.Final != 0
	switch {
	case solicited && (t.unsolicited || t.served == t.r2tSN || ttt != t.ttts[t.served%maxOutstanding]):
		c.mu.Unlock()
		return c.turnDown(h, wire.RejectField, "data with a transfer tag that is not the next")
	case !solicited && !t.unsolicited:
		f = unexpectedData
	case h.Get32(wire.DataSN) != t.dataSN, off != t.got:
		f = outOfOrder
	case n > t.burstEnd-t.got && solicited:
		f = incorrectData
	case n > t.burstEnd-t.got:
		f = unexpectedData
	case final && solicited && t.got+n != t.burstEnd, !final && t.got+n == t.burstEnd:
		f = incorrectData
	}
	var p []byte
	if t.buf != nil && f == nil {
		b := t.buf.Bytes()
		p = b[min(t.got, len(b)):]
	}
	// The task is the reader's own while it collects, but for an abort, which
	// needs executing; the mutex is not held while the socket is read.
	t.state = receiving
	c.mu.Unlock()

	sound, err := c.data(h, p)

	c.mu.Lock()
	defer c.mu.Unlock()
	t.state = collecting
	switch {
	case err != nil, t.aborted:
		t.aborted = true
		c.letGo(t)
		return err
	case f == nil && !sound:
		f = damagedData
	}
	if f != nil {
		c.noteSkipped(itt)
		c.complain("a command is ended", "why", f.why, "offset", off, "length", n)
		c.fail(t, f)
		if f == damagedData {
			c.mu.Unlock()
			c.reject(h, wire.RejectDigest)
			c.mu.Lock()
		}
		return nil
	}
	t.got += n
	t.dataSN++
	if !final {
		return nil
	}
	t.dataSN = 0
	if t.unsolicited {
		t.unsolicited = false
		return c.proceed(t)
	}
	t.served++
	t.burstEnd = min(t.got+c.terms.maxBurst, t.want)
	if c.advance(t) {
		c.toBatch(t)
	}
	return nil
}
