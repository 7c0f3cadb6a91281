package mirror

import "fmt"

// Hello is what each side says of itself first.
//
//	2 protocol version spoken from here on (the acceptor's choice, which the
//	dialler repeats)
//	8 session id, 8 first LSN in the journal, 24 base of the bitmap kept for the
//	peer, then the description: name of the node, 16 volume id, name of the
//	volume, 8 size, 1 protocol, 1 write cache, 1 role, 1 disk state, 8 epoch,
//	8 set version, set, 1 excluded, 8 incarnation, 8 end, 8 durable, 8 stable,
//	resync mark (as in the superblock), history
type Hello struct {
	Version      uint16
	Session      uint64 // of the sender; acks of another are not counted
	JournalFirst LSN    // the oldest record that the journal holds
	// Base is what the sender's out-of-sync bitmap for the receiver is relative
	// to (replication.md 7).
	Base        Position
	Description Description
}

const (
	maxSet      = 1 + MaxMembers*(1+maxName+8)
	maxMark     = 1 + 24 + 1 + maxName
	maxHello    = 2 + 8 + 8 + 24 + 1 + maxName + 16 + 1 + maxName + 8 + 4 + 16 + maxSet + 1 + 8 + 24 + maxMark + maxHistorySize
	maxProceed  = 1 + 16 + 8 + 8 + 8 + 4 + maxHistorySize
	maxSentence = 1024
	maxNotice   = 1 + 2 + maxSentence
)

func (*Hello) FrameType() FrameType { return FrameHello }

func (m *Hello) Encode(dst []byte) []byte {
	d := &m.Description
	dst = le.AppendUint16(dst, m.Version)
	dst = le.AppendUint64(dst, m.Session)
	dst = le.AppendUint64(dst, uint64(m.JournalFirst))
	dst = appendPosition(dst, m.Base)
	dst = appendString(dst, d.Node)
	dst = append(dst, d.Volume[:]...)
	dst = appendString(dst, d.Name)
	dst = le.AppendUint64(dst, uint64(d.Size))
	dst = append(dst, byte(d.Protocol))
	dst = appendBool(dst, d.WriteCache)
	dst = append(dst, byte(d.Role), byte(d.Disk))
	dst = le.AppendUint64(dst, d.Epoch)
	dst = le.AppendUint64(dst, d.SetVersion)
	dst = appendMembers(dst, d.Set)
	dst = appendBool(dst, d.Excluded)
	dst = le.AppendUint64(dst, d.Incarnation)
	dst = le.AppendUint64(dst, uint64(d.End))
	dst = le.AppendUint64(dst, uint64(d.Durable))
	dst = le.AppendUint64(dst, uint64(d.Stable))
	dst = appendResyncMark(dst, d.Resync)
	return appendHistory(dst, d.History)
}

func (m *Hello) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = Hello{Version: r.u16(), Session: r.u64(), JournalFirst: r.lsn(), Base: r.position()}
	m.Description = Description{
		Node:        r.string(),
		Volume:      r.id(),
		Name:        r.string(),
		Size:        r.size("the volume"),
		Protocol:    Protocol(r.enum("the protocol", len(protocolNames))),
		WriteCache:  r.bool("the write cache"),
		Role:        Role(r.enum("the role", len(roleNames))),
		Disk:        DiskState(r.enum("the disk state", len(diskNames))),
		Epoch:       r.u64(),
		SetVersion:  r.u64(),
		Set:         r.members(),
		Excluded:    r.bool("excluded"),
		Incarnation: r.u64(),
		End:         r.lsn(),
		Durable:     r.lsn(),
		Stable:      r.lsn(),
		Resync:      r.resyncMark(),
		History:     r.history(),
	}
	return r.finish(FrameHello)
}

// Mode is how a Secondary is brought up to date.
type Mode uint8

const (
	// ModeEstablished: nothing is missing, the live stream follows.
	ModeEstablished Mode = iota
	// ModeCatchUp: the missing records follow, in order, from the journal.
	ModeCatchUp
	// ModeResync: blocks follow, between live records.
	ModeResync
)

var modeNames = []string{"established", "catch-up", "resync"}

// String is the mode's name.
func (m Mode) String() string { return nameOf(modeNames, m) }

// Proceed is what the Primary decided after both Hellos. The Secondary truncates
// to Common if it has more, makes Epoch, Volume and History its own, durably,
// and answers Ready.
//
//	1 mode, 16 volume id, 8 epoch, 8 common LSN, 8 first LSN to come, 4 CRC of the
//	record before it, history
type Proceed struct {
	Mode    Mode
	Volume  ID
	Epoch   uint64
	Common  LSN    // the last record that both hold
	From    LSN    // of the first record that will be sent
	PrevCRC uint32 // of record From-1, which the first one's CRC is chained to
	History History
}

