package scsi

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// The TransportID of iSCSI (SPC-4, 7.6.4.6): protocol identifier and format,
// length, and the name, ended by a zero and by as many as make it a multiple of
// 4, at least 20.
const (
	idOfDevice = 0x05
	idOfPort   = 0x45 // the name has an ISID

	isidMark = ",i,0x"
)

func transportID(initiator string) []byte {
	b := []byte{idOfDevice, 0, 0, 0}
	if strings.Contains(initiator, isidMark) {
		b[0] = idOfPort
	}
	b = append(b, initiator...)
	b = append(b, make([]byte, 4-len(initiator)%4)...)
	for len(b) < 24 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	return b
}

// parseTransportID takes one from the start of b. That of a device, without an
// ISID, names no port that a nexus can have, and is refused.
func parseTransportID(b []byte) (initiator string, rest []byte, ok bool) {
	if len(b) < 24 || b[0] != idOfPort {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < 20 || n%4 != 0 || n > len(b)-4 {
		return "", nil, false
	}
	name, rest := b[4:4+n], b[4+n:]
	end := bytes.IndexByte(name, 0)
	if end < 0 || !utf8.Valid(name[:end]) {
		return "", nil, false
	}
	initiator = portName(string(name[:end]))
	return initiator, rest, strings.Contains(initiator, isidMark) && len(initiator) <= maxPortName
}

// portName is a name in the form in which names are compared.
func portName(s string) string { return strings.ToLower(s) }
