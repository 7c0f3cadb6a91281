package mirror

import "fmt"

// explain is the sentence that status, logs and refusals show.
func (c *Comparison) explain(ours, theirs *Description) string {
	us, them := ours.Node, theirs.Node
	switch c.Verdict {
	case InSync:
		return fmt.Sprintf("%s and %s both end at LSN %d", us, them, c.Common)
	case PeerBehind:
		return behind(them, us, c.Common, c.Ours, c.NeedsResync)
	case WeAreBehind:
		return behind(us, them, c.Common, c.Theirs, c.NeedsResync)
	case PeerTruncates:
		return truncates(them, us, c.Common, c.Theirs)
	case WeTruncate:
		return truncates(us, them, c.Common, c.Ours)
	case SplitBrain:
		switch c.GivesWay {
		case Ours:
			return wroteNothing(us, them, c.Common, c.Theirs)
		case Theirs:
			return wroteNothing(them, us, c.Common, c.Ours)
		}
		return fmt.Sprintf("split-brain: after LSN %d %s wrote %s and %s wrote %s",
			c.Common, us, writes(c.Ours.Writes), them, writes(c.Theirs.Writes))
	case PeerIsNew:
		return isNew(them, us)
	case WeAreNew:
		return isNew(us, them)
	case NoSource:
		return fmt.Sprintf("%s and %s: one is in the middle of a resync, and the other has no consistent image that continues it", us, them)
	}
	return c.Verdict.String()
}

func behind(who, source string, common LSN, s Suffix, resync bool) string {
	if resync {
		return fmt.Sprintf("%s was interrupted in a resync and needs to go on with it from %s", who, source)
	}
	return fmt.Sprintf("%s ends at LSN %d and lacks %d records of %s", who, common, s.Records, source)
}

func truncates(who, other string, common LSN, s Suffix) string {
	if s.Class == Real {
		return fmt.Sprintf("after LSN %d %s was Primary without %s and wrote nothing: it follows %s", common, who, other, other)
	}
	return fmt.Sprintf("%s has %d records after LSN %d, none of which was acknowledged without %s, and gives them up", who, s.Records, common, other)
}

// wroteNothing: a split-brain that demoting one side settles.
func wroteNothing(who, other string, common LSN, s Suffix) string {
	return fmt.Sprintf("split-brain: after LSN %d %s wrote %s and %s, which is Primary, wrote nothing; demote the volume on %s and connect the two: it follows %s",
		common, other, writes(s.Writes), who, who, other)
}

func isNew(who, other string) string {
	return fmt.Sprintf("%s holds no data of the volume yet and is filled from %s", who, other)
}

func writes(n uint64) string {
	if n == 1 {
		return "1 record"
	}
	return fmt.Sprintf("%d records", n)
}