func (*Proceed) FrameType() FrameType { return FrameProceed }

func (m *Proceed) Encode(dst []byte) []byte {
	dst = append(dst, byte(m.Mode))
	dst = append(dst, m.Volume[:]...)
	dst = le.AppendUint64(dst, m.Epoch)
	dst = le.AppendUint64(dst, uint64(m.Common))
	dst = le.AppendUint64(dst, uint64(m.From))
	dst = le.AppendUint32(dst, m.PrevCRC)
	return appendHistory(dst, m.History)
}

func (m *Proceed) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = Proceed{
		Mode:    Mode(r.enum("the mode", len(modeNames))),
		Volume:  r.id(),
		Epoch:   r.u64(),
		Common:  r.lsn(),
		From:    r.lsn(),
		PrevCRC: r.u32(),
		History: r.history(),
	}
	return r.finish(FrameProceed)
}

// Ready is the Secondary's answer to Proceed, once it has truncated.
//
//	8 end, 8 durable, 4 CRC of the record at end
type Ready struct {
	End, Durable LSN
	EndCRC       uint32
}

func (*Ready) FrameType() FrameType { return FrameReady }

func (m *Ready) Encode(dst []byte) []byte {
	dst = le.AppendUint64(dst, uint64(m.End))
	dst = le.AppendUint64(dst, uint64(m.Durable))
	return le.AppendUint32(dst, m.EndCRC)
}

func (m *Ready) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = Ready{End: r.lsn(), Durable: r.lsn(), EndCRC: r.u32()}
	return r.finish(FrameReady)
}

// Code says, to a program, why a connection ends.
type Code uint8

const (
	CodeShutdown      Code = iota // the sender's daemon stops
	CodeSplitBrain                // until an operator settles it
	CodeUnrelated                 // another volume, or damaged histories
	CodeOldEpoch                  // the receiver's epoch is older than one seen
	CodeBusy                      // try again: another connection is being settled
	CodeFailed                    // the sender's disk state is Failed
	CodeDisconnected              // an operator disconnected the two
	CodeProtocol                  // the receiver sent what the protocol forbids
	CodeUnknownVolume             // no volume of that name is configured here
	CodeVersion                   // no protocol version in common
	CodeRole                      // the two roles cannot go together now
)

var codeNames = []string{
	"shutdown", "split-brain", "unrelated", "old epoch", "busy", "failed",
	"disconnected", "protocol error", "unknown volume", "no common version", "roles",
}

// String is the code's name.
func (c Code) String() string { return nameOf(codeNames, c) }

// Bye ends a connection that worked; nothing follows it. Refuse ends one that
// does not come about. Both are
//
//	1 code, 2 length of the sentence, the sentence for people: at most 1024 bytes
type Bye struct {
	Code     Code
	Sentence string // cut at 1024 bytes when encoded
}

// Refuse: see Bye.
type Refuse struct {
	Code     Code
	Sentence string // cut at 1024 bytes when encoded
}

func (*Bye) FrameType() FrameType    { return FrameBye }
func (*Refuse) FrameType() FrameType { return FrameRefuse }

func (m *Bye) Encode(dst []byte) []byte    { return appendNotice(dst, m.Code, m.Sentence) }
func (m *Refuse) Encode(dst []byte) []byte { return appendNotice(dst, m.Code, m.Sentence) }

func (m *Bye) Decode(body []byte) error {
	r := fieldReader{b: body}
	m.Code, m.Sentence = r.notice()
	return r.finish(FrameBye)
}

func (m *Refuse) Decode(body []byte) error {
	r := fieldReader{b: body}
	m.Code, m.Sentence = r.notice()
	return r.finish(FrameRefuse)
}

// Error makes a refusal an error, for whoever was refused.
func (m *Refuse) Error() string { return fmt.Sprintf("the peer refuses (%v): %s", m.Code, m.Sentence) }

func appendNotice(dst []byte, c Code, sentence string) []byte {
	return appendSentence(append(dst, byte(c)), sentence)
}

func appendSentence(dst []byte, sentence string) []byte {
	sentence = sentence[:min(len(sentence), maxSentence)]
	return append(le.AppendUint16(dst, uint16(len(sentence))), sentence...)
}

// notice accepts codes of newer programs: the sentence says enough.
func (r *fieldReader) notice() (Code, string) {
	code := Code(r.u8())
	return code, r.sentence()
}

func (r *fieldReader) sentence() string {
	n := int(r.u16())
	if n > maxSentence {
		r.fail("a sentence of %d bytes, the limit is %d", n, maxSentence)
	}
	return string(r.take(n))
}
