package nemesis

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

// A fault is one thing that the nemesis does. It may leave its damage for the next
// faults to meet; the heal mends all of it.
type fault struct {
	name   string
	weight int
	run    func(r *round)
}

var faults = []fault{
	{"kill", 16, (*round).killOne},
	{"kill all", 4, (*round).killAll},
	{"stop", 10, (*round).stopOne},
	{"one-way cut", 10, (*round).cutOneWay},
	{"two-way cut", 8, (*round).cutTwoWay},
	{"isolation", 8, (*round).isolate},
	{"closed connections", 6, (*round).closeConnections},
	{"slow link", 10, (*round).slowLink},
	{"flipped bits", 4, (*round).flipBits},
	{"promote", 8, (*round).promoteOne},
	{"demote", 6, (*round).demoteOne},
	{"disconnect", 6, (*round).disconnectOne},
	{"connect", 4, (*round).connectOne},
	{"switch-over", 6, (*round).switchOver},
	{"force", 12, (*round).forceOne},
	{"failover", 24, (*round).failOver},
	{"force of one left behind", 8, (*round).forceLeftBehind},
}

// draw is a fault by its weight.
func draw(rng *rand.Rand) fault {
	sum := 0
	for _, f := range faults {
		sum += f.weight
	}
	k := rng.IntN(sum)
	for _, f := range faults {
		if k -= f.weight; k < 0 {
			return f
		}
	}
	panic("unreachable: the weights are summed above")
}

func (r *round) chance(oneIn int) bool { return r.rng.IntN(oneIn) == 0 }

// pause lets things happen for a time between two bounds.
func (r *round) pause(least, most time.Duration) {
	time.Sleep(least + time.Duration(r.rng.Int64N(int64(most-least))))
}

// victim is a node, the Primary half of the time.
func (r *round) victim() int {
	whoever, primary := r.rng.IntN(3), r.chance(2)
	if p := r.c.primary(); primary && p >= 0 {
		return p
	}
	return whoever
}

// two are two different nodes.
func (r *round) two() (int, int) {
	order := r.rng.Perm(3)
	return order[0], order[1]
}

func (r *round) killOne() {
	i, back := r.victim(), r.chance(2)
	if !r.c.dead[i] {
		r.event("kill -9 %s", names[i])
		r.c.kill(i)
	}
	r.pause(0, 2*peerTimeout)
	if back && r.c.dead[i] {
		r.event("start %s", names[i])
		r.c.start(i)
	}
}

func (r *round) killAll() {
	for _, i := range r.rng.Perm(3) {
		if !r.c.dead[i] {
			r.event("kill -9 %s", names[i])
			r.c.kill(i)
		}
		r.pause(0, 100*time.Millisecond)
	}
	for _, i := range r.rng.Perm(3)[:r.rng.IntN(4)] {
		r.event("start %s", names[i])
		r.c.start(i)
		r.pause(0, 300*time.Millisecond)
	}
}

func (r *round) stopOne() {
	i, leave := r.victim(), r.chance(4)
	if !r.c.answers(i) {
		return
	}
	r.event("SIGSTOP %s", names[i])
	r.c.freeze(i)
	r.pause(peerTimeout*5/4, peerTimeout*5/2)
	if !leave {
		r.event("SIGCONT %s", names[i])
		r.c.thaw(i)
	}
}

// cut holds, or lets go on, what some nodes send to others, pairs by pairs; half of
// the time it is mended at once.
func (r *round) cut(pairs ...[2]int) {
	set := func(held bool) {
		for _, p := range pairs {
			r.held[p[0]][p[1]] = held
			r.c.hold(p[0], p[1], &r.held)
		}
	}
	var what []string
	for _, p := range pairs {
		what = append(what, names[p[0]]+" to "+names[p[1]])
	}
	r.event("hold back what goes from %s", strings.Join(what, ", "))
	set(true)
	mend := r.chance(2)
	r.pause(peerTimeout/4, 2*peerTimeout)
	if mend {
		r.event("let go on what goes from %s", strings.Join(what, ", "))
		set(false)
	}
}

func (r *round) cutOneWay() {
	a, b := r.two()
	r.cut([2]int{a, b})
}

func (r *round) cutTwoWay() {
	a, b := r.two()
	r.cut([2]int{a, b}, [2]int{b, a})
}

func (r *round) isolate() {
	i := r.victim()
	a, b := (i+1)%3, (i+2)%3
	r.cut([2]int{i, a}, [2]int{a, i}, [2]int{i, b}, [2]int{b, i})
}

func (r *round) closeConnections() {
	a, b := r.two()
	r.event("close the connections between %s and %s", names[a], names[b])
	for range 1 + r.rng.IntN(5) {
		r.c.relays[a][b].Cut()
		r.c.relays[b][a].Cut()
		r.pause(0, 100*time.Millisecond)
		r.c.relays[a][b].Mend()
		r.c.relays[b][a].Mend()
		r.pause(0, 400*time.Millisecond)
	}
}

func (r *round) slowLink() {
	a, b := r.two()
	late := time.Duration(5+r.rng.IntN(150)) * time.Millisecond
	r.event("between %s and %s everything arrives %v later", names[a], names[b], late)
	r.c.relays[a][b].Delay(late)
	r.c.relays[b][a].Delay(late)
	r.pause(0, 1500*time.Millisecond)
}

