package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

// logged is a log that can be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A handlerRig is a volume's handlers without a volume; dir is for what they leave.
type handlerRig struct {
	*handlerQueue
	log *logged
	dir string
}

func newHandlerRig(t *testing.T, timeout time.Duration, commands map[string]string) *handlerRig {
	r := &handlerRig{log: &logged{}, dir: t.TempDir()}
	runner := newRunner(slog.New(slog.NewTextHandler(r.log, nil)), "/run/x.sock")
	t.Cleanup(runner.close)
	t.Setenv("DIR", r.dir)
	r.handlerQueue = &handlerQueue{runner: runner, handlers: Handlers{Commands: commands, Timeout: &timeout}, peers: []Peer{{"beta", "10.0.0.2:7790"}}}
	return r
}

// left is what a handler wrote to a file; it waits for it.
func (r *handlerRig) left(t *testing.T, name string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(r.dir, name))
		if err == nil && bytes.HasSuffix(text, []byte("\n")) {
			return string(text)
		}
		if time.Now().After(deadline) {
			t.Fatalf("no handler wrote %s: %v\n%s", name, err, r.log)
		}
	}
}

// alive reports whether a process runs.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestHandlerEnvironment(t *testing.T) {
	r := newHandlerRig(t, time.Minute, map[string]string{"split-brain": `env | grep ^LOCKSTEP_ | sort > "$DIR/env.tmp"; pwd >> "$DIR/env.tmp"; mv "$DIR/env.tmp" "$DIR/env"`})
	r.put(mirror.Event{Kind: mirror.EventOutOfSync, Volume: "data"}) // it has no handler
	r.put(mirror.Event{Kind: mirror.EventSplitBrain, Volume: "data", Node: "alpha", Peer: "beta", Role: mirror.Primary, Disk: mirror.UpToDate, Reason: "it's `split`; $HOME", Resumed: true})
	want := "LOCKSTEP_DISK=UpToDate\nLOCKSTEP_EVENT=split-brain\nLOCKSTEP_NODE=alpha\nLOCKSTEP_PEER=beta\nLOCKSTEP_PEER_ADDRESS=10.0.0.2:7790\n" +
		"LOCKSTEP_REASON=it's `split`; $HOME\nLOCKSTEP_RESUMED=1\nLOCKSTEP_ROLE=Primary\nLOCKSTEP_SOCKET=/run/x.sock\nLOCKSTEP_VOLUME=data\n/\n"
	if got := r.left(t, "env"); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// Handlers of a volume run one after another, whatever becomes of each.
func TestHandlersInOrder(t *testing.T) {
	r := newHandlerRig(t, time.Minute, map[string]string{
		"split-brain": `sleep 0.2; echo "$LOCKSTEP_EVENT" >> "$DIR/list"; exit 1`, "out-of-sync": `echo "$LOCKSTEP_EVENT" >> "$DIR/list"`,
		"local-io-error": `echo "$LOCKSTEP_EVENT" >> "$DIR/list"; echo > "$DIR/end"`,
	})
	for _, kind := range []mirror.EventKind{mirror.EventSplitBrain, mirror.EventOutOfSync, mirror.EventSplitBrain, mirror.EventLocalIOError} {
		r.put(mirror.Event{Kind: kind})
	}
	r.left(t, "end")
	if got := strings.Fields(r.left(t, "list")); fmt.Sprint(got) != "[split-brain out-of-sync split-brain local-io-error]" {
		t.Error(got)
	}
}

// A handler that hangs is killed with all that it started; one that leaves
// something running that holds its output open is not waited for.
func TestHandlerThatHangs(t *testing.T) {
	r := newHandlerRig(t, 300*time.Millisecond, map[string]string{
		"fence-peer":  `trap '' TERM; sleep 1000 & echo $! > "$DIR/pid"; wait`,
		"split-brain": `sleep 1000 & echo $! > "$DIR/left"`,
	})
	status, err := r.run(t.Context(), mirror.Event{Kind: mirror.EventFencePeer})
	if status == 0 || err == nil || !strings.Contains(err.Error(), "killed after 300ms") {
		t.Errorf("%d, %v", status, err)
	}
	pid := func(name string) int {
		pid, err := strconv.Atoi(strings.TrimSpace(r.left(t, name)))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	for deadline := time.Now().Add(20 * time.Second); alive(pid("pid")); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what the handler started lives on")
		}
	}
	began := time.Now()
	long := time.Minute
	r.handlers.Timeout = &long
	if status, err := r.run(t.Context(), mirror.Event{Kind: mirror.EventSplitBrain}); status != 0 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it was waited for, for %v", took)
	}
	_ = syscall.Kill(pid("left"), syscall.SIGKILL) // it is ours
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := r.run(ctx, mirror.Event{Kind: mirror.EventFencePeer}); err == nil || !strings.Contains(err.Error(), "what it ran for is over") {
		t.Errorf("%v", err)
	}
}

