package wire

import (
	"encoding/binary"
	"hash/crc32"
)

// HeaderSize is the length of a basic header segment (11.2.1).
const HeaderSize = 48

// MaxAHS is the longest additional header segment, bytes.
const MaxAHS = 255 * 4

// Reserved is the tag that names nothing.
const Reserved = 0xffffffff

// Opcodes (11.2.1.2).
const (
	OpNopOut    = 0x00
	OpCommand   = 0x01
	OpTaskMgmt  = 0x02
	OpLogin     = 0x03
	OpText      = 0x04
	OpDataOut   = 0x05
	OpLogout    = 0x06
	OpSNACK     = 0x10
	OpNopIn     = 0x20
	OpResponse  = 0x21
	OpTaskMgmtR = 0x22
	OpLoginR    = 0x23
	OpTextR     = 0x24
	OpDataIn    = 0x25
	OpLogoutR   = 0x26
	OpR2T       = 0x31
	OpAsync     = 0x32
	OpReject    = 0x3f
)

// Offsets of fields, of 4 bytes if nothing else is said.
const (
	LUN       = 8 // 8 bytes
	ITT       = 16
	TTT       = 20
	EDTL      = 20 // of a command
	RefTag    = 20 // of a task management request
	CmdSN     = 24
	StatSN    = 24 // of what a target sends
	ExpStatSN = 28
	ExpCmdSN  = 28
	MaxCmdSN  = 32
	RefCmdSN  = 32
	CDB       = 32 // 16 bytes
	DataSN    = 36 // R2TSN and ExpDataSN as well
	Offset    = 40
	Residual  = 44
	Desired   = 44 // of an R2T
)

// Bits of byte 1.
const (
	Final     = 0x80
	Continue  = 0x40 // of text and login
	Read      = 0x40 // of a command
	Write     = 0x20
	Overflow  = 0x04 // of Data-In and responses
	Underflow = 0x02
	HasStatus = 0x01 // of Data-In
	Transit   = 0x80 // of login
)

// A Header is a basic header segment.
type Header [HeaderSize]byte

// Opcode is without the immediate bit.
func (h *Header) Opcode() byte     { return h[0] & 0x3f }
func (h *Header) SetOpcode(o byte) { h[0] = o }
func (h *Header) Immediate() bool  { return h[0]&0x40 != 0 }
func (h *Header) Flags() byte      { return h[1] }

// AHSLen is the length of the additional header segments, bytes.
func (h *Header) AHSLen() int { return int(h[4]) * 4 }

// DataLen is the length of the data segment without its padding, bytes.
func (h *Header) DataLen() int { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }

func (h *Header) SetDataLen(n int) { h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n) }

func (h *Header) Get32(at int) uint32    { return binary.BigEndian.Uint32(h[at:]) }
func (h *Header) Put32(at int, v uint32) { binary.BigEndian.PutUint32(h[at:], v) }
func (h *Header) Get64(at int) uint64    { return binary.BigEndian.Uint64(h[at:]) }
func (h *Header) Put64(at int, v uint64) { binary.BigEndian.PutUint64(h[at:], v) }

// Pad is how many bytes follow n bytes of data up to a multiple of four.
func Pad(n int) int { return -n & 3 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// DigestSize is the length of a digest.
const DigestSize = 4

// Digest goes on with a CRC32C (13.1); it begins with 0.
func Digest(crc uint32, p []byte) uint32 { return crc32.Update(crc, castagnoli, p) }

// PutDigest appends a digest as it is sent: the least significant byte first.
func PutDigest(b []byte, crc uint32) []byte { return binary.LittleEndian.AppendUint32(b, crc) }

// GetDigest reads one.
func GetDigest(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// Less compares serial numbers (RFC 1982).
func Less(a, b uint32) bool { return int32(a-b) < 0 }

// Reasons of a Reject (11.17.1).
const (
	RejectDigest       = 0x02
	RejectSNACK        = 0x03
	RejectProtocol     = 0x04
	RejectNotSupported = 0x05
	RejectImmediate    = 0x06
	RejectInProgress   = 0x07
	RejectField        = 0x09
	RejectNegotiation  = 0x0b
)

// Task management functions (11.5.1).
const (
	AbortTask = 1 + iota
	AbortTaskSet
	ClearACA
	ClearTaskSet
	LUNReset
	WarmReset
	ColdReset
	TaskReassign
)

// Answers to them (11.6.1).
const (
	FunctionComplete     = 0
	NoSuchTask           = 1
	NoSuchLUN            = 2
	NoReassign           = 4
	FunctionNotSupported = 5
	FunctionRejected     = 255
)

// Login stages (11.12.3).
const (
	Security    = 0
	Operational = 1
	FullFeature = 3
)

// Login status, class and detail (11.13.5).
const (
	LoginOK          = 0x0000
	InitiatorError   = 0x0200
	AuthFailure      = 0x0201
	Forbidden        = 0x0202
	NotFound         = 0x0203
	BadVersion       = 0x0205
	TooManyConns     = 0x0206
	MissingParameter = 0x0207
	BadSessionType   = 0x0209
	NoSession        = 0x020a
	InvalidInLogin   = 0x020b
	TargetError      = 0x0300
	Unavailable      = 0x0301
	OutOfResources   = 0x0302
)
