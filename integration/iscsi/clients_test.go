package iscsi

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/target/iscsi"
)

// TestQemu: qemu's client writes, compares and reads back.
func TestQemu(t *testing.T) {
	harness.NeedTools(t, "qemu-img", "iscsi-inq")
	portal, target := serve(t)
	url := "iscsi://" + portal + "/" + target + "/0"
	dir := t.TempDir()
	noise, back := filepath.Join(dir, "noise"), filepath.Join(dir, "back")
	want := make([]byte, size)
	rand.NewChaCha8([32]byte{7}).Read(want)
	clear(want[size/4 : size/2])
	if err := os.WriteFile(noise, want, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, true, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", noise, url)
	run(t, true, "qemu-img", "compare", "-f", "raw", "-F", "raw", noise, url)
	run(t, true, "qemu-img", "convert", "-f", "raw", "-O", "raw", url, back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what is read back is something else, or: %v", err)
	}
}

// TestCHAP: who must prove himself is let in with the right secret alone.
func TestCHAP(t *testing.T) {
	harness.NeedTools(t, "iscsi-inq")
	const name = "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq"
	portal, target := serve(t, iscsi.Initiator{Name: name, CHAP: &iscsi.Secret{Name: "tape", Secret: "twelve-bytes-and-more"}})
	unit := portal + "/" + target + "/0"
	run(t, false, "iscsi-inq", "iscsi://"+unit)
	run(t, false, "iscsi-inq", "iscsi://tape%twelve-bytes@"+unit)
	run(t, false, "iscsi-inq", "iscsi://disk%twelve-bytes-and-more@"+unit)
	if out := run(t, true, "iscsi-inq", "iscsi://tape%twelve-bytes-and-more@"+unit); !strings.Contains(out, "LOCKSTEP") {
		t.Errorf("it printed\n%s", out)
	}
}

// TestForeignInitiator: who is not named may not log in, and does not find the target.
func TestForeignInitiator(t *testing.T) {
	harness.NeedTools(t, "iscsi-inq", "iscsi-ls")
	portal, target := serve(t, iscsi.Initiator{Name: "iqn.2026-11.example:somebody"})
	run(t, false, "iscsi-inq", "iscsi://"+portal+"/"+target+"/0")
	if out := run(t, true, "iscsi-ls", "iscsi://"+portal); strings.Contains(out, target) {
		t.Errorf("iscsi-ls printed\n%s", out)
	}
}

// run runs a client, which is to succeed or to fail.
func run(t *testing.T, succeeds bool, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if (err == nil) != succeeds {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
