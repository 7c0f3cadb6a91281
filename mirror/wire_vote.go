package mirror

// A promotion without force goes in two phases: Prepare asks each peer that it relies
// on, and Vote is the answer (replication.md 10).

// Prepare says that the sender is about to be promoted, and asks for the peer's word
// that it is not promoted itself for as long as this session lasts. From a Secondary to
// another, once in a session. Its body is empty.
type Prepare struct{}

func (*Prepare) FrameType() FrameType { return FramePrepare }

func (*Prepare) Encode(dst []byte) []byte { return dst }

func (*Prepare) Decode(body []byte) error {
	r := fieldReader{b: body}
	return r.finish(FramePrepare)
}

// Vote answers a Prepare.
//
//	1 yes, 2 length of the sentence, the sentence for people: at most 1024 bytes
type Vote struct {
	Yes      bool
	Sentence string // why not; cut at 1024 bytes when encoded
}

func (*Vote) FrameType() FrameType { return FrameVote }

func (m *Vote) Encode(dst []byte) []byte {
	return appendSentence(appendBool(dst, m.Yes), m.Sentence)
}

func (m *Vote) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = Vote{Yes: r.bool("yes"), Sentence: r.sentence()}
	return r.finish(FrameVote)
}
