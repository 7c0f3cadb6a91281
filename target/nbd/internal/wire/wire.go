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
	OptListMetaContext uint32 = 9
	OptSetMetaContext  uint32 = 10
	OptExtendedHeaders uint32 = 11
)

// "Option reply types".
const (
	RepAck    uint32 = 1
	RepServer uint32 = 2
	RepInfo   uint32 = 3
	RepMeta   uint32 = 4 // NBD_REP_META_CONTEXT

	RepErr          uint32 = 1 << 31 // set in every error
	RepErrUnsup            = RepErr | 1
	RepErrPolicy           = RepErr | 2
	RepErrInvalid          = RepErr | 3
	RepErrTLSReqd          = RepErr | 5
	RepErrUnknown          = RepErr | 6
	RepErrShutdown         = RepErr | 7
	RepErrTooBig           = RepErr | 9
	RepErrExtHeader        = RepErr | 10 // NBD_REP_ERR_EXT_HEADER_REQD
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
	FlagSendDF          uint16 = 1 << 7
	FlagCanMultiConn    uint16 = 1 << 8
	FlagSendCache       uint16 = 1 << 10
	FlagSendFastZero    uint16 = 1 << 11
	FlagStatusPayload   uint16 = 1 << 12 // NBD_FLAG_BLOCK_STATUS_PAYLOAD
)

// "Request message", "Simple reply message", "Structured reply chunk message"
// and "Extended reply chunk message". What is extended is in proto.md of the
// branch extension-ext-header.
const (
	RequestMagic     uint32 = 0x25609513
	ExtRequestMagic  uint32 = 0x21e41c71
	SimpleReplyMagic uint32 = 0x67446698
	ChunkMagic       uint32 = 0x668e33ef
	ExtReplyMagic    uint32 = 0x6e8a278c

	RequestSize     = 28
	ExtRequestSize  = 32
	SimpleReplySize = 16
	ChunkSize       = 20
	ExtChunkSize    = 32
)

// "Structured reply flags" and "Structured reply types".
const (
	ReplyFlagDone uint16 = 1 << 0

	ReplyNone           uint16 = 0
	ReplyOffsetData     uint16 = 1
	ReplyOffsetHole     uint16 = 2
	ReplyBlockStatus    uint16 = 5
	ReplyBlockStatusExt uint16 = 6
	ReplyError          uint16 = 1<<15 | 1
	ReplyErrorOffset    uint16 = 1<<15 | 2
)

// "base:allocation metadata context".
const (
	StateHole uint32 = 1 << 0
	StateZero uint32 = 1 << 1
)

// "Request types".
const (
	CmdRead        uint16 = 0
	CmdWrite       uint16 = 1
	CmdDisc        uint16 = 2
	CmdFlush       uint16 = 3
	CmdTrim        uint16 = 4
	CmdCache       uint16 = 5
	CmdWriteZeroes uint16 = 6
	CmdBlockStatus uint16 = 7
)

// "Command flags".
const (
	CmdFlagFUA        uint16 = 1 << 0
	CmdFlagNoHole     uint16 = 1 << 1
	CmdFlagDF         uint16 = 1 << 2
	CmdFlagReqOne     uint16 = 1 << 3
	CmdFlagFastZero   uint16 = 1 << 4
	CmdFlagPayloadLen uint16 = 1 << 5
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
