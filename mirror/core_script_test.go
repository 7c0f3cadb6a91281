package mirror

import (
	"encoding"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The scripts of testdata/core are read aloud: what happens, one event a line, and
// below "----" what follows from it, up to an empty line. LOCKSTEP_UPDATE=1 writes what
// follows anew; read the difference.

func TestCoreScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/core/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playCore(t, string(b))
			if os.Getenv("LOCKSTEP_UPDATE") != "" {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, have := strings.Split(string(b), "\n"), strings.Split(got, "\n")
			for i := range min(len(want), len(have)) {
				if want[i] != have[i] {
					t.Fatalf("%s:%d:\nwant %s\ngot  %s", file, i+1, want[i], have[i])
				}
			}
			if len(want) != len(have) {
				t.Fatalf("%s has %d lines, want %d", file, len(have), len(want))
			}
		})
	}
}

// playCore returns the script with what follows as it is.
func playCore(t *testing.T, script string) string {
	var out strings.Builder
	w := &coreWorld{out: &out}
	for _, block := range strings.Split(strings.TrimSpace(script), "\n\n") {
		ran := false
		for _, line := range strings.Split(block, "\n") {
			if line == "----" {
				break
			}
			out.WriteString(line + "\n")
			ran = ran || !strings.HasPrefix(line, "#")
		}
		if ran {
			out.WriteString("----\n")
		}
		for _, line := range strings.Split(block, "\n") {
			if line == "----" {
				break
			}
			if !strings.HasPrefix(line, "#") {
				if err := w.play(line); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
			}
		}
		out.WriteString("\n")
	}
	return strings.TrimRight(out.String(), "\n") + "\n"
}

// coreStart is when scripts begin. Times are told by how long after.
var coreStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A coreWorld drives one core: it does what the core wants done as far as the core
// sees of it.
type coreWorld struct {
	c   core
	now time.Time
	out interface{ WriteString(string) (int, error) }
	gen *beginGeneration // that is being begun
	rec *recordSet       // that is being recorded
	// meets are the connections by node, those that ended too.
	meets map[string]*meeting
}

// tell has the core decide, and writes down what follows.
func (w *coreWorld) tell(e event) []action {
	todo := w.c.step(e)
	for _, a := range todo {
		w.out.WriteString("-> " + describeAction(a) + "\n")
		switch a := a.(type) {
		case beginGeneration:
			w.gen = &a
		case recordSet:
			w.rec = &a
		case advance:
			w.advance()
		}
	}
	return todo
}

// advance is Volume.advance as far as it decides anything.
func (w *coreWorld) advance() {
	c := &w.c
	if c.role != Primary || c.failure != nil || c.detaching {
		return
	}
	received, durable := c.reach()
	if !c.led && c.generation != notBegun && durable >= c.generation {
		w.tell(generationDurable{w.now})
	}
	if !c.led {
		return
	}
	if c.enough(c.super.Set) {
		c.committed = max(c.committed, received)
	}
	c.stable = max(c.stable, min(durable, c.committed))
}

// commit changes the superblock, as a commit does.
func (w *coreWorld) commit(change func(*Superblock)) error {
	next := w.c.super
	change(&next)
	if err := next.mayFollow(&w.c.super, diskTransitions); err != nil {
		return err
	}
	w.c.super = next
	return nil
}

// An order is one line of a script: a verb, a node or none, and settings.
type order struct {
	verb string
	args []string
	set  map[string]string
}

func parseOrder(line string) order {
	o := order{set: map[string]string{}}
	for i, word := range strings.Fields(line) {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case i == 0:
			o.verb = word
		case ok:
			o.set[key] = value
		default:
			o.args = append(o.args, word)
		}
	}
	return o
}

func (o order) has(word string) bool { return slices.Contains(o.args, word) }

func (o order) num(key string, otherwise LSN) LSN {
	if n, err := strconv.ParseUint(o.set[key], 10, 64); err == nil {
		return LSN(n)
	}
	return otherwise
}

// members reads "a,b/2": a in incarnation 1, b in incarnation 2.
func parseMembers(s string) (set []Member) {
	if s == "" {
		return nil
	}
	for _, m := range strings.Split(s, ",") {
		node, inc, _ := strings.Cut(m, "/")
		n, err := strconv.ParseUint(inc, 10, 64)
		if err != nil {
			n = 1
		}
		set = append(set, Member{node, n})
	}
	return set
}

