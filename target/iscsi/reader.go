package iscsi

import (
	"fmt"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
	"github.com/lockstep-storage/lockstep/target/iscsi/scsi"
)

// A protocolError ends a connection; the initiator is told by a Reject, if reason
// is not 0, with the header that was at fault.
type protocolError struct {
	reason byte
	h      wire.Header
	why    string
}

func (e *protocolError) Error() string { return "iscsi: " + e.why }

func wrong(reason byte, h *wire.Header, format string, args ...any) error {
	return &protocolError{reason, *h, fmt.Sprintf(format, args...)}
}

// receive takes PDUs until the connection ends, and says why it ended. What has
// arrived in one read is a batch.
func (c *conn) receive() error {
	for {
		if err := c.fill(); err != nil {
			return err
		}
		c.cork()
		err := c.parse()
		c.push()
		if err != nil {
			return err
		}
	}
}

func (c *conn) cork() {
	c.batchNo++
	c.mu.Lock()
	c.corked = c.batchNo
	c.mu.Unlock()
}

// fill reads whatever has arrived, at least a byte. The rest of a PDU that began
// must come in time; a new one may take for ever.
func (c *conn) fill() error {
	partial := c.w > c.r
	c.w = copy(c.in, c.in[c.r:c.w])
	c.r = 0
	n, err := c.sock.Read(c.in[c.w:], partial)
	c.w += n
	if n == 0 && err != nil {
		if stop := c.stopReason(); stop != nil {
			return errStopped
		}
		return fmt.Errorf("iscsi: read a PDU after %d bytes of it: %w", c.w, err)
	}
	c.heard.Store(true)
	return nil
}

// parse takes the PDUs out of the buffer, up to the first whose header is not
// there in whole.
func (c *conn) parse() error {
	for {
		head := wire.HeaderSize
		if c.w-c.r < head {
			return nil
		}
		var h wire.Header
		copy(h[:], c.in[c.r:])
		head += h.AHSLen()
		whole := head
		if c.terms.headerDigest {
			whole += wire.DigestSize
		}
		if c.w-c.r < whole {
			return nil
		}
		b := c.in[c.r : c.r+whole]
		if c.terms.headerDigest && wire.GetDigest(b[head:]) != wire.Digest(0, b[:head]) {
			return wrong(0, &h, "a header with a wrong digest")
		}
		c.r += whole
		if n := h.DataLen(); n > recvSegment {
			return wrong(wire.RejectProtocol, &h, "a data segment of %d bytes, at most %d are taken", n, recvSegment)
		}
		if err := c.ending(); err != nil {
			return err
		}
		if err := c.take(&h, b[wire.HeaderSize:head]); err != nil {
			return err
		}
	}
}

// ending says why no PDU is to be taken any more. It waits while too many
// replies are pending.
func (c *conn) ending() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for pushed := false; ; pushed = true {
		switch {
		case c.hungUp:
			return errHungUp
		case c.stopping != nil:
			return errStopped
		case c.control < maxControl:
			return nil
		case pushed:
			c.room.Wait()
			continue
		}
		c.mu.Unlock()
		c.push()
		c.cork()
		c.mu.Lock()
	}
}

// take begins what one PDU asks for.
func (c *conn) take(h *wire.Header, ahs []byte) error {
	switch op := h.Opcode(); op {
	case wire.OpDataOut:
		return c.dataOut(h)
	case wire.OpNopOut, wire.OpCommand, wire.OpTaskMgmt, wire.OpText, wire.OpLogout:
		now, err := c.inSequence(h)
		if err != nil {
			return err
		}
		if !now {
			return c.skip(h)
		}
		if c.discovery && (op == wire.OpCommand || op == wire.OpTaskMgmt) {
			return c.turnDown(h, wire.RejectProtocol, "a command in a discovery session")
		}
		switch op {
		case wire.OpNopOut:
			return c.nopOut(h)
		case wire.OpCommand:
			return c.command(h, ahs)
		case wire.OpTaskMgmt:
			if err := c.skip(h); err != nil {
				return err
			}
			return c.manage(h)
		case wire.OpText:
			return c.textRequest(h)
		}
		if err := c.skip(h); err != nil {
			return err
		}
		return c.logout(h)
	case wire.OpSNACK:
		return c.turnDown(h, wire.RejectSNACK, "a SNACK at error recovery level 0")
	case wire.OpLogin:
		return wrong(wire.RejectProtocol, h, "a login request in the full feature phase")
	default:
		return c.turnDown(h, wire.RejectNotSupported, fmt.Sprintf("opcode %#x", op))
	}
}

// inSequence is the command window (4.2.2.1): what lies outside is ignored. On a
// single connection commands come in order, so one that is missing was lost, and
// cannot be had again at error recovery level 0.
func (c *conn) inSequence(h *wire.Header) (bool, error) {
	if h.Immediate() {
		return true, nil
	}
	sn := h.Get32(wire.CmdSN)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case sn == c.expCmdSN && !wire.Less(c.maxCmdSN, sn):
		c.expCmdSN++
		return true, nil
	case wire.Less(sn, c.expCmdSN), wire.Less(c.maxCmdSN, sn):
		c.complain("a PDU outside the command window is ignored", "cmdsn", sn, "expcmdsn", c.expCmdSN, "maxcmdsn", c.maxCmdSN)
		return false, nil
	}
	return false, wrong(wire.RejectProtocol, h, "command %d came where %d was expected", sn, c.expCmdSN)
}

