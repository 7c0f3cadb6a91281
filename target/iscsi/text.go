package iscsi

import (
	"maps"
	"slices"
	"strings"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
)

// A textExchange is what is under way of Text requests and responses (11.10).
// One that begins anew ends it.
type textExchange struct {
	ttt     uint32 // of our last response; 0: nothing is under way
	request []byte // that goes on in the next PDU
	answer  []byte // what of it is to be sent yet
}

// textRequest takes a Text request.
func (c *conn) textRequest(h *wire.Header) error {
	n, x := h.DataLen(), &c.text
	switch ttt := h.Get32(wire.TTT); {
	case ttt == wire.Reserved:
		*x = textExchange{}
	case x.ttt == 0 || ttt != x.ttt:
		return c.turnDown(h, wire.RejectField, "text with a transfer tag of nothing that is under way")
	}
	if len(x.request)+n > wire.MaxText {
		*x = textExchange{}
		return c.turnDown(h, wire.RejectNegotiation, "too much text")
	}
	p := make([]byte, n)
	if sound, err := c.data(h, p); err != nil {
		return err
	} else if !sound {
		c.reject(h, wire.RejectDigest)
		return nil
	}
	if len(x.answer) > 0 { // the initiator asks for the rest
		if n > 0 {
			*x = textExchange{}
			c.complain("a PDU is rejected", "why", "text where the rest of an answer was to be asked for")
			c.reject(h, wire.RejectNegotiation)
			return nil
		}
		c.sayText(h)
		return nil
	}
	x.request = append(x.request, p...)
	if h.Flags()&wire.Continue != 0 {
		if h.Flags()&wire.Final != 0 {
			*x = textExchange{}
			c.complain("a PDU is rejected", "why", "text that is final and goes on")
			c.reject(h, wire.RejectField)
			return nil
		}
		c.sayText(h)
		return nil
	}
	pairs, err := wire.ParseText(x.request)
	x.request = nil
	if err != nil {
		*x = textExchange{}
		c.complain("a PDU is rejected", "why", err)
		c.reject(h, wire.RejectNegotiation)
		return nil
	}
	for _, k := range pairs {
		x.answer = appendPairs(x.answer, c.answerText(k))
	}
	c.sayText(h)
	return nil
}

// answerText answers one key of the full feature phase.
func (c *conn) answerText(k wire.Pair) []wire.Pair {
	switch k.Key {
	case "SendTargets":
		return c.sendTargets(k.Value)
	case "MaxRecvDataSegmentLength": // the one that may change in a session (13.12)
		c.mu.Lock()
		answer, told := c.terms.operational(k.Key, k.Value, c.discovery)
		c.mu.Unlock()
		if !told {
			return nil
		}
		return []wire.Pair{{Key: k.Key, Value: answer}}
	}
	if declared(k.Key) {
		return []wire.Pair{{Key: k.Key, Value: reject}}
	}
	terms := c.terms // what was agreed on at login stays
	if answer, _ := terms.operational(k.Key, k.Value, false); answer == notUnderstood {
		return []wire.Pair{{Key: k.Key, Value: notUnderstood}}
	}
	return []wire.Pair{{Key: k.Key, Value: reject}}
}

// sendTargets lists the targets that the initiator may use, with the portal at
// which it asked (4.4.3, appendix C).
func (c *conn) sendTargets(which string) (out []wire.Pair) {
	if which == "" && c.discovery || which == "All" && !c.discovery {
		return []wire.Pair{{Key: "SendTargets", Value: reject}}
	}
	s := c.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.targets)) {
		t := s.targets[name]
		switch {
		case !c.discovery && t != c.target, t.admits(c.initiator) == nil:
		case which != "" && which != "All" && !strings.EqualFold(which, name):
		default:
			out = append(out, wire.Pair{Key: "TargetName", Value: name},
				wire.Pair{Key: "TargetAddress", Value: c.nc.LocalAddr().String() + ",1"})
		}
	}
	return out
}

// sayText sends what fits of the answer.
func (c *conn) sayText(h *wire.Header) {
	x := &c.text
	c.mu.Lock()
	defer c.mu.Unlock()
	part := x.answer[:min(len(x.answer), c.terms.sendSegment)]
	x.answer = x.answer[len(part):]
	r := c.newReply()
	r.h.SetOpcode(wire.OpTextR)
	r.h.Put32(wire.ITT, h.Get32(wire.ITT))
	switch {
	case len(x.answer) > 0:
		r.h[1] = wire.Continue
	case h.Flags()&wire.Final != 0 && len(x.request) == 0:
		r.h[1] = wire.Final
	}
	if x.ttt = 0; r.h[1]&wire.Final == 0 {
		x.ttt = c.takeTTT()
	}
	r.h.Put32(wire.TTT, wire.Reserved)
	if x.ttt != 0 {
		r.h.Put32(wire.TTT, x.ttt)
	}
	if len(part) > 0 {
		r.buf = block.Get(len(part))
		copy(r.buf.Bytes(), part)
	}
	r.status = true
	c.pending.push(r)
}
