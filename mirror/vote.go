package mirror

import "fmt"

// askVote asks a peer for its vote. One that cannot be asked has lost its connection,
// or is about to.
func (v *Volume) askVote(a askVote) {
	v.mu.Lock()
	l := v.peers[a.node].link
	v.mu.Unlock()
	if l != nil && &l.meeting == a.with {
		_ = l.write(&Prepare{})
	}
}

// answerPrepare gives our vote.
func (l *link) answerPrepare(body []byte) error {
	if err := new(Prepare).Decode(body); err != nil {
		return err
	}
	v := l.v
	v.mu.Lock()
	todo := v.tell(prepareHeard{l.peer.node, &l.meeting})
	v.mu.Unlock()
	for _, a := range todo {
		cast := a.(castVote)
		v.log.Info("a peer asks whether it may be promoted", "peer", l.peer.node, "yes", cast.yes, "why", cast.sentence)
		if err := l.write(&Vote{Yes: cast.yes, Sentence: cast.sentence}); err != nil {
			return err
		}
	}
	return nil
}

// hearVote takes in the peer's vote.
func (l *link) hearVote(body []byte) error {
	var m Vote
	if err := m.Decode(body); err != nil {
		return err
	}
	v := l.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.asks(&l.meeting) {
		return fmt.Errorf("%w: a vote that was not asked for", ErrFrame)
	}
	v.heed(voteHeard{&l.meeting, m.Yes, m.Sentence})
	v.broadcast()
	return nil
}