func formatMembers(set []Member) string {
	var names []string
	for _, m := range set {
		if m.Incarnation != 1 {
			m.Node += "/" + strconv.FormatUint(m.Incarnation, 10)
		}
		names = append(names, m.Node)
	}
	return strings.Join(names, ",")
}

func (w *coreWorld) play(line string) error {
	o := parseOrder(line)
	verb, known := coreVerbs[o.verb]
	if !known {
		return errors.New("there is no such verb")
	}
	return verb(w, o)
}

// peer is whom the order is about.
func (w *coreWorld) peer(o order) *peerState {
	for _, a := range o.args {
		if p := w.c.other(a); p != nil {
			return p
		}
	}
	panic("the order names no peer")
}

func unmarshalOr(to encoding.TextUnmarshaler, name string) error {
	if name == "" {
		return nil
	}
	return to.UnmarshalText([]byte(name))
}

// refused writes down why a change does not come to be, if it does not.
func (w *coreWorld) refused() error {
	if err := w.c.change.err; err != nil {
		w.out.WriteString("it is refused: " + err.Error() + "\n")
	}
	return nil
}

func failing(o order) error {
	if s, ok := o.set["error"]; ok {
		return errors.New(s)
	}
	return nil
}

// coreVerbs are what scripts are made of.
var coreVerbs = map[string]func(w *coreWorld, o order) error{
	// volume node=a peers=b,c [set=a,b] [min-in-sync=2] [io-error] [pass-on] [fences] [budget=100ms] [primary]
	"volume": func(w *coreWorld, o order) error {
		r := rules{node: o.set["node"], volume: "data", minInSync: max(1, int(o.num("min-in-sync", 1))), peerTimeout: 3 * time.Second, fences: o.has("fences")}
		r.budget, _ = time.ParseDuration(o.set["budget"])
		if o.has("io-error") {
			r.onNoQuorum = IOError
		}
		if o.has("pass-on") {
			r.onIOError = PassOn
		}
		w.now, w.meets = coreStart, map[string]*meeting{}
		w.c = newCore(r, strings.Split(o.set["peers"], ","))
		w.c.super = Superblock{Node: r.node, Disk: UpToDate, Incarnation: 1, Epoch: 1, SetVersion: 1, Volume: ID{1}, Set: parseMembers(o.set["set"])}
		if o.has("primary") {
			w.c.role, w.c.led, w.c.serving = Primary, true, true
			w.c.end, w.c.appended, w.c.durable, w.c.committed, w.c.stable, w.c.generation = 10, 10, 10, 10, 10, 1
		}
		return nil
	},
	"state": func(w *coreWorld, _ order) error {
		w.out.WriteString(w.state())
		return nil
	},
	"pass": func(w *coreWorld, o order) error {
		d, err := time.ParseDuration(o.args[0])
		w.now = w.now.Add(d)
		return err
	},
	// A connection, its handshake, and its end.
	"meet": func(w *coreWorld, o order) error {
		p := w.peer(o)
		m := &meeting{theirs: Description{
			Node: p.node, Incarnation: uint64(o.num("incarnation", 1)), Set: parseMembers(o.set["set"]), Excluded: o.has("excluded"),
			Epoch: uint64(o.num("epoch", 1)), SetVersion: uint64(o.num("version", 1)),
		}}
		if o.has("resync") {
			m.theirs.Resync = &ResyncMark{}
		}
		m.verdict.Verdict, m.verdict.Theirs.Records, m.verdict.Reason = InSync, uint64(o.num("records", 0)), o.set["reason"]
		for v := range Verdict(len(verdictNames)) {
			if v.String() == o.set["verdict"] {
				m.verdict.Verdict = v
			}
		}
		if err := unmarshalOr(&m.theirs.Role, o.set["role"]); err != nil {
			return err
		}
		w.meets[p.node] = m
		p.with, p.received, p.durable, m.role = m, 0, 0, w.c.role
		m.verdict.Common, m.verdict.Ours.Records, m.verdict.NeedsResync = o.num("common", 0), uint64(o.num("ours", 0)), o.has("needs-resync")
		if o.has("calls-itself-x") {
			m.theirs.Node = "x"
		}
		m.theirs.End = o.num("end", w.c.end)
		m.votes = o.has("votes")
		w.tell(met{p.node, m})
		return nil
	},
	// prepare b: it is about to be promoted. vote b yes|no: its answer when we are.
	"prepare": func(w *coreWorld, o order) error {
		p := w.peer(o)
		w.tell(prepareHeard{p.node, w.meets[p.node]})
		return nil
	},
	"vote": func(w *coreWorld, o order) error {
		w.tell(voteHeard{w.meets[w.peer(o).node], o.has("yes"), o.set["why"]})
		return nil
	},
	// A connection that does not come to a handshake.
	"dial": func(w *coreWorld, o order) error {
		p := w.peer(o)
		p.with = &meeting{role: w.c.role}
		w.meets[p.node] = p.with
		return nil
	},
	// judge is what this replica makes of the peer that it met, as Volume does it.
	"judge": func(w *coreWorld, o order) error {
		p := w.peer(o)
		c, m, sb := &w.c, p.with, &w.c.super
		mine := Description{Node: sb.Node, Role: c.role, Set: sb.Set, SetVersion: sb.SetVersion, Excluded: sb.Excluded,
			Incarnation: sb.Incarnation, History: sb.History}
		say := func(format string, a ...any) { w.out.WriteString(fmt.Sprintf(format, a...) + "\n") }
		if r := judgeHello(p.node, &mine, m); r != nil {
			say("refused, %v: %v", r.code, r)
			return nil
		}
		switch excluded, standsDown := judgeExclusion(&mine, m, Neither); {
		case excluded:
			say("it is excluded")
			sb.exclude(m.theirs.Set, m.theirs.SetVersion)
		case standsDown:
			say("it stands down, and meets the peer again")
			sb.exclude(sb.Set, sb.SetVersion)
			return nil
		}
		if judgeGrowth(&mine, m, sb.Set, sb.SetVersion, sb.Excluded) {
			say("the set has grown")
			sb.Set, sb.SetVersion = m.theirs.Set, m.theirs.SetVersion
		}
		if r := judgeRoles(&mine, m); r != nil {
			say("refused, %v: %v", r.code, r)
			return nil
		}
		say("they go on: %v", chooseMode(&m.verdict, o.num("journal", 1)))
		return nil
	},
	"lead": func(w *coreWorld, o order) error {
		p := w.peer(o)
		w.tell(leadWanted{p.node, p.with, w.now})
		return nil
	},
	// What a Secondary records: of a Primary that it follows, of a generation, of a set.
	"follow": func(w *coreWorld, o order) error {
		theirs := w.peer(o).with.theirs
		return w.commit(func(sb *Superblock) { sb.obey(uint64(o.num("epoch", 1)), &theirs) })
	},
	"generation": func(w *coreWorld, o order) error {
		gen := Generation{Epoch: uint64(o.num("epoch", 1)), SetVersion: uint64(o.num("version", 1)), Set: parseMembers(o.set["set"])}
		return w.commit(func(sb *Superblock) { sb.hear(&gen) })
	},
	"told": func(w *coreWorld, o order) error {
		return w.commit(func(sb *Superblock) { sb.told(parseMembers(o.set["set"]), uint64(o.num("version", 1))) })
	},
	// proceed epoch=3: the Primary decided so.
	"proceed": func(w *coreWorld, o order) error {
		m := w.peer(o).with
		m.theirs.Volume = ID{1}
		err := judgeProceed(w.c.super.Epoch, m, &Proceed{Epoch: uint64(o.num("epoch", 1)), Volume: ID{1}, Common: o.num("common", 0), From: o.num("from", 1)})
		w.out.WriteString(fmt.Sprintf("%v\n", err))
		return nil
	},
	// lost b [again] [busy] [final] [untold] [stalled]
	"lost": func(w *coreWorld, o order) error {
		p := w.peer(o)
		for _, a := range w.tell(linkLost{p.node, w.meets[p.node], o.has("again"), o.has("busy"), o.has("final"), o.has("untold"), o.has("stalled"), w.now}) {
			if a == (cutOff{}) && w.c.isCutOff(p) {
				return w.commit(func(sb *Superblock) { sb.Disk = Consistent })
			}
		}
		return nil
	},
	"ready": func(w *coreWorld, o order) error {
		p := w.peer(o)
		p.with.ready = true
		p.received, p.durable = o.num("received", w.c.end), o.num("durable", w.c.end)
		w.advance()
		if w.c.suspended {
			w.tell(quorumLook{w.now})
		}
		return nil
	},
	"lose": func(w *coreWorld, o order) error {
		p := w.peer(o)
		p.with, p.removeAt, p.stalled = nil, w.now, o.has("stalled")
		return nil
	},
	"slow": func(w *coreWorld, o order) error { // for so long that it has to leave
		l := &w.peer(o).lag
		l.late, l.worst = slowBudgets*l.budget, 2*l.budget
		return nil
	},
	"write": func(w *coreWorld, o order) error {
		c := &w.c
		c.end += o.num("records", 1)
		c.appended, c.durable = c.end, c.end
		w.advance()
		return nil
	},
	"ack": func(w *coreWorld, o order) error {
		p := w.peer(o)
		p.received = o.num("received", w.c.end)
		p.durable = o.num("durable", p.received)
		w.advance()
		return nil
	},
	"advance": func(w *coreWorld, _ order) error { w.advance(); return nil },
	"claim": func(w *coreWorld, o order) error { // what it acknowledged
		p := w.peer(o)
		p.claim = claim{p.incarnation, o.num("durable", 0)}
		return nil
	},
	"join-ready": func(w *coreWorld, o order) error {
		w.peer(o).with.joinReady = w.c.change.lsn
		return nil
	},
	// Turns, and how what takes time ended.
	"watch": func(w *coreWorld, _ order) error { w.tell(watch{w.now}); return nil },
	// super disk=Outdated excluded set=a version=3 incarnation=2 history
	"super": func(w *coreWorld, o order) error {
		sb := &w.c.super
		if s, ok := o.set["set"]; ok {
			sb.Set = parseMembers(s)
		}
		sb.Epoch = uint64(o.num("epoch", LSN(sb.Epoch)))
		sb.SetVersion, sb.Incarnation = uint64(o.num("version", LSN(sb.SetVersion))), uint64(o.num("incarnation", LSN(sb.Incarnation)))
		sb.Excluded = o.has("excluded")
		if o.has("history") {
			sb.History = History{{ID: ID{2}, Epoch: 1, First: 1, SetVersion: 1, Set: sb.Set}}
		}
		if o.has("resync") {
			sb.Resync = &ResyncMark{Source: "b"}
		}
		return unmarshalOr(&sb.Disk, o.set["disk"])
	},
	"stand-alone": func(w *coreWorld, o order) error {
		p := w.peer(o)
		p.want, p.problem = false, o.set["problem"]
		return nil
	},
	"turn": func(w *coreWorld, _ order) error { w.tell(shrinkTurn{w.now}); return nil },
	"join": func(w *coreWorld, o order) error {
		p := w.peer(o)
		w.tell(joinTurn{p.node, w.meets[p.node], w.now})
		return w.refused()
	},
	"fenced": func(w *coreWorld, o order) error {
		w.tell(fenceAnswer{w.peer(o).node, failing(o), w.now, 5 * time.Second})
		return nil
	},
	"synced": func(w *coreWorld, o order) error { w.tell(synced{failing(o)}); return nil },
	"granted": func(w *coreWorld, o order) error {
		w.tell(proposed{revision: Revision(o.num("revision", LSN(w.c.revision)+1))})
		return nil
	},
	"unknown":    func(w *coreWorld, _ order) error { w.tell(proposed{err: errors.New("no answer")}); return w.refused() },
	"superseded": func(w *coreWorld, _ order) error { w.tell(proposed{err: ErrSuperseded}); return nil },
	"read": func(w *coreWorld, o order) error {
		is := Agreement{Epoch: uint64(o.num("epoch", 1)), SetVersion: uint64(o.num("version", 1)), Primary: o.set["primary"], Set: parseMembers(o.set["set"])}
		w.tell(agreementRead{is, Revision(o.num("revision", 0)), o.has("ours"), failing(o)})
		return w.refused()
	},
	"begun": func(w *coreWorld, o order) error {
		if err := failing(o); err != nil {
			w.tell(begun{err: err})
			return nil
		}
		c := &w.c
		lsn := c.end + 1
		w.tell(placed{lsn})
		if err := w.commit(func(sb *Superblock) { w.gen.edit(sb) }); err != nil {
			return err
		}
		c.end, c.appended, c.durable, c.generation = lsn, lsn, lsn, lsn
		w.tell(begun{lsn: lsn})
		return nil
	},
	"in-force?": func(w *coreWorld, _ order) error {
		ok, err := w.c.inForce()
		switch {
		case err != nil:
			w.tell(gaveUp{err})
			return w.refused()
		case ok:
			w.tell(inForce{})
		default:
			w.out.WriteString("not yet\n")
		}
		return nil
	},
	"gave-up": func(w *coreWorld, o order) error {
		w.tell(gaveUp{failing(o)})
		return w.refused()
	},
	"recorded": func(w *coreWorld, o order) error {
		err := failing(o)
		if err == nil {
			if err := w.commit(func(sb *Superblock) { sb.Set = w.rec.set }); err != nil {
				return err
			}
		}
		w.tell(setRecorded{err, w.now})
		return nil
	},
	"promote": func(w *coreWorld, o order) error {
		w.tell(promoteTurn{o.has("force"), o.has("can-roll-back")})
		return w.refused()
	},
	"role-taken": func(w *coreWorld, o order) error {
		if err := failing(o); err != nil {
			w.tell(rolePrepared{err})
			return w.refused()
		}
		w.tell(roleTaken{w.now})
		w.tell(rolePrepared{})
		return nil
	},
	"epoch": func(w *coreWorld, o order) error {
		w.tell(epochTurn{uint64(o.num("seen", 0)), w.now})
		return nil
	},
	"demote": func(w *coreWorld, o order) error {
		switch {
		case o.has("begins"):
			w.tell(demoteBegins{})
		case o.has("gives-up"):
			w.tell(demoteGivesUp{})
		default:
			w.tell(demoteTurn{})
		}
		return nil
	},
	"disk-failed": func(w *coreWorld, o order) error {
		w.tell(diskFailed{errors.New("I/O error"), fromStore, w.now})
		return nil
	},
	"detach": func(w *coreWorld, _ order) error { w.tell(detachTurn{}); return nil },
}