// data takes a PDU's data segment into p, and drops what is beyond. It reports
// whether the digest was right.
func (c *conn) data(h *wire.Header, p []byte) (sound bool, err error) {
	n := h.DataLen()
	pad := wire.Pad(n)
	p = p[:min(len(p), n)]
	if err := c.readFull(p); err != nil {
		return false, err
	}
	crc := uint32(0)
	if c.terms.dataDigest {
		crc = wire.Digest(0, p)
	}
	for rest := n - len(p) + pad; rest > 0; {
		b, err := c.some(rest)
		if err != nil {
			return false, err
		}
		if c.terms.dataDigest {
			crc = wire.Digest(crc, b)
		}
		rest -= len(b)
	}
	if !c.terms.dataDigest || n == 0 {
		return true, nil
	}
	var d [wire.DigestSize]byte
	for at := 0; at < len(d); {
		b, err := c.some(len(d) - at)
		if err != nil {
			return false, err
		}
		at += copy(d[at:], b)
	}
	return wire.GetDigest(d[:]) == crc, nil
}

// some is up to n bytes, at least one, valid until the next read.
func (c *conn) some(n int) ([]byte, error) {
	for c.w == c.r {
		if err := c.more(); err != nil {
			return nil, err
		}
	}
	b := c.in[c.r:min(c.w, c.r+n)]
	c.r += len(b)
	return b, nil
}

// more refills the empty buffer; others do not wait for that.
func (c *conn) more() error {
	c.push()
	c.r, c.w = 0, 0
	n, err := c.sock.Read(c.in, true)
	c.w = n
	c.cork()
	if n == 0 && err != nil {
		return fmt.Errorf("iscsi: read the rest of a PDU: %w", err)
	}
	return nil
}

// readFull fills p from the buffer and the socket, as long as there is progress.
func (c *conn) readFull(p []byte) error {
	n := copy(p, c.in[c.r:c.w])
	c.r += n
	if n == len(p) {
		return nil
	}
	c.push()
	for n < len(p) {
		k, err := c.sock.Read(p[n:], true)
		n += k
		if err != nil && n < len(p) {
			return fmt.Errorf("iscsi: read a data segment, %d bytes to go: %w", len(p)-n, err)
		}
	}
	c.heard.Store(true)
	c.cork()
	return nil
}

// skip drops a PDU's data segment.
func (c *conn) skip(h *wire.Header) error {
	_, err := c.data(h, nil)
	return err
}

// turnDown answers a PDU with a Reject, and goes on.
func (c *conn) turnDown(h *wire.Header, reason byte, why string) error {
	if err := c.skip(h); err != nil {
		return err
	}
	c.complain("a PDU is rejected", "reason", reason, "why", why)
	c.reject(h, reason)
	return nil
}

