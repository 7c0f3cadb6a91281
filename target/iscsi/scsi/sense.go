package scsi

import (
	"encoding/binary"
	"errors"

	"github.com/lockstep-storage/lockstep/block"
)

// A cause is a sense key with an additional sense code and its qualifier.
type cause struct {
	key  byte
	code uint16
}

// Sense keys (SPC-4, 4.5.6).
const (
	keyNoSense        = 0x0
	keyNotReady       = 0x2
	keyMediumError    = 0x3
	keyHardwareError  = 0x4
	keyIllegalRequest = 0x5
	keyUnitAttention  = 0x6
	keyDataProtect    = 0x7
	keyMiscompare     = 0xe
)

var (
	noSense = cause{keyNoSense, 0}

	portTransitioning = cause{keyNotReady, 0x040a}
	portStandby       = cause{keyNotReady, 0x040b}
	portUnavailable   = cause{keyNotReady, 0x040c}

	readError  = cause{keyMediumError, 0x1100}
	writeError = cause{keyMediumError, 0x0c00}

	internalFailure = cause{keyHardwareError, 0x4400}

	invalidUnitField    = cause{keyIllegalRequest, 0x0e03} // in the command information unit
	listLengthError     = cause{keyIllegalRequest, 0x1a00}
	invalidOpcode       = cause{keyIllegalRequest, 0x2000}
	outOfRange          = cause{keyIllegalRequest, 0x2100}
	invalidCDBField     = cause{keyIllegalRequest, 0x2400}
	noSuchUnit          = cause{keyIllegalRequest, 0x2500}
	invalidListField    = cause{keyIllegalRequest, 0x2600}
	invalidRelease      = cause{keyIllegalRequest, 0x2604}
	savingNotSupported  = cause{keyIllegalRequest, 0x3900}
	noRegistrationSpace = cause{keyIllegalRequest, 0x5504}
	setPortGroupsFailed = cause{keyHardwareError, 0x670a}

	writeProtected         = cause{keyDataProtect, 0x2700}
	softwareWriteProtected = cause{keyDataProtect, 0x2702}
	spaceExhausted         = cause{keyDataProtect, 0x2707}

	miscompare = cause{keyMiscompare, 0x1d00}
)

// causeOf is SCSI's word for a device's error. A request that fails because its
// session was closed has no sense: its command was aborted.
func causeOf(err error, other cause) cause {
	switch {
	case errors.Is(err, block.ErrNoSpace):
		return spaceExhausted
	case errors.Is(err, block.ErrReadOnly):
		return writeProtected
	case errors.Is(err, block.ErrNotServing):
		return portStandby
	case errors.Is(err, block.ErrOutOfRange):
		return outOfRange
	}
	return other
}

// sense is the sense data of a command: what it says, and its bytes.
type sense struct {
	cause
	// information is the INFORMATION field.
	information    uint64
	hasInformation bool
	// field is the byte and bit in the CDB, or the parameter list, that a field
	// pointer names; bit 8 and above: the byte as a whole.
	field    uint16
	bit      uint8
	inCDB    bool
	hasField bool

	b [32]byte
	n uint8
}

func (s *sense) bytes() []byte { return s.b[:s.n] }

// encode lays the sense data out in fixed or descriptor format (SPC-4, 4.5.2 and
// 4.5.3).
func (s *sense) encode(descriptors bool) {
	s.b = [len(s.b)]byte{}
	if descriptors {
		s.encodeDescriptors()
		return
	}
	s.n = 18
	s.b[0] = 0x70
	s.b[2] = s.key
	s.b[7] = s.n - 8
	binary.BigEndian.PutUint16(s.b[12:], s.code)
	// What the field has no room for is left out.
	if s.hasInformation && s.information <= 0xffffffff {
		s.b[0] |= 0x80
		binary.BigEndian.PutUint32(s.b[3:], uint32(s.information))
	}
	if s.hasField {
		s.putField(s.b[15:])
	}
}

func (s *sense) encodeDescriptors() {
	s.b[0] = 0x72
	s.b[1] = s.key
	binary.BigEndian.PutUint16(s.b[2:], s.code)
	s.n = 8
	if s.hasInformation {
		d := s.b[s.n:]
		d[1], d[2] = 10, 0x80
		binary.BigEndian.PutUint64(d[4:], s.information)
		s.n += 12
	}
	if s.hasField {
		d := s.b[s.n:]
		d[0], d[1] = 2, 6
		s.putField(d[4:])
		s.n += 8
	}
	s.b[7] = s.n - 8
}

// putField is the sense-key specific data of ILLEGAL REQUEST.
func (s *sense) putField(b []byte) {
	b[0] = 0x80
	if s.inCDB {
		b[0] |= 0x40
	}
	if s.bit < 8 {
		b[0] |= 0x08 | s.bit
	}
	binary.BigEndian.PutUint16(b[1:], s.field)
}

// check ends a command with CHECK CONDITION; the sense data is laid out when it
// is finished.
func (c *Command) check(why cause) plan {
	c.Status = CheckCondition
	c.sense = sense{cause: why}
	return planEnded
}

func (c *Command) checkInformation(why cause, information uint64) plan {
	c.check(why)
	c.sense.information, c.sense.hasInformation = information, true
	return planEnded
}

// wholeByte is the bit of a field pointer that means all of the byte.
const wholeByte = 8

// badCDB refuses a field of the CDB.
func (c *Command) badCDB(field int, bit uint8) plan {
	c.check(invalidCDBField)
	c.sense.field, c.sense.bit, c.sense.inCDB, c.sense.hasField = uint16(field), bit, true, true
	return planEnded
}

// badList refuses a field of the parameter list.
func (c *Command) badList(field int, bit uint8) plan {
	c.check(invalidListField)
	c.sense.field, c.sense.bit, c.sense.hasField = uint16(field), bit, true
	return planEnded
}

// fail ends a command with a device's error. information is the lowest block
// that may be concerned: initiators take what lies before it as done.
func (c *Command) fail(err error, other cause, lba uint64) {
	if errors.Is(err, block.ErrSessionClosed) {
		c.Status = TaskAborted
		return
	}
	switch why := causeOf(err, other); why {
	case other:
		c.checkInformation(why, lba)
	default:
		c.check(why)
	}
}
