package scsi

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/target/memory"
)

// rng is seeded by LOCKSTEP_SEED or the clock, and logs which.
func rng(tb testing.TB) *rand.Rand {
	tb.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("LOCKSTEP_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			tb.Fatalf("LOCKSTEP_SEED=%q is no number", s)
		}
		seed = n
	}
	tb.Logf("LOCKSTEP_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

const ports = 3

// spc is what SPC-4 says of reservations, one table after the other, for ports
// 0 to 2. It shares nothing with the code.
type spc struct {
	key        [ports]uint64 // 0: not registered
	kind       byte          // 0: no persistent reservation
	holder     int           // of the types that have one
	legacy     int           // who has a RESERVE(6), -1: nobody
	generation uint32
	attentions [ports][]string
}

// Types in which all registrants hold the reservation, and in which all
// registrants have access.
func (m *spc) allHold() bool { return m.kind == 7 || m.kind == 8 }
func (m *spc) allPass() bool { return m.kind == 5 || m.kind == 6 || m.allHold() }

func (m *spc) registered() (n int) {
	for _, k := range m.key {
		if k != 0 {
			n++
		}
	}
	return n
}

func (m *spc) holds(i int) bool {
	return m.kind != 0 && (m.allHold() && m.key[i] != 0 || !m.allHold() && m.holder == i)
}

// allowed: the tables of commands in the presence of reservations.
func (m *spc) allowed(i int, class string) bool {
	if m.legacy >= 0 && m.legacy != i {
		return class == "always"
	}
	if m.kind == 0 || m.holds(i) || m.allPass() && m.key[i] != 0 {
		return true
	}
	exclusive := m.kind == 3 || m.kind == 6 || m.kind == 8
	switch class {
	case "write":
		return false
	case "read":
		return !exclusive
	}
	return true
}

// tell establishes a unit attention for all registrants but one.
func (m *spc) tell(but int, code string) {
	for i := range m.key {
		if i != but && m.key[i] != 0 {
			m.attention(i, code)
		}
	}
}

func (m *spc) attention(i int, code string) {
	if !slices.Contains(m.attentions[i], code) {
		m.attentions[i] = append(m.attentions[i], code)
	}
}

// endReservation: it is released by or with port i.
func (m *spc) endReservation(i int) {
	if m.allPass() {
		m.tell(i, "2a04")
	}
	m.kind = 0
}

// out is a PERSISTENT RESERVE OUT of port i; it says how it ends.
func (m *spc) out(i int, action, kind byte, key, newKey uint64) string {
	const conflict, good = "conflict", "good"
	if m.legacy >= 0 {
		return conflict
	}
	if action == 0 || action == 6 {
		if action == 0 && key != m.key[i] {
			return conflict
		}
		if m.key[i] == 0 && newKey == 0 {
			return good
		}
		held := m.holds(i)
		m.key[i] = newKey
		if newKey == 0 && held && (!m.allHold() || m.registered() == 0) {
			m.endReservation(i)
		}
		m.generation++
		return good
	}
	if m.key[i] == 0 || m.key[i] != key {
		return conflict
	}
	switch action {
	case 1: // RESERVE
		if m.kind != 0 && (!m.holds(i) || m.kind != kind) {
			return conflict
		}
		if m.kind == 0 {
			m.kind, m.holder = kind, i
		}
	case 2: // RELEASE
		if m.holds(i) {
			if m.kind != kind {
				return "5/2604"
			}
			m.endReservation(i)
		}
	case 3: // CLEAR
		m.tell(i, "2a03")
		m.key, m.kind = [ports]uint64{}, 0
		m.generation++
	case 4, 5: // PREEMPT, PREEMPT AND ABORT
		return m.preempt(i, kind, newKey)
	}
	return good
}

func (m *spc) preempt(i int, kind byte, victim uint64) string {
	takes := m.allHold() && victim == 0 || m.kind != 0 && !m.allHold() && m.key[m.holder] == victim
	if victim == 0 && !takes {
		return "5/2600"
	}
	removed := 0
	for j := range m.key {
		if m.key[j] == 0 || victim != 0 && m.key[j] != victim || takes && j == i {
			continue
		}
		m.key[j] = 0
		removed++
		if j != i {
			m.attention(j, "2a05")
		}
	}
	if removed == 0 && !takes {
		return "conflict"
	}
	if takes {
		if m.kind != kind {
			m.tell(i, "2a04")
		}
		m.kind, m.holder = kind, i
	} else if m.registered() == 0 {
		m.kind = 0
	}
	m.generation++
	return "good"
}

func outcomeText(r result) string {
	switch r.status {
	case Good:
		return "good"
	case ReservationConflict:
		return "conflict"
	}
	return r.sense
}

// accesses are commands, with what the standards' tables take them for.
var accesses = []struct {
	name, class, cdb string
	out              int
}{
	{"READ(10)", "read", "28 00 00000000 00 0001 00", 0},
	{"READ(6)", "read", "08 000000 01 00", 0},
	{"VERIFY(10)", "read", "2f 00 00000000 00 0001 00", 0},
	{"MODE SENSE(6)", "read", "1a 00 3f 00 ff 00", 0},
	{"WRITE(10)", "write", "2a 00 00000000 00 0001 00", 512},
	{"WRITE(16)", "write", "8a 00 0000000000000000 00000001 00 00", 512},
	{"WRITE SAME(16)", "write", "93 00 0000000000000000 00000001 00 00", 512},
	{"UNMAP", "write", "42 00 00000000 00 0000 00", 0},
	{"COMPARE AND WRITE", "write", "89 00 0000000000000000 000000 00 00 00", 0},
	{"SYNCHRONIZE CACHE(10)", "write", "35 00 00000000 00 0000 00", 0},
	{"MODE SELECT(6)", "write", "15 10 00 00 00 00", 0},
	{"TEST UNIT READY", "medium", "00 00 00 00 00 00", 0},
	{"READ CAPACITY(10)", "medium", "25 00 00000000 00 0000 00", 0},
	{"INQUIRY", "always", "12 00 00 00 ff 00", 0},
	{"REPORT LUNS", "always", "a0 00 00 000000 00000100 00 00", 0},
}

// A walk at random: three nexuses register, reserve, preempt and so on, and after
// each step everything that can be seen is as SPC-4 says.
func TestReservationsAgainstModel(t *testing.T) {
	r := rng(t)
	for range 20 {
		u, _ := newUnit(t, memory.Options{}, Config{})
		var n [ports]*Nexus
		for i, name := range []string{alice, bob, carol} {
			n[i] = attach(t, u, name)
		}
		m := spc{legacy: -1}
		var story []string
		for range 200 {
			i := r.IntN(ports)
			story = append(story, step(t, r, &m, n[i], i))
			for i := range n {
				compareWithModel(t, &m, n[i], i)
			}
			if t.Failed() {
				t.Fatalf("after %q", story)
			}
		}
	}
}

// step does one thing to a unit and to the model.
func step(t *testing.T, r *rand.Rand, m *spc, n *Nexus, i int) string {
	var what, want, got string
	switch r.IntN(12) {
	case 0:
		what, want = "RESERVE(6)", "conflict"
		if m.registered() == 0 && (m.legacy < 0 || m.legacy == i) {
			want, m.legacy = "good", i
		}
		got = outcomeText(run(n, "16 00 00 00 00 00"))
	case 1, 2, 3:
		what, want = "RELEASE(6)", "conflict"
		if m.registered() == 0 {
			want = "good"
			if m.legacy == i {
				m.legacy = -1
			}
		}
		got = outcomeText(run(n, "17 00 00 00 00 00"))
	default:
		action := byte(r.IntN(7))
		kind := []byte{1, 3, 5, 6, 7, 8}[r.IntN(6)]
		if m.kind != 0 && r.IntN(2) == 0 {
			kind = m.kind
		}
		key, newKey := m.key[i], uint64(r.IntN(4))
		if r.IntN(6) == 0 {
			key = uint64(r.IntN(4))
		}
		what = fmt.Sprintf("OUT %d, type %d, key %d, new %d", action, kind, key, newKey)
		want = m.out(i, action, kind, key, newKey)
		got = outcomeText(reserve(n, action, kind, key, newKey, 0))
	}
	what = fmt.Sprintf("%d: %s: %s", i, what, want)
	if got != want {
		t.Errorf("%s, got %s", what, got)
	}
	return what
}

func compareWithModel(t *testing.T, m *spc, n *Nexus, i int) {
	for _, code := range m.attentions[i] {
		if s := senseText(run(n, "03 00 00 00 ff 00").in); s != "6/"+code {
			t.Errorf("%d: unit attention %s, want %s", i, s, code)
		}
	}
	m.attentions[i] = nil
	if s := senseText(run(n, "03 00 00 00 ff 00").in); s != "0/0000" {
		t.Errorf("%d: unit attention %s, want none", i, s)
	}
	for _, a := range accesses {
		want := "good"
		if !m.allowed(i, a.class) {
			want = "conflict"
		}
		if got := outcomeText(run(n, a.cdb, make([]byte, a.out)...)); got != want {
			t.Errorf("%d: %s: %s, want %s", i, a.name, got, want)
		}
	}
	if m.legacy >= 0 && m.legacy != i {
		return
	}
	keys := run(n, "5e 00 00 00 00 00 00 01 00 00").in
	if len(keys) != 8+8*m.registered() || binary.BigEndian.Uint32(keys) != m.generation {
		t.Errorf("%d: READ KEYS gives %x; %d are registered, the generation is %d", i, keys, m.registered(), m.generation)
	}
	held := run(n, "5e 01 00 00 00 00 00 01 00 00").in
	switch {
	case m.kind == 0 && len(held) != 8:
		t.Errorf("%d: READ RESERVATION gives %x, there is none", i, held)
	case m.kind != 0:
		key := m.key[m.holder]
		if m.allHold() {
			key = 0
		}
		if len(held) != 24 || held[21] != m.kind || binary.BigEndian.Uint64(held[8:]) != key {
			t.Errorf("%d: READ RESERVATION gives %x, want type %d, key %d", i, held, m.kind, key)
		}
	}
}
