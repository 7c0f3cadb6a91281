//go:build !race

package iscsi

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

var update = flag.Bool("update", false, "write testdata/skipped.txt anew")

// wrongUpstream are tests of the suite that fail on a target that is right.
var wrongUpstream = map[string]string{
	// It asks for the status of block i+1 and wants the answer to begin with block i+8
	// where a physical block has 8 logical ones; SBC-3 5.5 has it begin with what was
	// asked for.
	"GetLBAStatus.UnmapSingle": "lba offset in first descriptor does not match request",
}

// TestSuite runs libiscsi's suite in one session after the other.
func TestSuite(t *testing.T) {
	harness.NeedTools(t, "iscsi-test-cu")
	portal, target := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "iscsi-test-cu", "--dataloss", "-t", "ALL", "iscsi://"+portal+"/"+target+"/0").CombinedOutput() // its status says that a test failed, and they are counted below
	if err := ctx.Err(); err != nil {
		t.Errorf("iscsi-test-cu: %v", err)
	}
	passed, failed, skipped := results(string(out))
	if len(passed) < 180 {
		t.Errorf("%d tests passed, of a suite of 230", len(passed))
	}
	for _, name := range failed {
		if wrongUpstream[name] == "" {
			t.Errorf("%s failed", name)
		}
	}
	for name := range wrongUpstream {
		if !slices.Contains(failed, name) {
			t.Errorf("%s did not fail: it is listed as wrong", name)
		}
	}
	const golden = "testdata/skipped.txt"
	got := strings.Join(skipped, "\n") + "\n"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || string(want) != got {
		t.Errorf("other tests are skipped than %s says (-update writes it):\n%s", golden, got)
	}
	t.Logf("%d passed, %d failed, of %d something is skipped", len(passed), len(failed), len(skipped))
	if t.Failed() {
		t.Logf("%s", out)
	}
}

var (
	suiteLine = regexp.MustCompile(`^Suite: (\S+)`)
	testLine  = regexp.MustCompile(`^  Test: (\S+) \.\.\.(.*)`)
	skipLine  = regexp.MustCompile(`\[SKIPPED\] (.*)`)
)

// results reads what the suite printed: each test's name, and of those that skip
// something the first reason beside it.
func results(out string) (passed, failed, skipped []string) {
	suite, test, reason := "", "", ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if m := suiteLine.FindStringSubmatch(line); m != nil {
			suite = m[1]
		}
		if m := testLine.FindStringSubmatch(line); m != nil {
			test, reason, line = suite+"."+m[1], "", m[2]
		}
		if test == "" {
			continue
		}
		if m := skipLine.FindStringSubmatch(line); m != nil && reason == "" {
			reason = strings.TrimSpace(m[1])
		}
		ended := strings.HasPrefix(line, "passed") || strings.HasPrefix(line, "FAILED")
		if !ended {
			continue
		}
		if strings.HasPrefix(line, "FAILED") {
			failed = append(failed, test)
		} else {
			passed = append(passed, test)
		}
		if reason != "" {
			skipped = append(skipped, test+": "+reason)
		}
		test = ""
	}
	return passed, failed, skipped
}
