package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/disk/fakedisk"
)

// faultTable has the scenarios, and says what each word of them means.
const faultTable = "../docs/faults.md"

// TestFaultTable runs each scenario of docs/faults.md: its end is what the page says.
func TestFaultTable(t *testing.T) {
	page, err := os.ReadFile(faultTable)
	if err != nil {
		t.Fatal(err)
	}
	scenarios := parseScenarios(string(page))
	if len(scenarios) < 20 {
		t.Fatalf("%s has %d scenarios", faultTable, len(scenarios))
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t)
		})
	}
}

// A scenario is one script of the page.
type scenario struct {
	name  string
	line  int // of the page, where it begins
	steps []string
}

// parseScenarios takes the fenced scripts out of a page. Each is named after its
// section and the first sentence of the paragraph above it.
func parseScenarios(page string) (list []scenario) {
	var section, sentence string
	var s *scenario
	fresh := true // a paragraph begins
	for i, line := range strings.Split(page, "\n") {
		switch {
		case line == "```" && s == nil:
			s = &scenario{name: section + "/" + sentence, line: i + 1}
		case line == "```":
			list, s = append(list, *s), nil
		case s != nil:
			s.steps = append(s.steps, line)
		case strings.HasPrefix(line, "## "):
			section = line[3:]
		case line == "":
			fresh = true
		case fresh:
			sentence, _, _ = strings.Cut(line, ".")
			fresh = false
		}
	}
	return list
}

func (s *scenario) run(t *testing.T) {
	p := &play{t: t, copies: map[string]*fakedisk.FS{}}
	for i := 0; i < len(s.steps); i++ {
		p.at = fmt.Sprintf("%s:%d: %s", faultTable, s.line+1+i, s.steps[i])
		if !strings.HasPrefix(s.steps[i], "= ") {
			p.step(s.steps[i])
			continue
		}
		from := i
		for i+1 < len(s.steps) && strings.HasPrefix(s.steps[i+1], "= ") {
			i++
		}
		p.end(s.steps[from : i+1])
	}
}

// A play is a scenario under way.
type play struct {
	t      *testing.T
	at     string // the line that it is at
	r      *rig
	copies map[string]*fakedisk.FS
}

func (p *play) fatal(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s\n%s", p.at, fmt.Sprintf(format, args...))
}

// until waits for what a step is to bring about.
func (p *play) until(what string, cond func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(hangTime); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.fatal("in vain waited until %s\n%s", what, p.r.describe())
		}
	}
}

// step does what one line says.
func (p *play) step(line string) {
	p.t.Helper()
	line, refused := strings.CutSuffix(line, ": refused")
	words := strings.Fields(line)
	verb, args := words[0], words[1:]
	if verb == "nodes" {
		p.nodes(args)
		return
	}
	n := p.r.node(args[0])
	var o *rigNode
	if len(args) > 1 {
		o = p.r.node(args[1])
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), hangTime)
	defer cancel()
	var err error
	switch verb {
	case "write":
		c, off, data := p.block(n, args)
		c.write(off, data)
		c.flush()
	case "unanswered":
		c, off, data := p.block(n, args)
		before := n.vol.Status().End
		c.async(off, data)
		p.until("it is in the journal", func() bool { s := n.vol.Status(); return s.End > before && s.Durable == s.End })
	case "outgrow":
		p.outgrow(n)
	case "isolate":
		n.isolate()
	case "heal":
		n.heal()
	case "mute":
		for _, g := range n.gatesOut() {
			g.hold()
		}
	case "unmute":
		for _, g := range n.gatesOut() {
			g.drop()
		}
	case "kill":
		n.sigkill()
	case "power-off":
		n.powerLoss(fakedisk.LoseAll)
	case "start":
		n.start()
	case "replace":
		n.createFake()
	case "copy":
		p.copies[n.name] = n.fake.KillClone()
	case "rewind":
		n.fake = p.copies[n.name].KillClone()
	case "break":
		n.failFrom(fakedisk.OpWrite, map[string]string{"store": fakeData, "journal": "*.seg*"}[args[1]], errors.New("injected failure"))
	case "promote":
		err = p.promote(ctx, n, refused)
	case "force":
		err = n.vol.Promote(ctx, PromoteOptions{Force: true})
	case "demote":
		err = n.vol.Demote(ctx)
	case "connect":
		err = n.vol.Connect("")
	case "keep":
		_, err = o.vol.ResolveSplit(ctx, ResolveOptions{Keep: n.name})
	case "member":
		p.until("it is a member", func() bool {
			s := o.vol.Status()
			return n.peer(o.name).Member && s.Disk == UpToDate && slices.Contains(nodesOf(s.InSync), o.name)
		})
	case "caught-up":
		if s := n.peer(o.name); s.Resyncs != 0 || s.CatchUps == 0 {
			p.fatal("%d resyncs and %d catch-ups", s.Resyncs, s.CatchUps)
		}
	case "lost":
		p.until("it is a member no more", func() bool { return !n.peer(o.name).Member })
	case "resyncing":
		p.until("some of the resync is done", func() bool { s := n.vol.Status(); return s.Undo != nil && s.Undo.Preserved > 1<<20 })
	case "rollback":
		_, err = n.vol.Rollback(ctx)
	default:
		p.fatal("no such word")
	}
	switch {
	case refused && err == nil:
		p.fatal("it was not refused\n%s", p.r.describe())
	case !refused && err != nil:
		p.fatal("%v\n%s", err, p.r.describe())
	}
}

