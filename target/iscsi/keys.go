package iscsi

import (
	"strconv"
	"strings"

	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
)

// terms are what a session negotiated (13).
type terms struct {
	headerDigest, dataDigest bool
	initialR2T               bool
	immediateData            bool
	firstBurst, maxBurst     int
	outstandingR2T           int
	// sendSegment is the longest data segment that the initiator takes.
	sendSegment int
}

// defaultTerms hold until something else is agreed on.
func defaultTerms() terms {
	return terms{
		initialR2T: true, immediateData: true,
		firstBurst: 64 << 10, maxBurst: 256 << 10, outstandingR2T: 1, sendSegment: 8 << 10,
	}
}

// Answers that are no values (6.2).
const (
	notUnderstood = "NotUnderstood"
	irrelevant    = "Irrelevant"
	reject        = "Reject"
)

// operational answers a key of the operational stage; ok is false if it has no
// answer, being declared.
func (t *terms) operational(key, value string, discovery bool) (answer string, ok bool) {
	number := func(field *int, least, most int, combine func(a, b int) int, ours int) (string, bool) {
		if discovery {
			return irrelevant, true
		}
		v, err := parseNumber(value)
		if err != nil || v < uint64(least) || v > uint64(most) {
			return reject, true
		}
		n := combine(int(v), ours)
		if field != nil {
			*field = n
		}
		return strconv.Itoa(n), true
	}
	boolean := func(field *bool, combine func(theirs bool) bool) (string, bool) {
		if discovery {
			return irrelevant, true
		}
		if value != "Yes" && value != "No" {
			return reject, true
		}
		b := combine(value == "Yes")
		if field != nil {
			*field = b
		}
		if b {
			return "Yes", true
		}
		return "No", true
	}
	least := func(a, b int) int { return min(a, b) }
	most := func(a, b int) int { return max(a, b) }
	always := func(bool) bool { return true }
	theirs := func(b bool) bool { return b }

	switch key {
	case "HeaderDigest":
		return digest(&t.headerDigest, value), true
	case "DataDigest":
		return digest(&t.dataDigest, value), true
	case "MaxConnections":
		return number(nil, 1, 65535, least, 1)
	case "InitialR2T":
		return boolean(&t.initialR2T, theirs) // OR, and here it need not be
	case "ImmediateData":
		return boolean(&t.immediateData, theirs) // AND, and here it may be
	case "MaxRecvDataSegmentLength":
		v, err := parseNumber(value)
		if err != nil || v < 512 || v > 1<<24-1 {
			return reject, true
		}
		t.sendSegment = min(int(v), sendSegment)
		return "", false
	case "MaxBurstLength":
		return number(&t.maxBurst, 512, 1<<24-1, least, maxBurst)
	case "FirstBurstLength":
		return number(&t.firstBurst, 512, 1<<24-1, least, maxFirstBurst)
	case "DefaultTime2Wait":
		return number(nil, 0, 3600, most, 2)
	case "DefaultTime2Retain":
		return number(nil, 0, 3600, least, 0)
	case "MaxOutstandingR2T":
		return number(&t.outstandingR2T, 1, 65535, least, maxOutstanding)
	case "DataPDUInOrder", "DataSequenceInOrder":
		return boolean(nil, always)
	case "ErrorRecoveryLevel":
		v, err := parseNumber(value)
		if err != nil || v > 2 {
			return reject, true
		}
		return "0", true
	case "IFMarker", "OFMarker": // obsolete (13.25)
		return "No", true
	case "IFMarkInt", "OFMarkInt":
		return irrelevant, true
	case "TaskReporting":
		if discovery {
			return irrelevant, true
		}
		return choose(value, "RFC3720"), true
	case "iSCSIProtocolLevel":
		v, err := parseNumber(value)
		if err != nil || v > 31 {
			return reject, true
		}
		return strconv.Itoa(int(min(v, 1))), true
	}
	return notUnderstood, true
}

// settle sees to what must hold among values.
func (t *terms) settle() { t.firstBurst = min(t.firstBurst, t.maxBurst) }

func digest(on *bool, value string) string {
	a := choose(value, "CRC32C", "None")
	*on = a == "CRC32C"
	return a
}

// choose takes the first of a list that is supported (6.2.1).
func choose(list string, supported ...string) string {
	for v := range strings.SplitSeq(list, ",") {
		for _, s := range supported {
			if v == s {
				return s
			}
		}
	}
	return reject
}

// parseNumber reads a numerical value, decimal or hexadecimal (6.1).
func parseNumber(s string) (uint64, error) {
	if h, ok := strings.CutPrefix(s, "0x"); ok {
		return strconv.ParseUint(h, 16, 64)
	}
	if h, ok := strings.CutPrefix(s, "0X"); ok {
		return strconv.ParseUint(h, 16, 64)
	}
	return strconv.ParseUint(s, 10, 64)
}

// declared are keys that an initiator tells, in the leading request of a login,
// and that have no answer.
func declared(key string) bool {
	switch key {
	case "InitiatorName", "InitiatorAlias", "TargetName", "SessionType":
		return true
	}
	return false
}

func appendPairs(b []byte, pairs []wire.Pair) []byte {
	for _, p := range pairs {
		b = wire.AppendText(b, p.Key, p.Value)
	}
	return b
}
