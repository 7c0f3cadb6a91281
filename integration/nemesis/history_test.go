package nemesis

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// An opKind is what a client, or the operator who forces, does to a block.
type opKind uint8

const (
	opRead opKind = iota
	opWrite
	// opForce: a node was forced to be Primary that is not known to have everything;
	// the block may fall back to any content that it had before.
	opForce
)

// never is the return time of an operation whose answer did not come.
const never = math.MaxInt64

// An op is one operation on one block. Times are nanoseconds since the round began.
type op struct {
	kind         opKind
	value        uint64 // written, or read
	client       int
	node         string // that answered it
	call, answer int64
	durable      bool // a write with FUA
}

func (o op) String() string {
	until := "never"
	if o.answer != never {
		until = time.Duration(o.answer).Round(time.Microsecond).String()
	}
	what := map[opKind]string{opRead: "read ", opWrite: "write", opForce: "force"}[o.kind]
	return fmt.Sprintf("%12v to %12s  client %d on %-5s  %s %d", time.Duration(o.call).Round(time.Microsecond), until, o.client, o.node, what, o.value)
}

// A flush is one that was answered.
type flush struct{ call, answer int64 }

// A history is what happened to each block in one round.
type history struct {
	began time.Time

	mu      sync.Mutex
	initial []uint64 // what each block held
	ops     [][]op   // by block
	flushes []flush
	forces  int
}

func newHistory(initial []uint64) *history {
	return &history{began: time.Now(), initial: slices.Clone(initial), ops: make([][]op, len(initial))}
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) add(block int, o op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops[block] = append(h.ops[block], o)
}

func (h *history) addFlush(f flush) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flushes = append(h.flushes, f)
}

// addForce notes that between call and answer anything may have been lost.
func (h *history) addForce(node string, call, answer int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forces++
	for b := range h.ops {
		h.ops[b] = append(h.ops[b], op{kind: opForce, client: clients, node: node, call: call, answer: answer})
	}
}

// A chain is the contents that a block had, the newest last; it is the state of the
// model of a block, as a string so that states can be compared.
type chain string

func link(before chain, value uint64) chain { return before + chain(fmt.Sprintf("%d ", value)) }

func (c chain) newest() string {
	all := strings.Fields(string(c))
	return all[len(all)-1]
}

// fallBacks are what c may become by a force: any content that the block ever had is
// its newest, what an earlier force took away among it, for a later one may be of a
// node that had it.
func (c chain) fallBacks() (list []any) {
	seen := map[string]bool{}
	for _, v := range strings.Fields(string(c)) {
		if !seen[v] {
			seen[v] = true
			list = append(list, c+chain(v+" "))
		}
	}
	return list
}

// register is the model of a block: it holds what was written last, and an opForce
// takes it back to anything before. Without one in the history there is nothing to
// remember, and the state is short.
func register(initial uint64, forced bool) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{link("", initial)} },
		Step: func(state, input, _ any) []any {
			c, o := state.(chain), input.(op)
			switch o.kind {
			case opForce:
				return c.fallBacks()
			case opWrite:
				if !forced {
					c = ""
				}
				return []any{link(c, o.value)}
			default:
				if c.newest() != fmt.Sprint(o.value) {
					return nil
				}
				return []any{c}
			}
		},
		Equal: func(a, b any) bool { return a == b },
	}
	return m.ToModel()
}

// judge says of each block whether its history is linearizable: nil, or what is wrong.
func (h *history) judge(limit time.Duration) []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	const most = 3 // histories that are printed
	var errs []error
	for block, ops := range h.ops {
		history := make([]porcupine.Operation, len(ops))
		for i, o := range ops {
			history[i] = porcupine.Operation{ClientId: o.client, Input: o, Call: o.call, Return: o.answer}
		}
		switch porcupine.CheckOperationsTimeout(register(h.initial[block], h.forces > 0), history, limit) {
		case porcupine.Illegal:
			if len(errs) >= most {
				errs = append(errs, fmt.Errorf("block %d: its history is not linearizable%s", block, h.lostWrite(ops)))
				continue
			}
			errs = append(errs, fmt.Errorf("block %d: its history is not linearizable%s; it began with %d:\n%s",
				block, h.lostWrite(ops), h.initial[block], list(ops)))
		case porcupine.Unknown:
			errs = append(errs, fmt.Errorf("block %d: its history of %d operations could not be judged in %v", block, len(ops), limit))
		}
	}
	return errs
}

