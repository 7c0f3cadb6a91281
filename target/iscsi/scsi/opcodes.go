package scsi

import "encoding/binary"

// traits say what a command may be sent in spite of, and what it does.
type traits uint16

const (
	// reads and writes say which reservations of others it conflicts with; one
	// that is neither conflicts with none that is persistent.
	reads traits = 1 << iota
	writes
	// alters: it conflicts as writes do, but the medium may be write protected.
	alters
	// duringAttention: a pending unit attention does not end it.
	duringAttention
	// duringReserve: a RESERVE(6) of another nexus does not end it.
	duringReserve
	// anyAccessState: the target port group may be in any state.
	anyAccessState

	always = duringAttention | duringReserve | anyAccessState
)

// An opcode is a command that the unit knows.
type opcode struct {
	code   byte
	action int // service action, or noAction
	name   string
	length uint8  // of the CDB
	usage  string // CDB usage data without opcode and control byte, SPC-4 6.35
	traits traits

	// transfer says what a CDB asks for; nil: nothing.
	transfer func(g *geometry, cdb *[16]byte) Transfer
	// judge looks at the CDB and the data's length, and prepares the task.
	judge func(n *Nexus, c *Command) plan
	// now carries it out with the unit's mutex held.
	now func(n *Nexus, c *Command)
	// work carries it out on a worker.
	work func(n *Nexus, c *Command)
	// offered: not every unit has it. nil: it has.
	offered func(u *Unit, g *geometry) bool
}

func (o *opcode) has(t traits) bool { return o.traits&t != 0 }

const noAction = -1

// unknownOpcode stands for what is refused whatever the unit's state.
var unknownOpcode = opcode{traits: duringReserve | anyAccessState}

// table is all that the unit knows, in order. Variables that refer to it are made
// by init.
var table []opcode

// byCode finds the entries of one code.
var byCode [256][]*opcode

func init() {
	table = opcodes()
	for i := range table {
		o := &table[i]
		byCode[o.code] = append(byCode[o.code], o)
	}
}

// lookup finds a CDB's command; known says whether at least its code is there.
func lookup(cdb *[16]byte) (op *opcode, known bool) {
	list := byCode[cdb[0]]
	for _, o := range list {
		if o.action == noAction || o.action == int(cdb[1]&0x1f) {
			return o, true
		}
	}
	return nil, len(list) > 0
}

func nothing(*Nexus, *Command) plan { return planNow }