// state is what a person would want to know.
func (w *coreWorld) state() string {
	c := &w.c
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v, epoch %d, set %s of version %d, end %d, committed %d, stable %d", c.role, c.super.Disk,
		c.super.Epoch, formatMembers(c.super.Set), c.super.SetVersion, c.end, c.committed, c.stable)
	for _, x := range []struct {
		is   bool
		name string
	}{{c.serving, "serving"}, {c.suspended, "suspended"}, {c.detached != nil, "diskless"}, {c.failure != nil, "failed"},
		{c.super.Excluded, "excluded"}} {
		if x.is {
			b.WriteString(", " + x.name)
		}
	}
	b.WriteString("\n")
	for _, p := range c.others {
		fmt.Fprintf(&b, "  %s: ", p.node)
		switch {
		case p.with == nil && p.untold:
			b.WriteString("StandAlone, until it is told why")
		case p.with == nil && !p.want:
			b.WriteString("StandAlone")
		case p.with == nil:
			b.WriteString("away")
		case p.with.ready:
			fmt.Fprintf(&b, "here, received %d, durable %d", p.received, p.durable)
		default:
			b.WriteString("met")
		}
		if p.leaving {
			b.WriteString(", leaving")
		}
		if p == c.joiner {
			fmt.Fprintf(&b, ", joining at %d", c.joinLSN)
		}
		if p.fenced {
			b.WriteString(", fenced")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// describeAction is an action, or an event, as a script has it.
func describeAction(a any) string {
	v := reflect.New(reflect.TypeOf(a)).Elem() // whose fields can be looked at, exported or not
	v.Set(reflect.ValueOf(a))
	words := []string{v.Type().Name()}
	for i := range v.NumField() {
		f := v.Field(i)
		if f.IsZero() || f.Type() == reflect.TypeFor[*meeting]() {
			continue
		}
		words = append(words, v.Type().Field(i).Name+"="+describeValue(f))
	}
	return strings.Join(words, " ")
}

func describeValue(f reflect.Value) string {
	switch x := reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem().Interface().(type) {
	case []Member:
		return formatMembers(x)
	case []string:
		return strings.Join(x, ",")
	case time.Time:
		return "+" + x.Sub(coreStart).String()
	case Agreement:
		return fmt.Sprintf("{epoch %d, version %d, primary %s, set %s}", x.Epoch, x.SetVersion, x.Primary, formatMembers(x.Set))
	case error:
		return strconv.Quote(x.Error())
	case string:
		if strings.ContainsAny(x, " ") {
			return strconv.Quote(x)
		}
		return x
	default:
		return fmt.Sprint(x)
	}
}
