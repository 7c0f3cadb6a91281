package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/node"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	i := 0
	for i < min(len(g), len(w)) && g[i] == w[i] {
		i++
	}
	t.Errorf("%s differs from line %d on (go test -update rewrites it)\n got  %q\n want %q", path, i+1, append(g, "")[i], append(w, "")[i])
}

// lockstep runs a command line, with nothing on its standard input.
func lockstep(args ...string) (status int, out, errOut string) { return lockstepIn("", args...) }

func lockstepIn(in string, args ...string) (status int, out, errOut string) {
	var o, e bytes.Buffer
	status = run(args, strings.NewReader(in), &o, &e)
	return status, o.String(), e.String()
}

// fakeDaemon answers the admin API with what a test tells it to, and notes what
// it was asked.
type fakeDaemon struct {
	socket string

	mu     sync.Mutex
	asked  []string
	refuse *node.Error
	// refusals is how often it refuses; 0 is always.
	refusals int
	status   node.Status
	volume   node.VolumeStatus
	plan     *mirror.SplitPlan

	snapshots []node.Snapshot
	rollback  mirror.SnapshotRollbackPlan
}

func startDaemon(t *testing.T) *fakeDaemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockstep-cli-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &fakeDaemon{socket: filepath.Join(dir, "s")}
	d.volume = node.VolumeStatus{Name: "data", Status: &mirror.Status{Volume: "data", Node: "alpha", Size: 1 << 30, Disk: mirror.UpToDate}}
	d.status = node.Status{Node: "alpha", Version: "test", NBD: []node.Address{{Network: "tcp", Addr: "127.0.0.1:10809"}},
		Peer: node.Address{Network: "tcp", Addr: "127.0.0.1:7790"}, Volumes: []node.VolumeStatus{d.volume}}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: d}
	done := make(chan struct{})
	go func() { s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
	return d
}

func (d *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
	var answer any = d.volume
	switch {
	case d.refuse != nil:
		w.WriteHeader(http.StatusConflict)
		answer = d.refuse
		if d.refusals--; d.refusals == 0 {
			d.refuse = nil
		}
	case strings.HasSuffix(r.URL.Path, "/split/resolve"):
		answer = d.plan
	case strings.HasSuffix(r.URL.Path, "/snapshots") && r.Method == http.MethodGet:
		answer = d.snapshots
	case strings.Contains(r.URL.Path, "/snapshots/") && strings.HasSuffix(r.URL.Path, "/rollback") && r.Method == http.MethodGet:
		answer = d.rollback
	case strings.Contains(r.URL.Path, "/snapshots"):
		answer = d.snapshots[0]
	case r.URL.Path == "/v1/status":
		answer = d.status
	}
	json.NewEncoder(w).Encode(answer)
}

// take gives what was asked since the last call.
func (d *fakeDaemon) take() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := strings.Join(d.asked, "; ")
	d.asked = nil
	return all
}