func opcodes() []opcode {
	const no = noAction
	list := func(at, width int) func(*geometry, *[16]byte) Transfer { return parameterOut(at, width) }
	in := func(at, width int) func(*geometry, *[16]byte) Transfer { return allocation(at, width) }
	return []opcode{
		{code: 0x00, action: no, name: "TEST UNIT READY", length: 6, usage: "00000000", judge: nothing, now: func(*Nexus, *Command) {}},
		{code: 0x03, action: no, name: "REQUEST SENSE", length: 6, usage: "010000ff", traits: always, transfer: in(4, 1), judge: nothing, now: requestSense},
		{code: 0x08, action: no, name: "READ(6)", length: 6, usage: "1fffffff", traits: reads, transfer: blocksIn, judge: judgeRead},
		{code: 0x0a, action: no, name: "WRITE(6)", length: 6, usage: "1fffffff", traits: writes, transfer: blocksOut, judge: judgeWrite},
		{code: 0x12, action: no, name: "INQUIRY", length: 6, usage: "01ffffff", traits: always, transfer: in(3, 2), judge: nothing, now: inquiry},
		{code: 0x15, action: no, name: "MODE SELECT(6)", length: 6, usage: "110000ff", traits: alters | anyAccessState, transfer: list(4, 1), judge: judgeModeSelect, now: modeSelect},
		{code: 0x16, action: no, name: "RESERVE(6)", length: 6, usage: "00000000", judge: nothing, now: reserve6},
		{code: 0x17, action: no, name: "RELEASE(6)", length: 6, usage: "00000000", traits: duringReserve, judge: nothing, now: release6},
		{code: 0x1a, action: no, name: "MODE SENSE(6)", length: 6, usage: "08ffffff", traits: reads | anyAccessState, transfer: in(4, 1), judge: nothing, now: modeSense},
		{code: 0x1b, action: no, name: "START STOP UNIT", length: 6, usage: "01000ff7", judge: judgeStartStop},
		{code: 0x1e, action: no, name: "PREVENT ALLOW MEDIUM REMOVAL", length: 6, usage: "00000003", judge: nothing, now: func(*Nexus, *Command) {}},
		{code: 0x25, action: no, name: "READ CAPACITY(10)", length: 10, usage: "0000000000000000", transfer: fixedIn(8), judge: nothing, now: readCapacity10},
		{code: 0x28, action: no, name: "READ(10)", length: 10, usage: "18ffffffff1fffff", traits: reads, transfer: blocksIn, judge: judgeRead},
		{code: 0x2a, action: no, name: "WRITE(10)", length: 10, usage: "18ffffffff1fffff", traits: writes, transfer: blocksOut, judge: judgeWrite},
		{code: 0x2e, action: no, name: "WRITE AND VERIFY(10)", length: 10, usage: "16ffffffff1fffff", traits: writes, transfer: blocksOut, judge: judgeWriteVerify, work: writeVerify},
		{code: 0x2f, action: no, name: "VERIFY(10)", length: 10, usage: "16ffffffff1fffff", traits: reads, transfer: verifyOut, judge: judgeVerify, work: verify},
		{code: 0x34, action: no, name: "PRE-FETCH(10)", length: 10, usage: "02ffffffff1fffff", traits: reads, judge: judgePrefetch, work: prefetch},
		{code: 0x35, action: no, name: "SYNCHRONIZE CACHE(10)", length: 10, usage: "02ffffffff1fffff", traits: alters, judge: judgeSync},
		{code: 0x41, action: no, name: "WRITE SAME(10)", length: 10, usage: "18ffffffff1fffff", traits: writes, transfer: writeSameOut, judge: judgeWriteSame, work: writeSame},
		{code: 0x42, action: no, name: "UNMAP", length: 10, usage: "01000000001fffff", traits: writes, transfer: list(7, 2), judge: judgeUnmap, work: unmap},
		{code: 0x55, action: no, name: "MODE SELECT(10)", length: 10, usage: "110000000000ffff", traits: alters | anyAccessState, transfer: list(7, 2), judge: judgeModeSelect, now: modeSelect},
		{code: 0x5a, action: no, name: "MODE SENSE(10)", length: 10, usage: "18ffff000000ffff", traits: reads | anyAccessState, transfer: in(7, 2), judge: nothing, now: modeSense},
		{code: 0x5e, action: 0, name: "PERSISTENT RESERVE IN, READ KEYS", length: 10, usage: "000000000000ffff", traits: anyAccessState, transfer: in(7, 2), judge: nothing, now: readKeys},
		{code: 0x5e, action: 1, name: "PERSISTENT RESERVE IN, READ RESERVATION", length: 10, usage: "000000000000ffff", traits: anyAccessState, transfer: in(7, 2), judge: nothing, now: readReservation},
		{code: 0x5e, action: 2, name: "PERSISTENT RESERVE IN, REPORT CAPABILITIES", length: 10, usage: "000000000000ffff", traits: anyAccessState, transfer: in(7, 2), judge: nothing, now: reportCapabilities},
		{code: 0x5e, action: 3, name: "PERSISTENT RESERVE IN, READ FULL STATUS", length: 10, usage: "000000000000ffff", traits: anyAccessState, transfer: in(7, 2), judge: nothing, now: readFullStatus},
		{code: 0x5f, action: 0, name: "PERSISTENT RESERVE OUT, REGISTER", length: 10, usage: "00000000ffffffff", traits: anyAccessState, transfer: list(5, 4), judge: judgeReserveOut, work: reserveOut},
		{code: 0x5f, action: 1, name: "PERSISTENT RESERVE OUT, RESERVE", length: 10, usage: "00ff0000ffffffff", traits: anyAccessState, transfer: list(5, 4), judge: judgeReserveOut, work: reserveOut},
		{code: 0x5f, action: 2, name: "PERSISTENT RESERVE OUT, RELEASE", length: 10, usage: "00ff0000ffffffff", traits: anyAccessState, transfer: list(5, 4), judge: judgeReserveOut, work: reserveOut},
		{code: 0x5f, action: 3, name: "PERSISTENT RESERVE OUT, CLEAR", length: 10, usage: "00000000ffffffff", traits: anyAccessState, transfer: list(5, 4), judge: judgeReserveOut, work: reserveOut},
		{code: 0x5f, action: 4, name: "PERSISTENT RESERVE OUT, PREEMPT", length: 10, usage: "00ff0000ffffffff", traits: anyAccessState, transfer: list(5, 4), judge: judgeReserveOut, work: reserveOut},
		{code: 0x5f, action: 5, name: "PERSISTENT RESERVE OUT, PREEMPT AND ABORT", length: 10, usage: "00ff0000ffffffff", traits: anyAccessState, transfer: list(5, 4), judge: judgeReserveOut, work: reserveOut},
		{code: 0x5f, action: 6, name: "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", length: 10, usage: "00000000ffffffff", traits: anyAccessState, transfer: list(5, 4), judge: judgeReserveOut, work: reserveOut},
		{code: 0x5f, action: 7, name: "PERSISTENT RESERVE OUT, REGISTER AND MOVE", length: 10, usage: "00000000ffffffff", traits: anyAccessState, transfer: list(5, 4), judge: judgeReserveOut, work: reserveOut},
		{code: 0x88, action: no, name: "READ(16)", length: 16, usage: "18ffffffffffffffffffffffff1f", traits: reads, transfer: blocksIn, judge: judgeRead},
		{code: 0x89, action: no, name: "COMPARE AND WRITE", length: 16, usage: "18ffffffffffffffff000000ff1f", traits: writes, transfer: compareOut, judge: judgeCompareAndWrite, work: compareAndWrite},
		{code: 0x8a, action: no, name: "WRITE(16)", length: 16, usage: "18ffffffffffffffffffffffff1f", traits: writes, transfer: blocksOut, judge: judgeWrite},
		{code: 0x8b, action: no, name: "ORWRITE(16)", length: 16, usage: "18ffffffffffffffffffffffff1f", traits: writes, transfer: blocksOut, judge: judgeOrWrite, work: orWrite},
		{code: 0x8e, action: no, name: "WRITE AND VERIFY(16)", length: 16, usage: "16ffffffffffffffffffffffff1f", traits: writes, transfer: blocksOut, judge: judgeWriteVerify, work: writeVerify},
		{code: 0x8f, action: no, name: "VERIFY(16)", length: 16, usage: "16ffffffffffffffffffffffff1f", traits: reads, transfer: verifyOut, judge: judgeVerify, work: verify},
		{code: 0x90, action: no, name: "PRE-FETCH(16)", length: 16, usage: "02ffffffffffffffffffffffff1f", traits: reads, judge: judgePrefetch, work: prefetch},
		{code: 0x91, action: no, name: "SYNCHRONIZE CACHE(16)", length: 16, usage: "02ffffffffffffffffffffffff1f", traits: alters, judge: judgeSync},
		{code: 0x93, action: no, name: "WRITE SAME(16)", length: 16, usage: "19ffffffffffffffffffffffff1f", traits: writes, transfer: writeSameOut, judge: judgeWriteSame, work: writeSame},
		{code: 0x9c, action: no, name: "WRITE ATOMIC(16)", length: 16, usage: "18ffffffffffffffff0000ffff1f", traits: writes, transfer: blocksOut, judge: judgeWriteAtomic, offered: hasAtomic},
		{code: 0x9e, action: 0x10, name: "READ CAPACITY(16)", length: 16, usage: "000000000000000000ffffffff00", transfer: in(10, 4), judge: nothing, now: readCapacity16},
		{code: 0x9e, action: 0x12, name: "GET LBA STATUS", length: 16, usage: "00ffffffffffffffffffffffff00", traits: reads, transfer: in(10, 4), judge: judgeBlockStatus, work: blockStatus},
		{code: 0xa0, action: no, name: "REPORT LUNS", length: 12, usage: "00ff000000ffffffff00", traits: always, transfer: in(6, 4), judge: nothing, now: reportOwnLUN},
		{code: 0xa3, action: 0x0a, name: "REPORT TARGET PORT GROUPS", length: 12, usage: "0000000000ffffffff00", traits: anyAccessState, transfer: in(6, 4), judge: nothing, now: reportPortGroups},
		{code: 0xa3, action: 0x0c, name: "REPORT SUPPORTED OPERATION CODES", length: 12, usage: "0087ffffffffffffff00", traits: anyAccessState, transfer: in(6, 4), judge: nothing, now: reportOpcodes},
		{code: 0xa3, action: 0x0d, name: "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", length: 12, usage: "0080000000ffffffff00", traits: anyAccessState, transfer: in(6, 4), judge: nothing, now: reportFunctions},
		{code: 0xa4, action: 0x0a, name: "SET TARGET PORT GROUPS", length: 12, usage: "0000000000ffffffff00", traits: alters | anyAccessState, transfer: list(6, 4), judge: judgeSetPortGroups, work: setPortGroups, offered: canSetPortGroups},
		{code: 0xa8, action: no, name: "READ(12)", length: 12, usage: "18ffffffffffffffff1f", traits: reads, transfer: blocksIn, judge: judgeRead},
		{code: 0xaa, action: no, name: "WRITE(12)", length: 12, usage: "18ffffffffffffffff1f", traits: writes, transfer: blocksOut, judge: judgeWrite},
		{code: 0xae, action: no, name: "WRITE AND VERIFY(12)", length: 12, usage: "16ffffffffffffffff1f", traits: writes, transfer: blocksOut, judge: judgeWriteVerify, work: writeVerify},
		{code: 0xaf, action: no, name: "VERIFY(12)", length: 12, usage: "16ffffffffffffffff1f", traits: reads, transfer: verifyOut, judge: judgeVerify, work: verify},
	}
}

