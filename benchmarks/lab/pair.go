package main

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
)

//go:embed guest/*.sh
var scripts embed.FS

// ourName is the subject that the others are compared with.
const ourName = "lockstep"

// A subject is a mirror of two guests.
type subject struct {
	name   string
	script string   // in guest/
	env    []string // of the guests
	target float64  // the least ratio that is aimed for beside it; 0 for none
}

var subjects = []subject{
	{name: ourName, script: "lockstep"},
	{name: "lockstep-c4", script: "lockstep", env: []string{"CONNS=4"}},
	{name: "drbd", script: "drbd", target: 1},
	{name: "drbd-6433", script: "drbd", env: []string{"DISKOPT=al-extents 6433;"}, target: 1},
	{name: "drbd-67", script: "drbd", env: []string{"DISKOPT=al-extents 67;"}, target: 1},
	{name: "md", script: "md", target: 1},
}

// turnLimit is how long two guests may take, from their boot to their end.
const turnLimit = 5 * time.Minute

// guestEnv is the environment that the lab builds and boots its guest in: one with what
// the scripts call, in a cache of its own beside that of the tests.
func guestEnv() []string {
	dir := os.Getenv("LOCKSTEP_LAB_DIR")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = os.TempDir()
		}
		dir = filepath.Join(cache, "lockstep-lab")
	}
	return append(os.Environ(), "LOCKSTEP_LAB_DIR="+dir+"-bench", "LOCKSTEP_LAB_PACKAGES=fio jq drbd-utils mdadm nbdkit")
}

// measure boots the two guests and returns what node1 measured, by cell.
func (s *subject) measure(ctx context.Context, o options, versions map[string]string) (map[string]report.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	pair, err := os.MkdirTemp("", "lockstep-bench-lab-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(pair)
	var script []byte
	for _, name := range []string{"common", s.script} {
		b, err := scripts.ReadFile("guest/" + name + ".sh")
		if err != nil {
			return nil, err
		}
		script = append(script, b...)
	}
	// Both in one network namespace. Whatever becomes of node1, node2 is told.
	const both = `"$@" --node 2 --sh "$SCRIPT" >&2 & two=$!
"$@" --node 1 --sh "$SCRIPT"; status=$?
: >"$PAIR/over"; wait $two || [ $status != 0 ] || status=$?
exit $status`
	run := []string{filepath.Join(o.lab, "vm-run"), "-q", "--accel", o.accel, "-m", fmt.Sprint(o.mib + 768), "-t", fmt.Sprint(int(turnLimit.Seconds())),
		"--share", o.lab + ":/lab:ro", "--share", filepath.Dir(o.bin) + ":/ours:ro", "--share", pair + ":/pair"}
	for _, e := range slices.Concat([]string{fmt.Sprintf("SIZE=%d", o.mib), fmt.Sprintf("SECS=%d", o.secs), "DISKOPT=", "CONNS=1"}, s.env) {
		run = append(run, "--env", e)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(o.lab, "vm-net"), append([]string{"bash", "-c", both, "pair"}, run...)...)
	cmd.Env = append(guestEnv(), "SCRIPT="+string(script), "PAIR="+pair)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w\n%s%s", err, out.String(), lastLines(problems.String(), 20))
	}
	if err := equalSums(pair); err != nil {
		return nil, err
	}
	return parse(out.String(), versions)
}

// equalSums: the mirror that was measured did mirror.
func equalSums(pair string) error {
	first, err := os.ReadFile(filepath.Join(pair, "sum1"))
	if err != nil {
		return err
	}
	second, err := os.ReadFile(filepath.Join(pair, "sum2"))
	if err != nil {
		return err
	}
	if len(first) == 0 || !bytes.Equal(first, second) {
		return fmt.Errorf("the nodes differ: %q and %q", first, second)
	}
	return nil
}

// parse reads what a guest printed, the lines "version NAME TEXT" and "cell NAME IOPS
// MB/S P99", the last in microseconds.
func parse(out string, versions map[string]string) (map[string]report.Sample, error) {
	cells := make(map[string]report.Sample)
	for sc := bufio.NewScanner(strings.NewReader(out)); sc.Scan(); {
		line := sc.Text()
		if f := strings.SplitN(line, " ", 3); f[0] == "version" && len(f) == 3 {
			versions[f[1]] = f[2]
			continue
		}
		var name string
		var iops, mb, p99 float64
		if n, _ := fmt.Sscanf(line, "cell %s %f %f %f", &name, &iops, &mb, &p99); n == 4 {
			cells[name] = report.Sample{IOPS: iops, Bytes: mb * 1e6}
		}
	}
	for _, name := range cellNames {
		if cells[name].IOPS <= 0 {
			return nil, errors.New("the guest did not measure " + name + ":\n" + out)
		}
	}
	return cells, nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
