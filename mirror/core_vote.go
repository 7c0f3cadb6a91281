package mirror

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The vote before a promotion (replication.md 10). That a peer is connected, and level,
// is what a promotion without force relies on; and for up to peer-timeout a connection
// may be dead without anybody knowing. So the peers relied on are asked first, and each
// that says yes gives its word not to be promoted without force for as long as that
// connection lasts; what comes after it begins with a handshake. Two that ask each other
// both say no.

type vote uint8

const (
	noVote vote = iota
	voteNo
	voteYes
)

func voteOf(yes bool) vote {
	if yes {
		return voteYes
	}
	return voteNo
}

// voter is a peer that is asked, and the connection that its word holds for.
type voter struct {
	peer *peerState
	with *meeting
}

// electors are the peers whose word a promotion needs: all but those that our own
// superblock excludes, and those whose program knows of no votes.
func (c *core) electors() (list []voter) {
	for _, p := range c.others {
		if m := p.with; m != nil && m.met && m.votes && !c.excludes(p) {
			list = append(list, voter{p, m})
		}
	}
	return list
}

// shakesHands reports whether a handshake is under way.
func (c *core) shakesHands() bool {
	return slices.ContainsFunc(c.others, func(p *peerState) bool { return p.with != nil && !p.with.ready })
}

// askVotes asks them, and waits for their answers.
func (c *core) askVotes() {
	for _, v := range c.change.voters {
		c.do(askVote{v.peer.node, v.with})
	}
	c.do(await{limit: c.rules.peerTimeout})
}

// elected reports whether all have said yes. An error says that not all of them will.
func (c *core) elected() (bool, error) {
	all := true
	var against []string
	for _, v := range c.change.voters {
		switch {
		case v.peer.with != v.with:
			against = append(against, fmt.Sprintf("node %q was lost when it was asked to agree: it may be led by another by now", v.peer.node))
		case v.with.vote == voteNo:
			against = append(against, fmt.Sprintf("node %q does not agree: %s", v.peer.node, v.with.whyNot))
		}
		all = all && v.with.vote == voteYes
	}
	if len(against) > 0 {
		return false, &UnsafePromotionError{Volume: c.rules.volume, Unknown: against}
	}
	return all, nil
}

// notElected is why a promotion is given up while it waits for votes.
func (c *core) notElected(err error) error {
	var unsafe *UnsafePromotionError
	if errors.As(err, &unsafe) {
		return err
	}
	var silent []string
	for _, v := range c.change.voters {
		if v.with.vote == noVote {
			silent = append(silent, v.peer.node)
		}
	}
	slices.Sort(silent)
	return &UnsafePromotionError{Volume: c.rules.volume, Unknown: []string{fmt.Sprintf("node %s did not agree within %v", strings.Join(silent, ", "), c.rules.peerTimeout)}}
}

// release gives those that were asked their word back, by a new handshake.
func (c *core) release() {
	for _, v := range c.change.voters {
		if v.peer.with == v.with {
			c.part(v.peer, CodeBusy, "the promotion is given up")
		}
	}
}

// castVote answers a peer that is about to be promoted.
func (c *core) castVote(e prepareHeard) {
	switch {
	case c.other(e.node).with != e.with:
		c.do(castVote{false, "the connection is over"})
	case c.role == Primary:
		c.do(castVote{false, fmt.Sprintf("node %q is Primary", c.rules.node)})
	case c.change.kind == promoting:
		c.do(castVote{false, fmt.Sprintf("node %q is being promoted itself", c.rules.node)})
	default:
		e.with.promised = true
		c.do(castVote{yes: true})
	}
}

// asks reports whether the peer's vote is waited for in this session.
func (c *core) asks(m *meeting) bool {
	return c.change.kind == promoting && m.vote == noVote && slices.ContainsFunc(c.change.voters, func(v voter) bool { return v.with == m })
}