func (c *conn) reject(h *wire.Header, reason byte) {
	buf := block.Get(wire.HeaderSize)
	copy(buf.Bytes(), h[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.newReply()
	r.h.SetOpcode(wire.OpReject)
	r.h[1], r.h[2] = wire.Final, reason
	r.h.Put32(wire.ITT, wire.Reserved)
	r.buf, r.status = buf, true
	c.pending.push(r)
}

// sayWhy sends the Reject that goes with the end of the connection.
func (c *conn) sayWhy(e *protocolError) {
	if e.reason == 0 {
		return
	}
	c.reject(&e.h, e.reason)
	c.writePending(false)
}

// command takes a SCSI command.
func (c *conn) command(h *wire.Header, ahs []byte) error {
	flags := h.Flags()
	n := h.DataLen()
	edtl := h.Get32(wire.EDTL)
	switch {
	case flags&wire.Read != 0 && flags&wire.Write != 0:
		return c.rejectCommand(h, wire.RejectNotSupported, "a bidirectional command")
	case len(ahs) > 0:
		return c.rejectCommand(h, wire.RejectNotSupported, "a command with additional headers")
	case edtl > 1<<31-1:
		return c.rejectCommand(h, wire.RejectField, "a command that expects more than 2 GiB")
	case flags&wire.Final == 0 && flags&wire.Write == 0, n > 0 && flags&wire.Write == 0:
		return c.rejectCommand(h, wire.RejectField, "data with a command that writes nothing")
	}
	c.mu.Lock()
	if c.tasks.find(h.Get32(wire.ITT)) != nil {
		c.mu.Unlock()
		return c.rejectCommand(h, wire.RejectInProgress, "a task tag that is in use")
	}
	if h.Immediate() {
		if c.immediate >= maxImmediate {
			c.mu.Unlock()
			return c.rejectCommand(h, wire.RejectImmediate, "too many immediate commands")
		}
		c.immediate++
	}
	t := c.newTask()
	c.inFlight++
	c.mu.Unlock()

	t.itt, t.lun, t.flags, t.edtl, t.immediate = h.Get32(wire.ITT), h.Get64(wire.LUN), flags, int(edtl), h.Immediate()
	t.batch = c.batchNo
	t.cmd.CDB = [16]byte(h[wire.CDB:])
	t.cmd.Tag, t.cmd.Expected = uint64(t.itt), int64(edtl)
	switch flags & 7 {
	case 2:
		t.cmd.Attribute = scsi.Ordered
	case 3:
		t.cmd.Attribute = scsi.HeadOfQueue
	case 4:
		t.cmd.Attribute = scsi.ACA
	}
	t.transfer = c.describe(t)
	if t.transfer.Direction == scsi.DataOut && flags&wire.Write != 0 {
		t.want = min(t.transfer.Length, t.edtl)
	}
	t.unsolicited = flags&wire.Final == 0
	t.burstEnd = min(t.edtl, c.terms.firstBurst)

	if memory := max(t.want, t.inLength()); memory > slotBytes {
		t.charge = footprint(memory)
	}
	if n > 0 && (!c.terms.immediateData || n > t.burstEnd) || t.unsolicited && (c.terms.initialR2T || n >= t.burstEnd) {
		return c.refuseData(t, h, unexpectedData)
	}
	if t.unsolicited || n > 0 {
		// The slot's memory, until the rest is granted: nothing is read into the
		// void, and nobody waits for anybody with data under way.
		if size := min(t.want, slotBytes); size > 0 {
			t.buf = block.Get(size)
		}
		var p []byte
		if t.buf != nil {
			p = t.buf.Bytes()
		}
		sound, err := c.data(h, p)
		if err != nil || !sound {
			c.mu.Lock()
			t.aborted = true
			c.letGo(t)
			c.mu.Unlock()
			if err == nil {
				// The command is lost with its data, and with it its place in the
				// sequence (7.8).
				err = wrong(wire.RejectDigest, h, "data with a wrong digest")
			}
			return err
		}
		t.got = n
	}
	t.dataSN = 0
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tasks.add(t)
	return c.proceed(t)
}

// inLength is what a command may yield, bytes.
func (t *task) inLength() int {
	if t.transfer.Direction == scsi.DataIn {
		return t.transfer.Length
	}
	return 0
}

// proceed goes on with a task whose command, or unsolicited data, is there. The
// mutex is held.
func (c *conn) proceed(t *task) error {
	if t.unsolicited {
		t.state = collecting
		return nil
	}
	if t.charge > 0 {
		t.state = waiting
		c.mu.Unlock()
		now := c.srv.memory.acquire(t)
		c.mu.Lock()
		if !now {
			return nil
		}
	}
	if c.advance(t) {
		c.toBatch(t)
	}
	return nil
}

// toBatch has the unit get a task with the rest of the batch. The mutex is held.
func (c *conn) toBatch(t *task) {
	t.batch = c.batchNo
	c.batch = append(c.batch, &t.cmd)
}

func (c *conn) describe(t *task) scsi.Transfer {
	if t.lun != 0 {
		return scsi.DescribeNoUnit(&t.cmd.CDB)
	}
	return c.target.unit.Describe(&t.cmd.CDB)
}

// refuseData ends a command whose own PDU has too much data.
func (c *conn) refuseData(t *task, h *wire.Header, f *fault) error {
	err := c.skip(h)
	c.complain("a command is refused", "why", f.why)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteSkipped(t.itt)
	c.fail(t, f)
	return err
}

// rejectCommand is turnDown of a command; what data follows it is dropped, and
// its place in the window is free.
func (c *conn) rejectCommand(h *wire.Header, reason byte, why string) error {
	c.mu.Lock()
	if h.Flags()&wire.Final == 0 {
		c.noteSkipped(h.Get32(wire.ITT))
	}
	if !h.Immediate() {
		c.maxCmdSN++
	}
	c.mu.Unlock()
	return c.turnDown(h, reason, why)
}

// noteSkipped remembers a tag whose data may still come. The mutex is held.
func (c *conn) noteSkipped(itt uint32) {
	c.skipped[c.nSkipped%len(c.skipped)] = itt
	c.nSkipped++
}

// submit hands the batch over. It may block while the device is out of credit.
func (c *conn) submit() {
	if len(c.batch) == 0 {
		return
	}
	c.executing.Lock()
	defer c.executing.Unlock()
	run := c.batch[:0]
	for _, cmd := range c.batch {
		if t := cmd.Done.(*task); t.lun != 0 {
			if cmd.CDB[0] == 0xa0 {
				scsi.ReportLUNs(cmd, []uint64{0})
			} else {
				scsi.NoUnit(cmd)
			}
			continue
		}
		run = append(run, cmd)
	}
	if len(run) > 0 {
		c.nexus.Execute(run)
	}
	clear(c.batch)
	c.batch = c.batch[:0]
}

// push hands the batch over, uncorks and writes what is done.
func (c *conn) push() {
	c.submit()
	c.mu.Lock()
	c.corked = 0
	c.mu.Unlock()
	c.writePending(false)
}
