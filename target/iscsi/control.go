package iscsi

import (
	"errors"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
	"github.com/lockstep-storage/lockstep/target/iscsi/scsi"
)

// nopOut answers a ping, or takes in the answer to ours (11.18).
func (c *conn) nopOut(h *wire.Header) error {
	if h.Get32(wire.ITT) == wire.Reserved {
		return c.skip(h)
	}
	var buf *block.Buffer
	var p []byte
	if n := h.DataLen(); n > 0 {
		buf = block.Get(min(n, c.terms.sendSegment))
		p = buf.Bytes()
	}
	sound, err := c.data(h, p)
	if err != nil || !sound {
		if buf != nil {
			buf.Unref()
		}
		if err == nil {
			c.reject(h, wire.RejectDigest)
		}
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.newReply()
	r.h.SetOpcode(wire.OpNopIn)
	r.h[1] = wire.Final
	r.h.Put64(wire.LUN, h.Get64(wire.LUN))
	r.h.Put32(wire.ITT, h.Get32(wire.ITT))
	r.h.Put32(wire.TTT, wire.Reserved)
	r.buf, r.status = buf, true
	c.pending.push(r)
	return nil
}

// Reasons of a logout, and answers to it (11.14, 11.15).
const (
	closeSession = iota
	closeConnection
	recoverConnection

	logoutDone        = 0
	noSuchConnection  = 1
	noRecoveryLogouts = 2
)

// logout ends the session, of which this is the only connection, once every
// command has ended.
func (c *conn) logout(h *wire.Header) error {
	answer := byte(logoutDone)
	switch reason := h.Flags() &^ wire.Final; {
	case reason == recoverConnection:
		answer = noRecoveryLogouts
	case reason == closeConnection && uint16(h[20])<<8|uint16(h[21]) != c.cid:
		answer = noSuchConnection
	case reason > recoverConnection:
		c.complain("a PDU is rejected", "why", "a logout for no reason that there is")
		c.reject(h, wire.RejectField)
		return nil
	}
	if answer == logoutDone {
		c.push()
		c.dropCollecting()
		c.settle()
		if c.nexus != nil { // what it holds is free before the initiator knows that it is out
			c.nexus.Close()
		}
	}
	c.mu.Lock()
	r := c.newReply()
	r.h.SetOpcode(wire.OpLogoutR)
	r.h[1], r.h[2] = wire.Final, answer
	r.h.Put32(wire.ITT, h.Get32(wire.ITT))
	r.status = true
	c.pending.push(r)
	c.mu.Unlock()
	if answer == logoutDone {
		return errLogout
	}
	return nil
}

// manage carries out a task management function (11.5): it is answered once what
// it names has ended.
func (c *conn) manage(h *wire.Header) error {
	c.push() // what came before it is in the unit's hands
	c.cork()
	function := h.Flags() &^ wire.Final
	itt := h.Get32(wire.ITT)
	answer := func(response byte) { c.answerManage(itt, response) }
	done := func(bool) { answer(wire.FunctionComplete) }
	if function <= wire.LUNReset && h.Get64(wire.LUN) != 0 {
		answer(wire.NoSuchLUN)
		return nil
	}
	switch function {
	case wire.AbortTask:
		tag := h.Get32(wire.RefTag)
		if c.drop(func(t *task) bool { return t.itt == tag && t.lun == 0 }) {
			answer(wire.FunctionComplete)
			return nil
		}
		c.nexus.Manage(scsi.AbortTask, uint64(tag), func(found bool) {
			if !found {
				answer(wire.NoSuchTask)
				return
			}
			answer(wire.FunctionComplete)
		})
	case wire.AbortTaskSet:
		c.dropCollecting()
		c.nexus.Manage(scsi.AbortTaskSet, 0, done)
	case wire.ClearTaskSet:
		c.dropCollecting()
		c.nexus.Manage(scsi.ClearTaskSet, 0, done)
	case wire.LUNReset, wire.WarmReset: // of a target with one unit
		c.dropCollecting()
		c.nexus.Manage(scsi.ResetUnit, 0, done)
	case wire.ColdReset:
		c.dropCollecting()
		c.nexus.Manage(scsi.ResetUnit, 0, func(bool) {
			answer(wire.FunctionComplete)
			go c.target.coldReset(c.srv)
		})
	case wire.TaskReassign:
		answer(wire.NoReassign)
	case wire.ClearACA:
		answer(wire.FunctionNotSupported)
	default:
		answer(wire.FunctionRejected)
	}
	return nil
}

func (c *conn) answerManage(itt uint32, response byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.newReply()
	r.h.SetOpcode(wire.OpTaskMgmtR)
	r.h[1], r.h[2] = wire.Final, response
	r.h.Put32(wire.ITT, itt)
	r.status = true
	c.pending.push(r)
	c.wakeWriter()
}

// coldReset ends all sessions of a target (11.5.1).
func (t *tgt) coldReset(s *Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range t.sessions {
		c.stop(errors.New("the target was reset"))
	}
}

// cleared: another session cleared the unit's task set, to which the commands
// belong whose data is not there yet.
func (c *conn) cleared() { c.dropCollecting() }

func (c *conn) dropCollecting() { c.drop(func(*task) bool { return true }) }

// drop ends tasks that the unit has not seen, without an answer, and reports
// whether there was one. A task whose data the reader is at ends with that PDU,
// one that got its memory with the starter's next round.
func (c *conn) drop(which func(*task) bool) (found bool) {
	c.executing.Lock() // the starter hands nothing over meanwhile
	defer c.executing.Unlock()
	var inLine []*task
	c.mu.Lock()
	c.tasks.each(func(t *task) {
		if !which(t) {
			return
		}
		switch t.state {
		case collecting:
			t.aborted = true
			c.noteSkipped(t.itt)
			c.letGo(t)
		case receiving:
			t.aborted = true
		case waiting:
			t.aborted = true
			inLine = append(inLine, t)
		default:
			return
		}
		found = true
	})
	c.mu.Unlock()
	for _, t := range inLine {
		if !c.srv.memory.leave(t) {
			continue // it is with the starter
		}
		c.mu.Lock()
		c.letGo(t)
		c.mu.Unlock()
	}
	c.wakeWriter()
	return found
}