// lostWrite says, for people, whether the last write before the last read is the
// one that is missing, and whether a flush had covered it.
func (h *history) lostWrite(ops []op) string {
	var last, read *op
	for i := range ops {
		o := &ops[i]
		if o.kind == opWrite && o.answer != never && (last == nil || o.answer > last.answer) {
			last = o
		}
		if o.kind == opRead && (read == nil || o.call > read.call) {
			read = o
		}
	}
	if last == nil || read == nil || read.call < last.answer || read.value == last.value {
		return ""
	}
	covered := last.durable || slices.ContainsFunc(h.flushes, func(f flush) bool { return f.call > last.answer })
	return fmt.Sprintf(" (the last acknowledged write is %d, flushed: %v; the last read gave %d)", last.value, covered, read.value)
}

func list(ops []op) string {
	sorted := slices.Clone(ops)
	slices.SortFunc(sorted, func(a, b op) int { return int(a.call - b.call) })
	var b strings.Builder
	for _, o := range sorted {
		fmt.Fprintln(&b, " ", o)
	}
	return b.String()
}

// A judge that finds nothing proves nothing.
func TestJudgeSeesWhatIsWrong(t *testing.T) {
	w := func(client int, value uint64, call, answer int64) op {
		return op{kind: opWrite, client: client, value: value, call: call, answer: answer}
	}
	r := func(client int, value uint64, call, answer int64) op {
		return op{kind: opRead, client: client, value: value, call: call, answer: answer}
	}
	force := op{kind: opForce, client: clients, call: 30, answer: 31}
	force2 := op{kind: opForce, client: clients, call: 50, answer: 51}
	tests := []struct {
		name  string
		ops   []op
		legal bool
	}{
		{"a write is read", []op{w(0, 7, 1, 2), r(1, 7, 3, 4)}, true},
		{"a write is lost", []op{w(0, 7, 1, 2), r(1, 1, 3, 4)}, false},
		{"a read beside a write", []op{w(0, 7, 1, 9), r(1, 1, 3, 4), r(1, 7, 5, 6)}, true},
		{"reads go back", []op{w(0, 7, 1, 9), r(1, 7, 3, 4), r(1, 1, 5, 6)}, false},
		{"an unanswered write is there", []op{w(0, 7, 1, never), r(1, 7, 3, 4)}, true},
		{"an unanswered write is not there", []op{w(0, 7, 1, never), r(1, 1, 3, 4)}, true},
		{"an unanswered write comes late", []op{w(0, 7, 1, never), r(1, 1, 3, 4), r(1, 7, 5, 6)}, true},
		{"an unanswered write comes and goes", []op{w(0, 7, 1, never), r(1, 7, 3, 4), r(1, 1, 5, 6)}, false},
		{"what nobody wrote", []op{w(0, 7, 1, 2), r(1, 8, 3, 4)}, false},
		{"a force loses a write", []op{w(0, 7, 1, 2), w(0, 8, 3, 4), force, r(1, 7, 40, 41)}, true},
		{"a force loses two", []op{w(0, 7, 1, 2), w(0, 8, 3, 4), force, r(1, 1, 40, 41)}, true},
		{"a write is lost after a force", []op{w(0, 7, 1, 2), force, w(0, 8, 40, 41), r(1, 7, 42, 43)}, false},
		{"a write is lost before a force", []op{w(0, 7, 1, 2), r(1, 1, 3, 4), force}, false},
		{"what a force lost is back after another", []op{w(0, 7, 1, 2), force, r(1, 1, 40, 41), force2, r(1, 7, 60, 61)}, true},
		{"what a force lost comes back", []op{w(0, 7, 1, 2), force, r(1, 1, 40, 41), r(1, 7, 42, 43)}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHistory([]uint64{1})
			for _, o := range tt.ops {
				if o.kind == opForce {
					h.addForce(o.node, o.call, o.answer)
				} else {
					h.add(0, o)
				}
			}
			if errs := h.judge(time.Minute); (len(errs) == 0) != tt.legal {
				t.Errorf("judged %v, want legal: %v", errs, tt.legal)
			}
		})
	}
}
