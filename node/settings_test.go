package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

// TestSettingsFormat1 holds the file that this program wrote and every later
// one must read.
func TestSettingsFormat1(t *testing.T) {
	const text = `{"format":1,"peers":[{"name":"beta","address":"127.0.0.1:7791"}],"pendingLimit":67108864,"peerTimeout":"3s","peerLatencyBudget":"500ms","resyncRate":1048576,"onIOError":"pass-on","minInSync":2,"onNoQuorum":"io-error","store":"/mnt/x","direct":true,"journal":"/mnt/j"}`
	want := Settings{Format: 1, Peers: []Peer{{"beta", "127.0.0.1:7791"}}, PendingLimit: 64 << 20, PeerTimeout: Duration(3 * time.Second), PeerLatencyBudget: Duration(500 * time.Millisecond), ResyncRate: 1 << 20, OnIOError: mirror.PassOn, MinInSync: 2, OnNoQuorum: mirror.IOError, Store: "/mnt/x", Direct: true, Journal: "/mnt/j"}
	dir := t.TempDir()
	if err := writeSettings(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := readSettings(dir)
	if err != nil {
		t.Fatal(err)
	}
	if back, _ := json.Marshal(got); string(back) != text {
		t.Errorf("got  %s\nwant %s", back, text)
	}
	if writeSettings(dir, want) == nil {
		t.Error("settings were overwritten")
	}
}

func TestSettingsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "not the JSON",
		"{":                                "not the JSON",
		`{"format":1} x`:                   "something follows it",
		`{"format":1,"peer":[]}`:           "unknown field",
		`{"format":2}`:                     "its format is 2, this program knows 1",
		`{}`:                               "its format is 0",
		`{"format":1,"peers":[7]}`:         "cannot unmarshal number",
		`{"format":1,"onIOError":"panic"}`: "is no on-io-error policy",
		`{"format":1,"onNoQuorum":"x"}`:    "is no on-no-quorum policy",
		strings.Repeat(" ", 70<<10):        "larger than 65536 bytes",
	} {
		path := filepath.Join(t.TempDir(), settingsFile)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSettings(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.30q: %v; want %q", text, err, want)
		}
	}
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte(`{"format":1,"peers":[{"name":"beta","address":"127.0.0.1:7791"}],"peerTimeout":"3s"}`))
	f.Add([]byte(`{"format":1,"peers":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseSettings(text)
		if err != nil {
			return
		}
		_ = s.check("alpha")
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseSettings(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}
