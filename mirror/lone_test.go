package mirror

import "testing"

// sent is the newest record that the node sent to its peer. It looks as soon as it is
// asked, and waits for nobody.
func (n *rigNode) sent(peer string) (sent, end LSN) {
	n.vol.mu.Lock()
	defer n.vol.mu.Unlock()
	return n.vol.peers[peer].link.source.next - 1, n.vol.end
}

// senderRests waits until the sender to peer has nothing to say.
func (n *rigNode) senderRests(peer string) *link {
	n.rig.t.Helper()
	var l *link
	n.rig.eventually("the sender rests", func() bool {
		n.vol.mu.Lock()
		defer n.vol.mu.Unlock()
		l = n.vol.peers[peer].link
		if l == nil || len(l.kick) > 0 || l.source.told < n.vol.stable || n.vol.stable < n.vol.end || !l.sending.TryLock() {
			return false
		}
		l.sending.Unlock()
		return true
	})
	return l
}

// TestLoneWriteIsSentByItsSubmitter: what is ordered for a peer that has everything
// else is on its way when Submit returns, and a sender that is at work is not passed.
func TestLoneWriteIsSentByItsSubmitter(t *testing.T) {
	r := newRig(t, nil, "a", "b")
	a, _, c := r.pair()
	const writes = 20
	inTime := 0
	for i := range writes {
		c.write(int64(i)*rigBlock, fill(byte(i), rigBlock))
		c.flush()
		a.senderRests("b")
		w := c.submit(writeReq(0, fill(byte(i), rigBlock)))
		if sent, end := a.sent("b"); sent == end {
			inTime++
		}
		c.must(w)
		c.flush()
	}
	if inTime < writes/2 { // now and then the sender is on its way all the same, with a heartbeat
		t.Errorf("of %d lone writes %d were sent when Submit returned", writes, inTime)
	}

	l := a.senderRests("b")
	l.sending.Lock() // as the sender does while it sends
	w := c.submit(writeReq(0, fill(1, rigBlock)))
	sent, end := a.sent("b")
	l.sending.Unlock()
	if sent == end {
		t.Error("it was sent beside the sender")
	}
	c.must(w) // the sender was told
	r.inSync("a", "b")
}