func (r *round) flipBits() {
	a, b := r.two()
	n := 1 + r.rng.IntN(2)
	r.event("flip a bit in each of the next %d pieces between %s and %s", n, names[a], names[b])
	r.c.relays[a][b].Spoil(n)
	r.c.relays[b][a].Spoil(n)
	r.pause(0, time.Second)
}

// operate has an operator type a command, and half of the time does not wait for
// what comes of it before the next fault.
func (r *round) operate(i int, args ...string) {
	if !r.c.answers(i) {
		return
	}
	line := strings.Join(args, " ")
	r.event("%s$ %s", names[i], line)
	wait := r.chance(2)
	done := make(chan struct{})
	r.operators.Go(func() {
		defer close(done)
		err := r.c.commandWithin(patience, i, args...)
		r.event("%s$ %s: %v", names[i], line, orDone(err))
	})
	if wait {
		<-done
	}
	r.pause(0, 300*time.Millisecond)
}

func orDone(err error) string {
	if err == nil {
		return "done"
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

func (r *round) promoteOne() { r.operate(r.rng.IntN(3), "promote", harness.Volume, "--wait", "0s") }
func (r *round) demoteOne()  { r.operate(r.victim(), "demote", harness.Volume) }

func (r *round) disconnectOne() {
	r.disconnected = true
	i, other := r.two()
	args := []string{"disconnect", harness.Volume}
	if r.chance(2) {
		args = append(args, names[other])
	}
	r.operate(i, args...)
}

func (r *round) connectOne() { r.operate(r.rng.IntN(3), "connect", harness.Volume) }

// switchOver is a planned one, in the middle of whatever goes on.
func (r *round) switchOver() {
	to := r.rng.IntN(3)
	if p := r.c.primary(); p >= 0 {
		r.operate(p, "demote", harness.Volume)
	}
	r.operate(to, "promote", harness.Volume, "--wait", "1s")
}

// forceOne fails over to one of those that are not Primary.
func (r *round) forceOne() {
	to, kill := r.rng.IntN(3), !r.chance(3)
	if to == r.c.primary() {
		to = (to + 1 + r.rng.IntN(2)) % 3
	}
	r.force(to, kill)
}

// failOver is the Primary's death under load, with much on its way to the others
// that is lost with it, and a failover to one of them.
func (r *round) failOver() {
	late, to := time.Duration(r.rng.IntN(60))*time.Millisecond, r.rng.IntN(2)
	p := r.c.primary()
	if p < 0 {
		return
	}
	to = (p + 1 + to) % 3
	r.event("from and to %s everything arrives %v later", names[p], late)
	for i := range names {
		if i != p {
			r.c.relays[p][i].Delay(late)
			r.c.relays[i][p].Delay(late)
		}
	}
	r.pause(100*time.Millisecond, 700*time.Millisecond)
	for i := range names {
		if i != p {
			r.c.relays[p][i].Cut()
			r.c.relays[i][p].Cut()
		}
	}
	r.event("close its connections, lose what was on its way, and kill -9 %s", names[p])
	if !r.c.dead[p] {
		r.c.kill(p)
	}
	for i := range names {
		if i != p {
			r.c.relays[p][i].Mend()
			r.c.relays[i][p].Mend()
		}
	}
	r.force(to, true)
}

// forceLeftBehind fails over to a node that was cut off while the others went on.
func (r *round) forceLeftBehind() {
	to, kill := r.rng.IntN(3), r.chance(2)
	r.event("isolate %s", names[to])
	r.isolated(to, true)
	r.pause(peerTimeout, 3*peerTimeout)
	r.force(to, kill)
}

// isolated holds a node off from both others, or lets it go on.
func (r *round) isolated(node int, held bool) {
	for i := range names {
		if i != node {
			r.held[node][i], r.held[i][node] = held, held
			r.c.hold(node, i, &r.held)
		}
	}
}

// force fails over by force, as docs/operations.md says: the Primary is killed, or
// isolated, and clients are kept off all others before.
func (r *round) force(to int, kill bool) {
	r.operators.Wait() // a promotion that is under way elsewhere would be one more Primary
	p := r.c.primary()
	switch {
	case !r.c.answers(to) || p == to:
		return
	case p < 0:
	case kill:
		r.event("kill -9 %s, which is Primary", names[p])
		r.c.kill(p)
	default:
		r.event("isolate %s, which is Primary", names[p])
		r.isolated(p, true)
		r.pause(0, peerTimeout) // what it does before it gives the others up must not count
	}
	for i := range r.c.nodes {
		if i != to {
			r.load.bar(names[i])
		}
	}
	whole, err := false, error(nil)
	if r.loose {
		err = fmt.Errorf("an earlier force of this round lost something")
	} else {
		whole, err = r.c.hasEverything(to)
	}
	r.event("clients are kept off all but %s, which has everything: %v%s", names[to], whole, map[bool]string{true: " (it cannot be told: " + fmt.Sprint(err) + ")"}[err != nil])
	if !whole {
		r.loose = true
		r.c.loosen(true)
	}
	call := r.h.now()
	err = r.c.command(to, "promote", harness.Volume, "--force")
	r.event("%s$ promote --force: %s", names[to], orDone(err))
	switch {
	case err != nil:
		r.c.forces.refused++
	case whole:
		r.c.forces.whole++
	default:
		r.c.forces.lossy++
	}
	if !whole {
		r.h.addForce(names[to], call, r.h.now())
	}
	r.forced = true
	if err == nil {
		r.kept = to
	}
	r.load.only(r.kept)
	r.pause(0, time.Second)
}
