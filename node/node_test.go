package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/mirror"
)

func TestSecondDaemonIsRefused(t *testing.T) {
	c := testConfig(t)
	startFakes(t, c)
	_, err := start(Options{Config: c}, (&fakes{}).engine())
	want := "data directory " + c.DataDir + " is in use by another daemon: stop it, or set data-dir to another directory"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other, _, _ := startFakes(t, testConfig(t))
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"data directory", func(c *Config) { c.DataDir = file + "/x" }, "can't be made or used: not a directory: give this user"},
		{"NBD port", func(c *Config) { c.NBD.Listen = []Address{boundAddress(other.bound.nbd[0])} }, "is in use by another program: stop that one, or set nbd.listen"},
		{"peer port", func(c *Config) { c.Peer.Listen = boundAddress(other.bound.peer) }, "is in use by another program: stop that one, or set peer.listen"},
		{"admin socket", func(c *Config) { c.Admin = other.cfg.Admin }, "another daemon answers on"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := testConfig(t)
			tc.change(&c)
			_, err := start(Options{Config: c}, (&fakes{}).engine())
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got  %v\nwant %s", err, tc.want)
			}
			if tc.name == "data directory" {
				return
			}
			// Nothing is held on to: the same directory works once that is mended.
			good := testConfig(t)
			good.DataDir, good.Admin = c.DataDir, adminSocket(c.DataDir)
			startFakes(t, good)
		})
	}
}

func TestRestartFindsTheVolumes(t *testing.T) {
	c := testConfig(t)
	n, f, cl := startFakes(t, c)
	if _, err := cl.Create(t.Context(), CreateRequest{Name: "data", Size: 1 << 20, PendingLimit: 8 << 20, Peers: []Peer{{"beta", ""}, {"gamma", "127.0.0.1:3"}}}); err != nil {
		t.Fatal(err)
	}
	made(t, cl, "other")
	stopNode(t, n)
	for name, v := range f.open {
		if !v.closed {
			t.Errorf("volume %q was not closed", name)
		}
	}
	slow, no := int64(1<<20), false
	seven, passOn, two, ioError := int64(7), mirror.PassOn, 2, mirror.IOError
	c.Volumes = map[string]Overrides{"data": {ResyncRate: &seven, OnIOError: &passOn, MinInSync: &two, OnNoQuorum: &ioError, Resync: ResyncOverrides{RateMin: &slow, Checksums: &no}}, "ghost": {}}
	_, f, cl = startFakes(t, c)
	st, err := cl.Status(t.Context())
	if err != nil || len(st.Volumes) != 3 {
		t.Fatalf("%+v, %v", st, err)
	}
	if p := st.Volumes[1].Problem; st.Volumes[1].Name != "ghost" || !strings.Contains(p, "make one with `lockstep create ghost --size SIZE`") {
		t.Error(p)
	}
	o := f.open["data"].o
	if o.PendingLimit != 8<<20 || o.ResyncRate != 7 || o.OnIOError != mirror.PassOn || o.MinInSync != 2 || o.OnNoQuorum != mirror.IOError || o.ResyncRateMin != slow || o.ResyncRateMax != 0 || !o.NoResyncChecksums || fmt.Sprint(o.Peers) != "[beta gamma]" {
		t.Errorf("%+v", o)
	}
	if got := fmt.Sprint(o.Dialer.(dialer).addresses); got != "map[beta:127.0.0.1:1 gamma:127.0.0.1:3]" {
		t.Error(got)
	}
	// A volume that only the config names can be created, and takes its settings.
	if st := made(t, cl, "ghost"); st.Problem != "" || st.Status == nil {
		t.Errorf("%+v", st)
	}
}