// nodes begins a play.
func (p *play) nodes(args []string) {
	p.t.Helper()
	var opts func(*Options)
	if names, slow := strings.CutSuffix(strings.Join(args, " "), " slow-resync"); slow {
		args, opts = strings.Fields(names), slowResync
	}
	p.r = newFakeRig(p.t, opts, args...)
	p.r.meet()
	p.r.node(args[0]).promote(false)
	p.r.members()
}

// block is a client of n, and what the arguments NODE BLOCK DIGIT ask it to write.
func (p *play) block(n *rigNode, args []string) (c *client, off int64, data []byte) {
	p.t.Helper()
	if len(args) != 3 || len(args[1]) != 1 || len(args[2]) != 1 {
		p.fatal("a node, a block and a digit are wanted")
	}
	return n.attach(), int64(args[1][0]-'0') * rigBlock, fill(args[2][0], rigBlock)
}

// outgrow writes behind the first MiB.
func (p *play) outgrow(n *rigNode) {
	p.t.Helper()
	c, base, rng := n.attach(), n.vol.Status().End, newRand(1)
	for i := int64(0); n.vol.Status().Journal.First <= base+1; i++ {
		if i > 400 {
			p.fatal("the journal does not overflow\n%s", p.r.describe())
		}
		c.write((1+i%7)<<20, randomly(rng, 1<<20))
	}
	c.flush()
}

// promote does what an operator does: again, as long as something is unknown.
func (p *play) promote(ctx context.Context, n *rigNode, refused bool) error {
	for {
		err := n.vol.Promote(ctx, PromoteOptions{})
		var unsafe *UnsafePromotionError
		if refused || !errors.As(err, &unsafe) || ctx.Err() != nil {
			return err
		}
	}
}

// end waits until every node is as its line says.
func (p *play) end(lines []string) {
	p.t.Helper()
	want := strings.Join(lines, "\n")
	got := ""
	for deadline := time.Now().Add(hangTime); ; time.Sleep(5 * time.Millisecond) {
		names := make([]string, len(lines))
		for i, line := range lines {
			names[i] = p.state(p.r.node(strings.Fields(line)[1]))
		}
		if got = strings.Join(names, "\n"); got == want {
			return
		}
		if time.Now().After(deadline) {
			p.fatal("wanted\n%s\nfound\n%s\n%s", want, got, p.r.describe())
		}
	}
}

// state is a node's line.
func (p *play) state(n *rigNode) string {
	if n.vol == nil {
		return "= " + n.name + " down"
	}
	s := n.vol.Status()
	line := fmt.Sprintf("= %s %v %v", n.name, s.Role, s.Disk)
	if s.Disk == Failed {
		return line
	}
	line += " "
	image := make([]byte, 8*rigBlock)
	if _, err := n.store.ReadAt(image, 0); err != nil {
		p.fatal("read the store of %s: %v", n.name, err)
	}
	for off := 0; off < len(image); off += rigBlock {
		line += digit(image[off : off+rigBlock])
	}
	for _, peer := range s.Peers {
		if peer.SplitBrain != nil {
			return line + " split-brain"
		}
	}
	return line
}

// digit is what a block is full of.
func digit(block []byte) string {
	switch first := block[0]; {
	case strings.Trim(string(block), string(first)) != "":
		return "?" // torn
	case first == 0:
		return "."
	default:
		return string(first)
	}
}
