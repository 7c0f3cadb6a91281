package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// seeded gives the random source of a test: LOCKSTEP_SEED repeats a run.
func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("LOCKSTEP_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("LOCKSTEP_SEED=%q: %v", s, err)
		}
	}
	t.Logf("LOCKSTEP_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestHistoryAt(t *testing.T) {
	h := history(gen(1, 3, "a1"), gen(2, 7, "a1"), gen(3, 8, "a1"))
	for lsn, want := range map[LSN]byte{0: 0, 2: 0, 3: 1, 6: 1, 7: 2, 8: 3, 1000: 3} {
		var got byte
		if g := h.At(lsn); g != nil {
			got = g.ID[0]
		}
		if got != want {
			t.Errorf("LSN %d belongs to generation %d, want %d", lsn, got, want)
		}
	}
	if History(nil).At(5) != nil || History(nil).Last() != nil {
		t.Error("an empty history has a generation")
	}
}

func TestHistoryAppend(t *testing.T) {
	h := history(gen(1, 1, "a1"), gen(2, 7, "a1"))
	next := gen(3, 9, "b1")
	next.Parent = ID{2}
	got, err := h.Append(next)
	if err != nil || len(got) != 3 || len(h) != 2 {
		t.Fatal(got, err)
	}
	other := next
	other.ID = ID{4}
	if _, err := h.Append(other); err != nil || got[2].ID != next.ID {
		t.Errorf("a second Append to the same history changed the first: %v, %v", got[2], err)
	}
	for name, bad := range map[string]func(*Generation){
		"same first":   func(g *Generation) { g.First = 7 },
		"lower first":  func(g *Generation) { g.First = 2 },
		"other parent": func(g *Generation) { g.Parent = ID{1} },
		"no parent":    func(g *Generation) { g.Parent = ID{} },
		"no id":        func(g *Generation) { g.ID = ID{} },
	} {
		g := next
		bad(&g)
		if _, err := h.Append(g); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := History(nil).Append(gen(1, 0, "a1")); err == nil {
		t.Error("LSN 0 accepted")
	}
}

func TestHistoryCutTo(t *testing.T) {
	h := history(gen(1, 1, "a1"), gen(2, 7, "a1"), gen(3, 9, "a1"))
	for end, want := range map[LSN]int{0: 0, 1: 1, 6: 1, 7: 2, 8: 2, 9: 3, 50: 3} {
		if got := h.CutTo(end); len(got) != want {
			t.Errorf("cut to %d: %d generations, want %d", end, len(got), want)
		}
	}
	cut := h.CutTo(6)
	_ = append(cut, gen(9, 8, "b1"))
	if h[1].ID != (ID{2}) {
		t.Error("appending to a cut history changed the one that it was cut from")
	}
}

func TestHistoryPosition(t *testing.T) {
	h := history(gen(1, 1, "a1"), gen(2, 7, "a1"))
	for _, row := range []struct {
		p    Position
		held bool
	}{
		{Position{}, true},
		{Position{ID{1}, 6}, true},
		{Position{ID{2}, 7}, true},
		{Position{ID{1}, 7}, false},
		{Position{ID{2}, 11}, false}, // past the end
		{Position{ID{2}, 0}, false},
		{Position{ID{}, 5}, false},
	} {
		if h.Holds(row.p, 10) != row.held {
			t.Errorf("%v held: %v", row.p, !row.held)
		}
	}
	if p := h.Position(8); p != (Position{ID{2}, 8}) {
		t.Error(p)
	}
}

// longHistory has n generations of ten records each.
func longHistory(n int) (h History) {
	for i := range n {
		g := gen(0, LSN(10*i+1), "a1 b1")
		g.ID = ID{byte(i), byte(i >> 8), 1}
		h = append(h, g)
	}
	return history(h...)
}

// rolledBackHistory is that of a volume that was rolled back once, in two generations,
// and is in the middle of it again.
func rolledBackHistory() History {
	h := longHistory(6)
	monday, tuesday, other := RollbackTarget{"a", "monday"}, RollbackTarget{"a", "tuesday"}, RollbackTarget{"z", "tuesday"}
	h[1].RollingBack, h[2].RollingBack, h[4].RollingBack, h[5].RollingBack = monday, monday, tuesday, other
	return h
}

// A history that tells of rollbacks has one encoding, and tells at every record
// whether the volume is in the middle of one.
func TestHistoryOfRollbacks(t *testing.T) {
	h := rolledBackHistory()
	b := golden(t, "history-v3", appendHistory(nil, h))
	read := func(b []byte) (History, error) {
		r := fieldReader{b: b}
		got := r.history()
		return got, r.end()
	}
	if got, err := read(b); err != nil || !reflect.DeepEqual(got, h) {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := read(b[:n]); err == nil {
			t.Errorf("%d bytes of %d were accepted", n, len(b))
		}
	}
	for lsn, want := range map[LSN]string{0: "", 1: "", 10: "", 11: "monday", 20: "monday", 30: "monday", 31: "", 40: "", 41: "tuesday", 61: "tuesday"} {
		if got := h.RollingBack(lsn).Snapshot; got != want {
			t.Errorf("at LSN %d: %q, want %q", lsn, got, want)
		}
	}
	full := longHistory(MaxGenerations)
	for i := range full {
		full[i].RollingBack = RollbackTarget{"a", strings.Repeat("s", maxSnapshotName-1) + string(rune('a'+i%2))}
	}
	sb := Superblock{Name: "v", Node: "n", History: full}
	if _, err := sb.encodeSlot(0); err == nil || !strings.Contains(err.Error(), "rollbacks") {
		t.Errorf("more rollbacks than the format takes: %v", err)
	}
	sb.History = slices.Clone(full[:maxHistoryRollbacks])
	if _, err := sb.encodeSlot(0); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]RollbackTarget{
		"no node": {"", "s"}, "no name": {"a", ""}, "a long name": {"a", strings.Repeat("s", maxSnapshotName+1)}, "a long node": {strings.Repeat("n", maxName+1), "s"},
	} {
		h := longHistory(1)
		h[0].RollingBack = bad
		if (&Superblock{Name: "v", Node: "n", History: h}).check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// The bytes of an entry, said otherwise than they are written.
	one := longHistory(1)
	one[0].RollingBack = RollbackTarget{"a", "s"}
	b = appendHistory(nil, one)
	if got, err := read(b); err != nil || !reflect.DeepEqual(got, one) {
		t.Fatalf("%+v, %v", got, err)
	}
	tail := b[:len(b)-4] // without 2, the name's index, "s"
	for name, end := range map[string][]byte{
		"a flag, and none": {0}, "as before, and nothing was": {1}, "kind 3": {3}, "no such node": {2, 9, 1, 's'}, "no name": {2, 0, 0},
	} {
		if _, err := read(append(slices.Clone(tail), end...)); !errors.Is(err, errFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	two := append(slices.Clone(tail), 2, 0, 1, 's')
	if !bytes.Equal(two, b) {
		t.Fatalf("%x is not %x", two, b)
	}
}

func TestHistoryPrune(t *testing.T) {
	full, rolled := longHistory(MaxGenerations), longHistory(maxHistoryRollbacks)
	for i := range rolled {
		rolled[i].RollingBack = RollbackTarget{"a", fmt.Sprint(i)}
	}
	end := LSN(10 * MaxGenerations)
	for _, row := range []struct {
		name     string
		h        History
		keepFrom LSN
		want     int
	}{
		{"below the limit", full[:MaxGenerations-1], end, MaxGenerations - 1},
		{"at the limit", full, end, MaxGenerations / 2},
		{"at the limit of rollbacks", rolled, end, maxHistoryRollbacks / 2},
		{"everything may be needed", full, 0, MaxGenerations},
		{"the entry that contains keepFrom stays", full, 25, MaxGenerations - 2},
	} {
		got := row.h.Prune(row.keepFrom)
		if len(got) != row.want || got.Last().ID != row.h.Last().ID {
			t.Errorf("%s: %d left, want %d", row.name, len(got), row.want)
		}
		if g := got.At(max(row.keepFrom, 1)); g == nil {
			t.Errorf("%s: LSN %d belongs to no generation any more", row.name, row.keepFrom)
		}
	}
	pruned := full.Prune(end)
	first := pruned[0].First
	if !pruned.Valid(first-1, 12345) || pruned.Valid(first, 12345) || full.Valid(0, full[0].Tag()) {
		t.Error("below a pruned history the chain of CRCs decides, within it the tag")
	}
	c, k, err := Common(pruned, full, end, end-5)
	if err != nil || c != end-5 || k != len(pruned)-1 {
		t.Errorf("pruned against full: %d, %d, %v", c, k, err)
	}
	c, k, err = Common(full[:900], pruned, 8990, end)
	if err != nil || c != 8990 || k != 898 {
		t.Errorf("full against pruned: %d, %d, %v", c, k, err)
	}
}

// TestCommonModel compares Common with a search through the records themselves.
func TestCommonModel(t *testing.T) {
	rng := seeded(t)
	for range 20000 {
		shared, end := randomHistory(rng, nil, 0, 1)
		a, endA := randomHistory(rng, shared, end, 2)
		b, endB := randomHistory(rng, shared, end, 3)
		if rng.IntN(3) == 0 { // one that lacks some of the shared part
			endA = LSN(rng.IntN(int(endA) + 1))
			a = a.CutTo(endA)
		}
		c, _, err := Common(a, b, endA, endB)
		if err != nil {
			t.Fatalf("%v\n%v\n%v", err, a, b)
		}
		var want LSN
		for want < min(endA, endB) && a.At(want+1).ID == b.At(want+1).ID {
			want++
		}
		if c != want {
			t.Fatalf("common %d, want %d\nends %d, %d\n%v\n%v", c, want, endA, endB, a, b)
		}
	}
}

// randomHistory prolongs h, whose ids end in kind.
func randomHistory(rng *rand.Rand, h History, end LSN, kind byte) (History, LSN) {
	h = slices.Clip(h)
	for i := range rng.IntN(4) {
		g := gen(byte(i+1), end+1, "a1")
		g.ID[1] = kind
		if last := h.Last(); last != nil {
			g.Parent = last.ID
		}
		h = append(h, g)
		end += LSN(1 + rng.IntN(4))
	}
	if len(h) > 0 {
		end += LSN(rng.IntN(3))
	}
	return h, end
}

func TestMembers(t *testing.T) {
	set := gen(1, 1, "a1 c1").Set
	with := setWith(set, Member{"b", 7})
	if fmt.Sprint(with) != "[{a 1} {b 7} {c 1}]" || len(set) != 2 {
		t.Error(with, set)
	}
	if got := setWith(with, Member{"b", 8}); !setHas(got, Member{"b", 8}) || setHas(got, Member{"b", 7}) || !setHas(with, Member{"b", 7}) {
		t.Error(got, with)
	}
	if got := setWithout(with, "b"); !setEqual(got, set) || !setHasNode(with, "b") || setHasNode(got, "b") {
		t.Error(got, with)
	}
	if got := setWithout(set, "x"); !setEqual(got, set) {
		t.Error(got)
	}
	if got := setWith(nil, Member{"z", 1}); len(got) != 1 {
		t.Error(got)
	}
}

func TestNewID(t *testing.T) {
	id, err := NewID(bytes.NewReader(append(make([]byte, 16), bytes.Repeat([]byte{7}, 16)...)))
	if err != nil || id != ID(bytes.Repeat([]byte{7}, 16)) {
		t.Errorf("the zero id is none and is drawn again: %v, %v", id, err)
	}
	if _, err := NewID(bytes.NewReader(nil)); err == nil {
		t.Error("no randomness, no error")
	}
	if n, err := NewIncarnation(nil); err != nil || n == 0 {
		t.Error(n, err)
	}
}

func TestStateNames(t *testing.T) {
	for want, v := range map[string]interface {
		fmt.Stringer
		MarshalText() ([]byte, error)
	}{
		"Primary": Primary, "Secondary": Secondary,
		"Diskless": Diskless, "Attaching": Attaching, "Failed": Failed, "Inconsistent": Inconsistent,
		"Outdated": Outdated, "Consistent": Consistent, "UpToDate": UpToDate,
		"StandAlone": StandAlone, "Connecting": Connecting, "Connected": Connected,
		"Off": ReplOff, "Established": Established, "CatchUp": CatchUp, "SyncSource": SyncSource, "SyncTarget": SyncTarget,
		"C": ProtocolC, "B": ProtocolB,
	} {
		text, err := v.MarshalText()
		if err != nil || string(text) != want || v.String() != want {
			t.Errorf("%s: %s, %v, %q", want, v, err, text)
		}
		back := reflect.New(reflect.TypeOf(v))
		err = back.Interface().(interface{ UnmarshalText([]byte) error }).UnmarshalText(text)
		if err != nil || back.Elem().Interface() != v {
			t.Errorf("%s comes back as %v, %v", want, back.Elem(), err)
		}
	}
	var r Role
	if err := r.UnmarshalText([]byte("primary")); err == nil {
		t.Error("an unknown name was accepted")
	}
	if _, err := Role(9).MarshalText(); err == nil || Role(9).String() != "unknown(9)" {
		t.Error("an unknown value has a name")
	}
}
