package world

import (
	"context"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"log/slog"
	"time"
)

// A trace is what happened, in words: a line for each event, with the virtual time and
// the node. Everything below the words (each operation of a disk, each piece that the
// network carries) goes into a digest, which every line ends with: two runs with the
// same trace did the same things to the byte.
type trace struct {
	out   io.Writer
	began time.Time
	hash  hash.Hash64
	line  []byte
}

func newTrace(out io.Writer) *trace {
	return &trace{out: out, began: time.Now(), hash: fnv.New64a()}
}

func (t *trace) since() time.Duration { return time.Since(t.began) }

// note puts a line into the trace.
func (t *trace) note(who, format string, args ...any) {
	t.line = fmt.Appendf(t.line[:0], "%11.6f %-4s ", t.since().Seconds(), who)
	t.line = fmt.Appendf(t.line, format, args...)
	t.line = fmt.Appendf(t.line, "  [%08x]\n", uint32(t.hash.Sum64()))
	_, _ = t.hash.Write(t.line)
	_, _ = t.out.Write(t.line)
}

// mix puts what is too small for a line into the digest.
func (t *trace) mix(args ...any) {
	t.line = fmt.Append(t.line[:0], args...)
	t.line = fmt.Append(t.line, t.since())
	_, _ = t.hash.Write(t.line)
}

func (t *trace) bytes(b []byte) { _, _ = t.hash.Write(b) }

// logger has a node's own log in the trace.
func (t *trace) logger(p *process) *slog.Logger {
	return slog.New(&logHandler{t: t, p: p})
}

type logHandler struct {
	t     *trace
	p     *process
	attrs string
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo && !h.p.dead
}

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	s := h.attrs
	r.Attrs(func(a slog.Attr) bool {
		s += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	h.t.note(h.p.node.name, "| %s%s", r.Message, s)
	h.p.w.coverLog(h.p, r.Message)
	return nil
}

func (h *logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	s := h.attrs
	for _, a := range as {
		s += fmt.Sprintf(" %s=%v", a.Key, a.Value)
	}
	return &logHandler{t: h.t, p: h.p, attrs: s}
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }
