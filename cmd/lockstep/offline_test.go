package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/node"
	"github.com/lockstep-storage/lockstep/target/nbd/nbdclient"
)

// stopped is a daemon's data directory in which ten blocks were written to
// volume "data", each flushed, before the daemon was stopped.
type stopped struct {
	config, replica string
	n               *node.Node
}

func newStopped(t *testing.T, r node.CreateRequest) *stopped {
	t.Helper()
	s := &stopped{}
	s.config, _ = writeConfig(t, "nbd: {listen: '127.0.0.1:0'}\n")
	s.start(t)
	cfg, err := config(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.replica = filepath.Join(cfg.DataDir, "volumes", "data")
	cl := node.NewClient(cfg.Admin)
	defer cl.Close()
	r.Name, r.Size, r.JournalSize = "data", 8<<20, 64<<20
	if st, err := cl.Create(t.Context(), r); err != nil || st.Problem != "" {
		t.Fatal(st.Problem, err)
	}
	if _, err := cl.Promote(t.Context(), "data", node.PromoteRequest{}); err != nil {
		t.Fatal(err)
	}
	nbd, err := nbdclient.Dial(t.Context(), "tcp", s.n.Status().NBD[0].Addr, "data")
	if err != nil {
		t.Fatal(err)
	}
	defer nbd.Close()
	for i := range int64(10) {
		if _, err := nbd.WriteAt(bytes.Repeat([]byte{0xa0 + byte(i)}, 4096), i*8192); err != nil {
			t.Fatal(err)
		}
		if err := nbd.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *stopped) start(t *testing.T) {
	t.Helper()
	cfg, err := config(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if s.n, err = node.Start(node.Options{Config: cfg, Version: "test"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop(t) })
}

func (s *stopped) stop(t *testing.T) {
	t.Helper()
	if s.n == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.n.Stop(ctx); err != nil {
		t.Error(err)
	}
	s.n = nil
}

// files are all of the replica's, by path.
func (s *stopped) files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(s.replica, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			text, readErr := os.ReadFile(path)
			all[path], err = string(text), readErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (s *stopped) flip(t *testing.T, name string, off int64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(s.replica, name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	s := newStopped(t, node.CreateRequest{})
	lines := [][]string{
		{"check", "--config", s.config}, {"check", "data", "-c", s.config}, {"check", "--dir", s.replica},
		{"journal", "dump", "data", "--config", s.config}, {"journal", "dump", "--dir", filepath.Join(s.replica, "journal")},
	}
	for _, line := range lines {
		if status, out, errOut := lockstep(line...); status != exitFailure || out != "" || !strings.Contains(errOut, "is in use by a daemon: stop it first") {
			t.Errorf("%q beside a daemon: %d %s%s", line, status, out, errOut)
		}
	}
	s.stop(t)
	before := s.files(t)
	for _, line := range lines[:3] {
		status, out, errOut := lockstep(line...)
		for _, want := range []string{"volume data in " + s.replica + ": sound\n", "  superblock    8.0 MiB on node alpha, ", "  journal       LSN 1 to ", "  write-intent  ", "  store         8.0 MiB in " + s.replica + "/data\n"} {
			if status != exitOK || errOut != "" || !strings.Contains(out, want) {
				t.Errorf("%q: status %d %s, lacks %q:\n%s", line, status, errOut, want, out)
			}
		}
		var got checked
		status, out, errOut = lockstep(append(line, "--json")...)
		if err := json.Unmarshal([]byte(out), &got); status != exitOK || err != nil || !got.Sound || len(got.Replicas) != 1 || got.Replicas[0].Journal.Records < 10 {
			t.Errorf("%q --json: %d %v %s\n%s", line, status, err, errOut, out)
		}
	}
	for _, line := range lines[3:] {
		if status, _, errOut := lockstep(line...); status != exitOK {
			t.Errorf("%q: %d %s", line, status, errOut)
		}
	}
	after := s.files(t)
	for path, text := range before {
		if after[path] != text {
			t.Errorf("%s was changed", path)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	s.start(t) // nothing holds it up
}

func TestCheckDamaged(t *testing.T) {
	s := newStopped(t, node.CreateRequest{})
	s.stop(t)
	offset, lsn := s.batch(t, 5)
	s.flip(t, "journal/0001.seg", offset+200)
	status, out, errOut := lockstep("check", "--config", s.config)
	want := fmt.Sprintf("  PROBLEM       %s/journal/0001.seg, offset %d, LSN %d: journal is damaged: ", s.replica, offset, lsn)
	if status != exitFailure || !strings.Contains(out, want) || !strings.Contains(out, ": DAMAGED\n") || !strings.Contains(errOut, `volume "data" is damaged`) {
		t.Errorf("status %d %s, lacks %q:\n%s", status, errOut, want, out)
	}
	var got checked
	status, out, _ = lockstep("check", "--json", "--dir", s.replica)
	if err := json.Unmarshal([]byte(out), &got); status != exitFailure || err != nil || got.Sound || got.Replicas[0].Problems[0].Offset != offset {
		t.Errorf("%d %v\n%s", status, err, out)
	}
	// The dump shows what is before the damage, and then says what it is.
	status, out, errOut = lockstep("journal", "dump", "--dir", s.replica, "--records")
	if n := strings.Count(out, "record "); status != exitFailure || n != int(lsn)-1 || !strings.HasSuffix(out, fmt.Sprintf("damaged after LSN %d\n", lsn-1)) || !strings.Contains(errOut, "journal is damaged: segment 0001.seg") {
		t.Errorf("status %d %s, %d records:\n%s", status, errOut, n, out)
	}
	for name, want := range map[string]string{"data": "the backing store cannot be read: no such file", "volume.json": "settings cannot be read"} {
		if err := os.Remove(filepath.Join(s.replica, name)); err != nil {
			t.Fatal(err)
		}
		if status, out, _ := lockstep("check", "data", "--config", s.config); status != exitFailure || !strings.Contains(out, want) {
			t.Errorf("status %d, lacks %q:\n%s", status, want, out)
		}
	}
}

// batch is where the batch that begins with, or holds, an LSN lies.
func (s *stopped) batch(t *testing.T, lsn int) (offset, first int64) {
	t.Helper()
	for _, l := range s.dump(t, "--from", fmt.Sprint(lsn), "--to", fmt.Sprint(lsn), "--batches") {
		if l["type"] == "batch" {
			return int64(l["offset"].(float64)), int64(l["first"].(float64))
		}
	}
	t.Fatalf("LSN %d is in no batch", lsn)
	return 0, 0
}

func (s *stopped) dump(t *testing.T, args ...string) (lines []map[string]any) {
	t.Helper()
	status, out, errOut := lockstep(append([]string{"journal", "dump", "data", "--json", "--config", s.config}, args...)...)
	if status != exitOK {
		t.Fatalf("status %d: %s", status, errOut)
	}
	for line := range strings.Lines(out) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		lines = append(lines, v)
	}
	return lines
}

func TestJournalDump(t *testing.T) {
	s := newStopped(t, node.CreateRequest{Journal: t.TempDir()})
	s.stop(t)
	types := map[any]int{}
	var writes []float64
	for _, l := range s.dump(t) {
		types[l["type"]]++
		if l["kind"] == "write" {
			writes = append(writes, l["at"].(float64))
		}
		if l["payload"] != nil {
			t.Errorf("a payload that was not asked for: %v", l)
		}
	}
	if types["segment"] != 1 || types["batch"] == 0 || types["record"] < 11 || types["end"] != 1 || len(types) != 4 {
		t.Errorf("%v", types)
	}
	if want := []float64{0, 8192, 16384, 24576, 32768, 40960, 49152, 57344, 65536, 73728}; !slices.Equal(writes, want) {
		t.Errorf("writes at %v", writes)
	}
	lines := s.dump(t, "--records", "--payload", "--from", "4", "--to", "5")
	if len(lines) != 3 || lines[0]["lsn"] != 4.0 || lines[1]["lsn"] != 5.0 || lines[2]["type"] != "end" ||
		lines[0]["payload"] != strings.Repeat(fmt.Sprintf("%02x", 0xa0+int(lines[0]["at"].(float64))/8192), 4096) {
		t.Errorf("%v", lines)
	}
	for _, l := range s.dump(t, "--batches") {
		if l["type"] != "batch" && l["type"] != "end" {
			t.Errorf("%v", l)
		}
	}
	status, out, _ := lockstep("journal", "dump", "--config", s.config, "--from", "4", "--to", "4", "--payload")
	for _, want := range []string{"segment 0001.seg  journal ", "\n  batch  ", "\n    record ", "LSN 4         write         at ", "\n00000000  a", "\nend at LSN "} {
		if status != exitOK || !strings.Contains(out, want) {
			t.Errorf("status %d, lacks %q:\n%s", status, want, out)
		}
	}
}

func TestOfflineRefusals(t *testing.T) {
	file, _ := writeConfig(t, "")
	for line, want := range map[string]string{
		"check --config " + file:                        "is no data directory: no such file or directory",
		"check --dir " + file:                           "is no directory",
		"check --dir /no/such":                          "directory /no/such: no such file or directory",
		"check data --dir /tmp":                         "takes a volume or --dir, not both",
		"check data more":                               `does not know what to do with "more"`,
		"check --bogus":                                 "not defined: -bogus",
		"journal bogus":                                 `does not know what to do with "bogus"`,
		"journal dump a b":                              `journal dump does not know what to do with "b"`,
		"journal dump a --from":                         "flag --from needs a value",
		"journal dump a --from 1 --to 0":                "--from 1 is past --to 0",
		"journal dump a --from x":                       `invalid value "x"`,
		"journal dump --dir " + t.TempDir() + " --json": "there is no journal in",
	} {
		status, _, errOut := lockstep(strings.Fields(line)...)
		if status == exitOK || !strings.Contains(errOut, want) {
			t.Errorf("lockstep %s: %d %s", line, status, errOut)
		}
	}
	// An empty directory is no replica.
	if status, out, _ := lockstep("check", "--dir", t.TempDir()); status != exitFailure || !strings.Contains(out, "this is no replica") {
		t.Error(status, out)
	}
}
