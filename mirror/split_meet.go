package mirror

import (
	"fmt"
	"time"
)

// meetSplit has the two sides of a split-brain tell each other what each has
// (SplitFrame), keeps that, and settles it if it can. To measure our side a long
// journal may have to be read: the peer hears meanwhile that we live.
func (l *link) meetSplit() error {
	v, c := l.v, l.verdict.Common
	m := &metSplit{at: time.Now(), hello: l.hello, told: SplitFrame{Accuracy: RangesUnknown}, result: l.verdict}
	v.mu.Lock()
	l.split = m
	v.mu.Unlock()
	common := l.mine.Description.History.Position(c)
	mine := l.party(common)
	said := make(chan error, 1)
	go func() { said <- l.saySplit(common, &mine) }()
	heard := l.hearSplit(common, &m.told)
	if heard != nil {
		l.stop()
	}
	if err := <-said; err != nil && heard == nil {
		return err
	}
	if heard != nil {
		return heard
	}
	l.peer.saveSplit(m)
	return l.settle(m, mine)
}

// saySplit sends what this side has, and heartbeats until that is known.
func (l *link) saySplit(common Position, mine *splitParty) error {
	var side SplitSide
	var err error
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		side, l.diverged, err = l.v.measureSplit(l.peer, common.LSN)
	}()
	tick := time.NewTicker(l.v.opts.PeerTimeout / 4)
	defer tick.Stop()
	for {
		select {
		case <-measured:
			if err != nil {
				return fmt.Errorf("measure what was written since the split-brain: %w", err)
			}
			m := splitFrame(common, &side)
			m.Policies, m.Keep, m.Discard = mine.policies, mine.keep, mine.discard
			return l.write(&m)
		case <-tick.C:
			if err := l.write(l.heartbeat()); err != nil {
				<-measured
				return err
			}
		}
	}
}

// hearSplit takes in what the other side has.
func (l *link) hearSplit(common Position, m *SplitFrame) error {
	for {
		t, body, err := l.next()
		if err != nil {
			return err
		}
		switch t {
		case FrameHeartbeat:
			continue
		case FrameSplit:
		default:
			return l.unexpected(t)
		}
		var told SplitFrame
		if err := told.Decode(body); err != nil {
			return err
		}
		if told.Common != common {
			return fmt.Errorf("%w: the peer's last common record is LSN %d of %v, ours LSN %d of %v", ErrFrame,
				told.Common.LSN, told.Common.Generation, common.LSN, common.Generation)
		}
		if n := len(told.Ranges); n > 0 && told.Ranges[n-1].end() > l.v.store.Size() {
			return fmt.Errorf("%w: a range that ends at %d, and the volume has %d bytes", ErrFrame, told.Ranges[n-1].end(), l.v.store.Size())
		}
		*m = told
		return nil
	}
}
