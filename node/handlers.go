package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lockstep-storage/lockstep/mirror"
)

// Handlers are commands that a node runs when something happens to a volume, by
// the names that DRBD gives them.
type Handlers struct {
	// Commands by the event's name, each for /bin/sh -c.
	Commands map[string]string
	// Timeout is how long one may run; nil is DefaultHandlerTimeout.
	Timeout *time.Duration
}

// DefaultHandlerTimeout is how long a handler may run unless it is set.
const DefaultHandlerTimeout = time.Minute

var handlerEvents = []mirror.EventKind{
	mirror.EventSplitBrain, mirror.EventBeforeResyncTarget, mirror.EventAfterResyncTarget,
	mirror.EventLocalIOError, mirror.EventOutOfSync, mirror.EventFencePeer, mirror.EventSlowPeer,
}

const (
	// maxHandlerOutput is how many bytes of a handler's output go to the log.
	maxHandlerOutput = 4 << 10
	// handlerGrace is how long a handler's output is waited for once it has ended:
	// what it started may go on, and hold it open.
	handlerGrace = time.Second
)

// handlers reads a mapping of handlers into h.
func (p *configParser) handlers(at string, h *Handlers) func(*yaml.Node) {
	of := fields{"timeout": p.duration(at+".timeout", &h.Timeout, time.Millisecond)}
	for _, kind := range handlerEvents {
		of[kind.String()] = p.parsed(at+"."+kind.String(), func(s string) error {
			if h.Commands == nil {
				h.Commands = map[string]string{}
			}
			h.Commands[kind.String()] = s
			return nil
		})
	}
	return p.section(at, of)
}

// over is h where o says nothing else.
func (o Handlers) over(h Handlers) Handlers {
	all := Handlers{Commands: map[string]string{}, Timeout: h.Timeout}
	for _, from := range []Handlers{h, o} {
		for event, command := range from.Commands {
			all.Commands[event] = command
		}
	}
	if o.Timeout != nil {
		all.Timeout = o.Timeout
	}
	return all
}

