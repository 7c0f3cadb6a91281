package nemesis

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
)

// heal undoes every fault, and waits until the replicas have converged. It does what
// an operator has to do, and fails where one would have to do more than doc.go says.
func (r *round) heal() error {
	c := r.c
	r.held = [3][3]bool{}
	for i := range c.relays {
		for j, relay := range c.relays[i] {
			if relay != nil {
				relay.Spoil(0)
				relay.Delay(0)
				c.hold(i, j, &r.held)
			}
		}
	}
	for i := range c.nodes {
		if c.frozen[i] {
			c.thaw(i)
		}
		if !c.dead[i] && !c.nodes[i].Running() {
			return fmt.Errorf("%s has ended by itself:\n%s", names[i], c.nodes[i].LogTail())
		}
		if c.dead[i] {
			c.start(i)
		}
	}
	if r.disconnected {
		for i := range c.nodes {
			r.operator(i, "connect", harness.Volume)
		}
	}
	r.operators.Wait()
	for deadline := time.Now().Add(harness.Patience); ; time.Sleep(50 * time.Millisecond) {
		var all [3]*daemon.Status
		for i := range all {
			var err error
			if all[i], err = c.status(i); err != nil {
				return err
			}
		}
		done, err := r.tend(all)
		if err != nil || done {
			return err
		}
		if time.Now().After(deadline) {
			b, _ := json.MarshalIndent(all, "  ", " ") // structs of plain fields
			return fmt.Errorf("the replicas have not converged within %v:\n  %s", harness.Patience, b)
		}
	}
}

// operator types a command, which may be refused.
func (r *round) operator(i int, args ...string) bool {
	err := r.c.command(i, args...)
	r.event("%s$ %s: %s", names[i], strings.Join(args, " "), orDone(err))
	return err == nil
}

// demote demotes a Primary. One whose writes are held back, for min-in-sync, waits for
// them, and may wait for ever, since who has to take them refuses a second Primary
// (integration/BUGS.md): that one's daemon is restarted, after which it is Secondary.
func (r *round) demote(i int) {
	err := r.c.commandWithin(patience, i, "demote", harness.Volume)
	r.event("%s$ demote: %s", names[i], orDone(err))
	if err == nil {
		return
	}
	if s, err := r.c.status(i); err == nil && s.Role == "Primary" && s.Suspended {
		r.event("restart %s, whose held writes keep it from being demoted", names[i])
		r.c.held++
		r.c.kill(i)
		r.c.start(i)
	}
}

// tend looks at all nodes once, and does the next thing that an operator has to.
func (r *round) tend(all [3]*daemon.Status) (done bool, err error) {
	var primaries []int
	inSync := true
	for i, s := range all {
		if s.Role == "Primary" {
			primaries = append(primaries, i)
		}
		inSync = inSync && s.Disk == "UpToDate" && len(s.Members) == len(names)
		for _, p := range s.Peers { // two Secondaries too
			inSync = inSync && p.Connection != "StandAlone"
		}
	}
	switch {
	case len(primaries) > 1 && !r.forced:
		return false, fmt.Errorf("%s and %s are both Primary, and nobody was forced", names[primaries[0]], names[primaries[1]])
	case len(primaries) == 0:
		if r.promoteSomebody() || r.kept < 0 {
			return false, nil
		}
		return false, r.reconcile(all, r.kept) // a split-brain stands before every promotion
	case len(primaries) > 1 || r.kept >= 0 && primaries[0] != r.kept:
		// Somebody whom clients were kept off.
		for _, i := range primaries {
			if i != r.kept {
				r.demote(i)
			}
		}
		return false, nil
	}
	p := primaries[0]
	if inSync && all[p].InSync() {
		return true, nil
	}
	return false, r.reconcile(all, p)
}

// promoteSomebody promotes, without force, whom the clients were on, or else anybody
// who may be, and reports whether it did.
func (r *round) promoteSomebody() bool {
	for i := range names {
		if r.kept >= 0 && r.kept != i {
			continue
		}
		if r.c.command(i, "promote", harness.Volume, "--wait", "0s") == nil {
			r.event("%s$ promote: done", names[i])
			return true
		}
	}
	return false
}

// reconcile deals with replicas that refuse each other, in favour of one.
func (r *round) reconcile(all [3]*daemon.Status, keep int) error {
	for i, s := range all {
		for _, p := range s.Peers {
			if p.Connection != "StandAlone" {
				continue
			}
			if !r.forced && !r.disconnected {
				return fmt.Errorf("%s refuses %s, and nobody forced or disconnected anything: %s", names[i], p.Node, p.Problem)
			}
			if strings.Contains(p.Problem, "split-brain") && !r.forced {
				return fmt.Errorf("%s is in a split-brain with %s, and nobody was forced: %s", names[i], p.Node, p.Problem)
			}
			if i != keep && p.Node == names[keep] && strings.Contains(p.Problem, "split-brain") {
				r.operator(i, "split", "resolve", harness.Volume, "--keep", names[keep], "--discard-losing-writes")
			}
			r.operator(i, "connect", harness.Volume, p.Node)
		}
	}
	return nil
}