// extent reads where a medium access command begins and how many blocks it
// takes.
func extent(cdb *[16]byte) (lba uint64, blocks uint32) {
	switch cdb[0] {
	case 0x89: // COMPARE AND WRITE
		return binary.BigEndian.Uint64(cdb[2:]), uint32(cdb[13])
	case 0x9c: // WRITE ATOMIC(16)
		return binary.BigEndian.Uint64(cdb[2:]), uint32(binary.BigEndian.Uint16(cdb[12:]))
	}
	switch cdb[0] >> 5 {
	case 0: // 6 bytes
		lba = uint64(binary.BigEndian.Uint32(cdb[0:]) & 0x1fffff)
		if blocks = uint32(cdb[4]); blocks == 0 {
			blocks = 256
		}
		return lba, blocks
	case 1, 2: // 10 bytes
		return uint64(binary.BigEndian.Uint32(cdb[2:])), uint32(binary.BigEndian.Uint16(cdb[7:]))
	case 4: // 16 bytes
		return binary.BigEndian.Uint64(cdb[2:]), binary.BigEndian.Uint32(cdb[10:])
	}
	return uint64(binary.BigEndian.Uint32(cdb[2:])), binary.BigEndian.Uint32(cdb[6:])
}

// holds reports whether blocks lie within the device.
func (g *geometry) holds(lba uint64, blocks uint32) bool {
	return lba <= g.blocks && uint64(blocks) <= g.blocks-lba
}