// TestInvariant10UnreadableSuperblock: it is an error that says so, never a
// fresh start, and the other volumes serve.
func TestInvariant10UnreadableSuperblock(t *testing.T) {
	c := testConfig(t)
	n, _, cl := startFakes(t, c)
	made(t, cl, "bad")
	made(t, cl, "good")
	stopNode(t, n)
	path := filepath.Join(c.DataDir, "volumes", "bad", "superblock")
	if err := os.WriteFile(path, []byte("goob"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, _, cl = startFakes(t, c)
	st, err := cl.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := st.Volumes[0].Problem
	for _, want := range []string{`volume "bad" is not open: the superblock in `, "Nothing on disk was overwritten.", "lockstep delete bad"} {
		if !strings.Contains(p, want) {
			t.Errorf("%q lacks %q", p, want)
		}
	}
	if st.Volumes[1].Status == nil {
		t.Errorf("the good one: %+v", st.Volumes[1])
	}
	_, err = cl.Promote(t.Context(), "bad", PromoteRequest{})
	wantError(t, err, CodeRefused, "is not open")
	stopNode(t, n)
	if text, err := os.ReadFile(path); string(text) != "goob" {
		t.Errorf("the superblock was changed: %q, %v", text, err)
	}
}

func TestCreateAndConfigMustAgree(t *testing.T) {
	c := testConfig(t)
	store := "/nowhere/at/all"
	c.Volumes = map[string]Overrides{"one": {Peers: []string{"beta"}}, "two": {Store: &store, Journal: &store}}
	_, f, cl := startFakes(t, c)
	_, err := cl.Create(t.Context(), CreateRequest{Name: "one", Size: 4096, Peers: []Peer{{"gamma", "h:1"}}})
	wantError(t, err, CodeBadRequest, "peers [gamma] were asked for, but the config file says [beta]")
	_, err = cl.Create(t.Context(), CreateRequest{Name: "two", Size: 4096, Store: "/elsewhere"})
	wantError(t, err, CodeBadRequest, "store /elsewhere was asked for, but the config file says /nowhere/at/all")
	_, err = cl.Create(t.Context(), CreateRequest{Name: "two", Size: 4096, Journal: "/elsewhere"})
	wantError(t, err, CodeBadRequest, "journal /elsewhere was asked for, but the config file says /nowhere/at/all")
	_, err = cl.Create(t.Context(), CreateRequest{Name: "three", Size: 4096, Peers: []Peer{{"gamma", "192.0.2.1:1"}}})
	wantError(t, err, CodeBadRequest, `peer "gamma": 192.0.2.1:1 is another host's, and without peer.tls`)
	made(t, cl, "one")
	if got := fmt.Sprint(f.open["one"].o.Peers); got != "[beta]" {
		t.Errorf("the peers are %s", got)
	}
}

// TestDeleteWithoutADisk: one that failed serves nobody and can be deleted, one
// that goes on without its disk serves clients.
func TestDeleteWithoutADisk(t *testing.T) {
	_, f, cl := startFakes(t, testConfig(t))
	made(t, cl, "data")
	v := f.open["data"]
	state := func(disk mirror.DiskState) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.st.Role, v.st.Disk, v.st.Failure = mirror.Primary, disk, "its disk failed"
	}
	state(mirror.Diskless)
	wantError(t, cl.Delete(t.Context(), "data"), CodeRefused, "run `lockstep demote data` first")
	state(mirror.Failed)
	if err := cl.Delete(t.Context(), "data"); err != nil {
		t.Error(err)
	}
}

func TestMissingStore(t *testing.T) {
	c := testConfig(t)
	n, _, cl := startFakes(t, c)
	made(t, cl, "data")
	stopNode(t, n)
	if err := os.Remove(filepath.Join(c.DataDir, "volumes", "data", "data")); err != nil {
		t.Fatal(err)
	}
	_, _, cl = startFakes(t, c)
	v, err := cl.Volume(t.Context(), "data")
	if err != nil || !strings.Contains(v.Problem, "its store "+c.DataDir+"/volumes/data/data is missing") {
		t.Errorf("%+v, %v", v, err)
	}
	if err := cl.Delete(t.Context(), "data"); err != nil {
		t.Error(err)
	}
	made(t, cl, "data")
}

func TestLeftoversAreRemoved(t *testing.T) {
	c := testConfig(t)
	volumes := filepath.Join(c.DataDir, "volumes")
	for _, d := range []string{".data.creating", ".old.deleting", ".precious", "not a volume"} {
		if err := os.MkdirAll(filepath.Join(volumes, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	startFakes(t, c)
	entries, err := os.ReadDir(volumes)
	if err != nil || len(entries) != 2 || entries[0].Name() != ".precious" || entries[1].Name() != "not a volume" {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestCreateThatFailsLeavesNothing(t *testing.T) {
	c := testConfig(t)
	_, f, cl := startFakes(t, c)
	f.createErr = errors.New("the disk is on fire")
	path := filepath.Join(t.TempDir(), "store")
	_, err := cl.Create(t.Context(), CreateRequest{Name: "data", Size: 1 << 20, Store: path})
	wantError(t, err, CodeFailed, "the disk is on fire")
	for _, d := range []string{filepath.Join(c.DataDir, "volumes"), filepath.Dir(path)} {
		if entries, err := os.ReadDir(d); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v, %v", d, entries, err)
		}
	}
	f.createErr = nil
	if _, err := cl.Create(t.Context(), CreateRequest{Name: "data", Size: 1 << 20, Store: path}); err != nil {
		t.Fatal(err)
	}
	_, err = cl.Create(t.Context(), CreateRequest{Name: "data", Size: 1 << 20})
	wantError(t, err, CodeExists, `volume "data" exists on node "alpha" already`)
	if err := cl.Delete(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the deleted volume's store: %v", err)
	}
}

func TestStopTwice(t *testing.T) {
	c := testConfig(t)
	n, f, cl := startFakes(t, c)
	made(t, cl, "data")
	stopNode(t, n)
	stopNode(t, n)
	if !f.open["data"].closed {
		t.Error("the volume was not closed")
	}
	if _, err := os.Stat(c.Admin); !os.IsNotExist(err) {
		t.Errorf("the admin socket is still there: %v", err)
	}
	_, err := n.create(CreateRequest{Name: "x", Size: 4096})
	wantError(t, err, CodeStopping, "shutting down")
}
