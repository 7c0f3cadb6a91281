package kernel

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// A lab is a network namespace in which guests reach servers at 10.0.2.2.
type lab struct {
	t      *testing.T
	dir    string   // integration/lab
	prefix []string // runs a command in the namespace
}

const hostAddress = "10.0.2.2"

// newLab builds the guest, if need be, and makes the namespace, which lives as
// long as the test.
func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Getenv("LOCKSTEP_LAB") != "1" {
		t.Skip("the kernel lab downloads a guest: make lab runs this test")
	}
	harness.NeedRoot(t)
	harness.NeedTools(t, "unshare", "nsenter", "ip", "mke2fs", "xz", "dpkg-deb", "gcc")
	dir, err := filepath.Abs("../lab")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: dir}
	if out, err := exec.Command(filepath.Join(dir, "build")).CombinedOutput(); err != nil {
		t.Fatalf("the guest could not be built: %v\n%s", err, out)
	}
	holder := exec.Command(filepath.Join(dir, "vm-net"), "sh", "-c", "echo ready; exec sleep 86400")
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	holder.Stderr = os.Stderr
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the namespace was not made: %v %q", err, line)
	}
	l.prefix = []string{"nsenter", "-t", strconv.Itoa(holder.Process.Pid), "-n", "env", "LOCKSTEP_LAB_NETNS=1"}
	return l
}

// command runs a host's program in the namespace.
func (l *lab) command(args ...string) *exec.Cmd {
	return exec.Command(l.prefix[0], append(l.prefix[1:], args...)...)
}

// pair starts two nodes in the namespace.
func (l *lab) pair() *harness.Pair {
	return harness.NewPair(l.t, harness.Options{Size: 256 << 20, PairOptions: daemon.PairOptions{
		Places: map[string]daemon.Place{
			"alpha": {Prefix: l.prefix, NBD: hostAddress + ":10809", Peer: hostAddress + ":7790"},
			"beta":  {Prefix: l.prefix, NBD: hostAddress + ":10810", Peer: hostAddress + ":7791"},
		},
	}})
}

// A guest runs one command as root.
type guest struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; the rest is to be read then
	err  error
	out  bytes.Buffer
}

// boot starts a guest that runs a command and ends. It sees shared at the same
// path, read-write, and integration/lab at /lab.
func (l *lab) boot(shared string, args ...string) *guest {
	l.t.Helper()
	run := []string{filepath.Join(l.dir, "vm-run"), "--timeout", "200", "--share", l.dir + ":/lab:ro", "--share", shared, "--"}
	cmd := l.command(append(run, args...)...)
	cmd.Dir = shared
	g := &guest{t: l.t, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &g.out, &g.out
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		g.err = cmd.Wait()
		close(g.done)
	}()
	l.t.Cleanup(g.end)
	return g
}

// wait returns when the guest has ended, which it must with status 0.
func (g *guest) wait() {
	g.t.Helper()
	<-g.done // vm-run has a time limit
	if g.err != nil {
		g.t.Fatalf("the guest's command failed: %v\n%s", g.err, &g.out)
	}
	g.t.Logf("the guest says:\n%s", &g.out)
}

// end ends the guest if it still runs.
func (g *guest) end() {
	select {
	case <-g.done:
	default:
		_ = g.cmd.Process.Signal(syscall.SIGTERM) // it may have ended meanwhile
		<-g.done
	}
}
