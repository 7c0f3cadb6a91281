package wire

// "Newstyle negotiation" and "Fixed newstyle negotiation".
const (
	Magic      uint64 = 0x4e42444d41474943 // NBDMAGIC
	OptMagic   uint64 = 0x49484156454F5054 // IHAVEOPT
	ReplyMagic uint64 = 0x3e889045565a9

	GreetingSize     = 18 // two magics and the handshake flags
	OptHeaderSize    = 16 // magic, option, length
	OptReplySize     = 20 // magic, option, reply type, length
	ExportNamePad    = 124
	ExportNameAnswer = 10 // size and transmission flags
)

// "Handshake flags" and "Client flags": the bits are the same.
const (
	FlagFixedNewstyle = 1 << 0
	FlagNoZeroes      = 1 << 1
)

// "Option types".
const (
	OptExportName      uint32 = 1
	OptAbort           uint32 = 2
	OptList            uint32 = 3
	OptStartTLS        uint32 = 5
	OptInfo            uint32 = 6
	OptGo              uint32 = 7
	OptStructuredReply uint32 = 8
)

// "Option reply types".
const (
	RepAck    uint32 = 1
	RepServer uint32 = 2
	RepInfo   uint32 = 3

	RepErr         uint32 = 1 << 31 // set in every error
	RepErrUnsup           = RepErr | 1
	RepErrPolicy          = RepErr | 2
	RepErrInvalid         = RepErr | 3
	RepErrUnknown         = RepErr | 6
	RepErrShutdown        = RepErr | 7
	RepErrTooBig          = RepErr | 9
)

// "NBD_REP_INFO".
const (
	InfoExport      uint16 = 0
	InfoName        uint16 = 1
	InfoDescription uint16 = 2
	InfoBlockSize   uint16 = 3
)

// "Transmission flags".
const (
	FlagHasFlags        uint16 = 1 << 0
	FlagReadOnly        uint16 = 1 << 1
	FlagSendFlush       uint16 = 1 << 2
	FlagSendFUA         uint16 = 1 << 3
	FlagRotational      uint16 = 1 << 4
	FlagSendTrim        uint16 = 1 << 5
	FlagSendWriteZeroes uint16 = 1 << 6
	FlagCanMultiConn    uint16 = 1 << 8
)

// "Request message" and "Simple reply message".
const (
	RequestMagic     uint32 = 0x25609513
	SimpleReplyMagic uint32 = 0x67446698

	RequestSize     = 28
	SimpleReplySize = 16
)

// "Request types".
const (
	CmdRead        uint16 = 0
	CmdWrite       uint16 = 1
	CmdDisc        uint16 = 2
	CmdFlush       uint16 = 3
	CmdTrim        uint16 = 4
	CmdWriteZeroes uint16 = 6
)

// "Command flags".
const (
	CmdFlagFUA    uint16 = 1 << 0
	CmdFlagNoHole uint16 = 1 << 1
)

// "Error values".
const (
	OK          uint32 = 0
	EPERM       uint32 = 1
	EIO         uint32 = 5
	ENOMEM      uint32 = 12
	EINVAL      uint32 = 22
	ENOSPC      uint32 = 28
	EOVERFLOW   uint32 = 75
	ENOTSUP     uint32 = 95
	ESHUTDOWN   uint32 = 108
	MaxString          = 4096     // "Conventions": the longest name
	MaxPayload         = 32 << 20 // "Size constraints": what every client may use
	MaxMinBlock        = 64 << 10
	MinPrefer          = 512
)