// What a handler prints is in the log, bounded, and stands behind its failure.
func TestHandlerOutput(t *testing.T) {
	r := newHandlerRig(t, time.Minute, map[string]string{
		"split-brain":          `echo begin; head -c 1000000 /dev/zero | tr '\0' x; echo "never seen"`,
		"before-resync-target": `echo one; echo "no snapshot: disk full" >&2; exit 9`,
		"after-resync-target":  `kill -9 $$`,
		"out-of-sync":          `/nonexistent/command`,
		"local-io-error":       `printf '\377\n'`,
	})
	if status, err := r.run(t.Context(), mirror.Event{Kind: mirror.EventSplitBrain}); status != 0 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
	if got := r.log.String(); !strings.Contains(got, "begin") || !strings.Contains(got, "bytes more") || strings.Contains(got, "never seen") || len(got) > 2*maxHandlerOutput {
		t.Errorf("%d bytes are in the log: %.200s", len(got), got)
	}
	status, err := r.run(t.Context(), mirror.Event{Kind: mirror.EventBeforeResyncTarget})
	if status != 9 || err == nil || err.Error() != "handler before-resync-target: exit status 9: no snapshot: disk full" {
		t.Errorf("%d, %v", status, err)
	}
	if status, err := r.run(t.Context(), mirror.Event{Kind: mirror.EventAfterResyncTarget}); status != -1 || err == nil {
		t.Errorf("killed: %d, %v", status, err)
	}
	if status, err := r.run(t.Context(), mirror.Event{Kind: mirror.EventOutOfSync}); status != 127 || err == nil {
		t.Errorf("no such command: %d, %v", status, err)
	}
	if status, err := r.run(t.Context(), mirror.Event{Kind: mirror.EventLocalIOError}); status != 0 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
}

func TestFencePeerStatus(t *testing.T) {
	for status, want := range map[int]string{
		0: "means nothing", 1: "exit status 1", 2: "exit status 2", 3: "", 4: "", 5: "", 6: "that the peer is Primary", 7: "", 8: "exit status 8",
	} {
		r := newHandlerRig(t, time.Minute, map[string]string{"fence-peer": fmt.Sprintf("exit %d", status)})
		err := fenced(r.run(t.Context(), mirror.Event{Kind: mirror.EventFencePeer}))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("exit status %d: %v", status, err)
		}
	}
}

// A volume has the hooks that it needs, and a handler that hangs neither holds
// the order of resyncs up nor the daemon's end.
func TestHandlersOfAVolume(t *testing.T) {
	c := testConfig(t)
	dir := t.TempDir()
	c.Handlers.Commands = map[string]string{"split-brain": fmt.Sprintf("echo > %s/began; sleep 1000", dir), "fence-peer": "exit 4"}
	c.Volumes = map[string]Overrides{"data": {Handlers: Handlers{Commands: map[string]string{"before-resync-target": "exit 1"}}}, "next": {Resync: ResyncOverrides{After: "data"}}}
	n, f, cl := startFakes(t, c)
	made(t, cl, "data", Peer{Name: "beta", Address: "127.0.0.1:1"})
	made(t, cl, "next")
	hooks := f.open["data"].o.Hooks
	if err := hooks.BeforeResyncTarget(t.Context(), mirror.Event{Kind: mirror.EventBeforeResyncTarget}); err == nil {
		t.Error("a resync was not refused")
	}
	if err := hooks.FencePeer(t.Context(), mirror.Event{Kind: mirror.EventFencePeer}); err != nil {
		t.Error(err)
	}
	if other := f.open["next"].o.Hooks; other.BeforeResyncTarget != nil || other.FencePeer == nil {
		t.Error("the other volume has not the hooks that it should have")
	}
	hooks.Event(mirror.Event{Kind: mirror.EventSplitBrain, Volume: "data"})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(dir + "/began"); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("the handler does not run")
		}
	}
	v := f.open["data"]
	v.mu.Lock()
	v.st.Peers[0].Replication = mirror.SyncTarget
	v.mu.Unlock()
	hooks.Event(mirror.Event{Kind: mirror.EventResync, Volume: "data"})
	if got := f.open["next"].Status().ResyncAfter; got != "data" {
		t.Errorf("next waits for %q", got)
	}
	began := time.Now()
	stopNode(t, n)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the daemon stopped in %v", took)
	}
}
