package mirror

import (
	"errors"
	"fmt"
)

// What becomes of a replica whose own disk fails (replication.md 12; detach.go).

// diskFailed: a Primary goes on through its peers, if it may. Else the replica is
// Failed.
func (c *core) diskFailed(e diskFailed) {
	if c.failure != nil || c.detached != nil {
		return
	}
	if !c.mayDetach(e.now) {
		c.failed(fail{fmt.Errorf("%w: %w", ErrFailed, e.err), e.readFrom,
			"replica failed; its peers carry on, and it comes back through a new replica"})
		return
	}
	c.detached, c.detaching, c.led = fmt.Errorf("%w: %w", ErrFailed, e.err), true, false
	c.do(detachNow{e.err})
	for _, p := range c.others {
		if !setHasNode(c.super.Set, p.node) && p != c.joiner {
			c.part(p, CodeFailed, noSource)
		}
	}
	c.do(wantDetach{})
}

// noSource is told to those that a diskless Primary cannot bring up to date.
const noSource = "the Primary's own disk failed: only members of the in-sync set go on with it"

// detach begins the generation of the peers: a shrink that removes this replica.
func (c *core) detach() {
	set := setWithout(c.super.Set, c.rules.node)
	c.change = change{kind: detaching, set: set, version: c.super.SetVersion + 1}
	if len(set) == 0 {
		c.fails("", errors.New("no member is left"))
		return
	}
	c.propose()
}

func (c *core) detachBegun() {
	lsn := c.change.lsn
	c.change = change{}
	c.detaching = false
	c.do(detachedNow{c.super.Set, lsn})
	c.do(advance{})
}

// failed: for good.
func (c *core) failed(f fail) {
	c.failure, c.serving = f.err, false
	for _, p := range c.others {
		c.part(p, CodeFailed, f.err.Error())
	}
	c.do(f)
}