// A runner runs the handlers of all volumes.
type runner struct {
	log    *slog.Logger
	socket string // of the admin API
	ctx    context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

func newRunner(log *slog.Logger, socket string) *runner {
	r := &runner{log: log, socket: socket}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// close kills what runs, and waits for its end.
func (r *runner) close() {
	r.stop()
	r.wg.Wait()
}

// hooks are what a volume calls here: the handlers that are set for it.
func (n *Node) hooks(name string, peers []Peer) mirror.Hooks {
	q := &handlerQueue{runner: n.runner, handlers: n.cfg.Volumes[name].Handlers.over(n.cfg.Handlers), peers: peers}
	hooks := mirror.Hooks{Event: func(e mirror.Event) {
		if e.Kind == mirror.EventResync {
			n.orderResyncs()
			return
		}
		q.put(e)
	}}
	if q.command(mirror.EventBeforeResyncTarget) != "" {
		hooks.BeforeResyncTarget = func(ctx context.Context, e mirror.Event) error {
			_, err := q.run(ctx, e)
			return err
		}
	}
	if q.command(mirror.EventFencePeer) != "" {
		hooks.FencePeer = func(ctx context.Context, e mirror.Event) error { return fenced(q.run(ctx, e)) }
	}
	return hooks
}

// fenced judges how fence-peer ended, by the exit codes that DRBD gave its meaning.
func fenced(status int, err error) error {
	switch {
	case slices.Contains([]int{3, 4, 5, 7}, status):
		return nil
	case status == 6:
		return errors.New("fence-peer says (exit status 6) that the peer is Primary and goes on")
	case err == nil:
		return errors.New("fence-peer ended with exit status 0, which means nothing: 3 (the peer is inconsistent), 4 (outdated), 5 (down) or 7 (shot) are wanted")
	}
	return err
}

// A handlerQueue runs a volume's handlers one after another.
type handlerQueue struct {
	*runner
	handlers Handlers
	peers    []Peer

	mu      sync.Mutex
	waiting []mirror.Event
	running bool
}

// maxHandlers is how many may wait of a volume.
const maxHandlers = 64

func (q *handlerQueue) command(kind mirror.EventKind) string {
	return q.handlers.Commands[kind.String()]
}

// put has the event's handler run in its turn.
func (q *handlerQueue) put(e mirror.Event) {
	if q.command(e.Kind) == "" {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == maxHandlers {
		q.log.Error("too many handlers wait: one is not run", "volume", e.Volume, "handler", e.Kind)
		return
	}
	q.waiting = append(q.waiting, e)
	if !q.running && q.ctx.Err() == nil {
		q.running = true
		q.wg.Go(q.drain)
	}
}

func (q *handlerQueue) drain() {
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 || q.ctx.Err() != nil {
			q.running = false
			q.mu.Unlock()
			return
		}
		e := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.mu.Unlock()
		_, _ = q.run(q.ctx, e) // the log has it
	}
}

// run runs an event's handler to its end, or to its time limit, when it is killed
// with all of its process group. status is its exit status, -1 if it has none; err
// is nil for 0.
func (q *handlerQueue) run(ctx context.Context, e mirror.Event) (status int, err error) {
	limit := DefaultHandlerTimeout
	if q.handlers.Timeout != nil {
		limit = *q.handlers.Timeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(q.ctx, cancel)()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", q.command(e.Kind))
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), q.environment(e)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = handlerGrace
	var out boundedOutput
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended; what it started goes on
	}
	status = -1
	if cmd.ProcessState != nil {
		status = cmd.ProcessState.ExitCode()
	}
	took := time.Since(began).Round(time.Millisecond)
	log := q.log.With("volume", e.Volume, "handler", e.Kind, "peer", e.Peer, "took", took)
	if out.written > 0 {
		log = log.With("output", out.String())
	}
	switch {
	case err == nil:
		log.Info("handler ran")
		return status, nil
	case ctx.Err() == context.DeadlineExceeded:
		err = fmt.Errorf("handler %v was killed after %v", e.Kind, limit)
	case ctx.Err() != nil:
		err = fmt.Errorf("handler %v was killed: what it ran for is over", e.Kind)
	default:
		err = fmt.Errorf("handler %v: %w%s", e.Kind, err, out.lastLine())
	}
	log.Warn("handler failed", "error", err)
	return status, err
}

// environment is what a handler learns (docs/operations.md).
func (q *handlerQueue) environment(e mirror.Event) []string {
	address := ""
	for _, p := range q.peers {
		if p.Name == e.Peer {
			address = p.Address
		}
	}
	resumed := "0"
	if e.Resumed {
		resumed = "1"
	}
	return []string{
		"LOCKSTEP_EVENT=" + e.Kind.String(), "LOCKSTEP_VOLUME=" + e.Volume, "LOCKSTEP_NODE=" + e.Node,
		"LOCKSTEP_PEER=" + e.Peer, "LOCKSTEP_PEER_ADDRESS=" + address, "LOCKSTEP_ROLE=" + e.Role.String(),
		"LOCKSTEP_DISK=" + e.Disk.String(), "LOCKSTEP_REASON=" + strings.ReplaceAll(e.Reason, "\x00", ""),
		"LOCKSTEP_RESUMED=" + resumed, "LOCKSTEP_SOCKET=" + q.socket,
	}
}

// boundedOutput keeps the beginning of what is written to it.
type boundedOutput struct {
	kept    bytes.Buffer
	written int64
}

func (b *boundedOutput) Write(p []byte) (int, error) {
	b.written += int64(len(p))
	b.kept.Write(p[:min(len(p), maxHandlerOutput-b.kept.Len())])
	return len(p), nil
}

func (b *boundedOutput) String() string {
	s := strings.TrimSpace(strings.ToValidUTF8(b.kept.String(), "?"))
	if more := b.written - int64(b.kept.Len()); more > 0 {
		s += fmt.Sprintf(" … and %d bytes more", more)
	}
	return s
}

// lastLine is what a handler said at last, to stand behind why it failed.
func (b *boundedOutput) lastLine() string {
	s := strings.TrimSpace(strings.ToValidUTF8(b.kept.String(), "?"))
	s = s[strings.LastIndexByte(s, '\n')+1:]
	if s == "" {
		return ""
	}
	return ": " + s[:min(len(s), 200)]
}
