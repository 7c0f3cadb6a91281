package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Config describes one node.
type Config struct {
	Bin  string // path of the lockstep binary
	Dir  string // the node's own directory; made if need be
	Name string
	NBD  string            // TCP address to export on; "" for the unix socket alone
	Peer string            // TCP address that peers connect to
	Dial map[string]string // other nodes' names and addresses
	// Prefix goes before every command that starts the daemon, such as
	// "ip netns exec NAME".
	Prefix []string
	// Extra is further YAML for the config file.
	Extra string
}

// A Node is one daemon: its directory, and its process while it runs.
type Node struct {
	Config
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// New writes the node's config file. Nothing runs yet.
func New(c Config) (*Node, error) {
	n := &Node{Config: c}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	var y strings.Builder
	listen := []string{fmt.Sprintf("%q", "unix:"+n.NBDSocket())}
	if c.NBD != "" {
		listen = append(listen, fmt.Sprintf("%q", c.NBD))
	}
	fmt.Fprintf(&y, "node: %s\ndata-dir: %s\nadmin: %s\n", c.Name, n.DataDir(), n.Socket())
	fmt.Fprintf(&y, "nbd: {listen: [%s]}\npeer: {listen: %q, allow-plaintext: true}\n", strings.Join(listen, ", "), c.Peer)
	fmt.Fprintf(&y, "nodes:\n")
	for name, addr := range c.Dial {
		fmt.Fprintf(&y, "  %s: %q\n", name, addr)
	}
	y.WriteString(c.Extra)
	return n, os.WriteFile(n.ConfigFile(), []byte(y.String()), 0o644)
}

// ConfigFile is the path of the file that `lockstep serve` reads.
func (n *Node) ConfigFile() string { return filepath.Join(n.Dir, "lockstep.yaml") }

// DataDir is where the node keeps its replicas.
func (n *Node) DataDir() string { return filepath.Join(n.Dir, "data") }

// Socket is the path of the admin API's socket.
func (n *Node) Socket() string { return filepath.Join(n.Dir, "admin.sock") }

// NBDSocket is the path of the unix socket that volumes are exported on, next
// to the TCP address. It is reached from every network namespace.
func (n *Node) NBDSocket() string { return filepath.Join(n.Dir, "nbd.sock") }

// LogFile collects what the daemon prints, over all its runs.
func (n *Node) LogFile() string { return filepath.Join(n.Dir, "log") }

// Replica is the path of the file that holds a volume's bytes.
func (n *Node) Replica(volume string) string {
	return filepath.Join(n.DataDir(), "volumes", volume, "data")
}

// Start starts the daemon and returns once it answers.
func (n *Node) Start(ctx context.Context) error {
	if n.Running() {
		return fmt.Errorf("start %s: it runs already", n.Name)
	}
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append(append([]string{}, n.Prefix...), n.Bin, "serve", "--config", n.ConfigFile())
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	// A test that is killed takes its daemons along. (The signal comes when the
	// starting thread ends; Go's threads end only by dying locked.)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	n.cmd, n.done = cmd, make(chan struct{})
	go func(done chan struct{}) {
		_ = cmd.Wait() // the state is read from cmd
		close(done)
	}(n.done)
	return n.awaitSocket(ctx)
}

// awaitSocket tries the admin socket until the daemon accepts, or has ended.
func (n *Node) awaitSocket(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("unix", n.Socket())
		if err == nil {
			return c.Close()
		}
		select {
		case <-n.done:
			return fmt.Errorf("%s ended while it started (%v):\n%s", n.Name, n.cmd.ProcessState, n.LogTail())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer on %s: %w\n%s", n.Name, n.Socket(), err, n.LogTail())
		case <-tick.C:
		}
	}
}

// Running reports whether the process lives.
func (n *Node) Running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// PID is the process's id while it runs, else 0.
func (n *Node) PID() int {
	if !n.Running() {
		return 0
	}
	return n.cmd.Process.Pid
}

// Kill ends the process with SIGKILL and returns when it is gone. It is an
// error if the process had ended by itself.
func (n *Node) Kill() error {
	if !n.Running() {
		return fmt.Errorf("kill %s: it does not run:\n%s", n.Name, n.LogTail())
	}
	if err := n.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", n.Name, err)
	}
	<-n.done
	if ws, ok := n.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		return fmt.Errorf("%s had ended by itself (%v):\n%s", n.Name, n.cmd.ProcessState, n.LogTail())
	}
	return nil
}

// Stop asks the daemon to end (SIGTERM) and demands exit status 0.
func (n *Node) Stop(ctx context.Context) error {
	if !n.Running() {
		return fmt.Errorf("stop %s: it does not run:\n%s", n.Name, n.LogTail())
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", n.Name, err)
	}
	select {
	case <-n.done:
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w\n%s", n.Name, ctx.Err(), n.LogTail())
	}
	if !n.cmd.ProcessState.Success() {
		return fmt.Errorf("stop %s: %v\n%s", n.Name, n.cmd.ProcessState, n.LogTail())
	}
	return nil
}

// Close makes sure that no process is left.
func (n *Node) Close() {
	if n.Running() {
		_ = n.cmd.Process.Kill() // it may have ended meanwhile
		<-n.done
	}
}

// CLI runs the command line against this node and returns what it printed.
func (n *Node) CLI(ctx context.Context, args ...string) (string, error) {
	return n.run(ctx, append([]string{"--socket", n.Socket()}, args...)...)
}

// Check runs `lockstep check` on this node's files; damage is an error. The node
// must not run.
func (n *Node) Check(ctx context.Context, flags ...string) (string, error) {
	return n.run(ctx, append([]string{"check", "--config", n.ConfigFile()}, flags...)...)
}

func (n *Node) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, n.Bin, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: lockstep %s: %w: %s", n.Name, strings.Join(args, " "),
			errors.Join(err, ctx.Err()), strings.TrimSpace(stderr.String()+out.String()))
	}
	return out.String(), nil
}

// LogTail is the end of what the daemon printed, for messages: the last errors
// first, which what came after them may have pushed out of it.
func (n *Node) LogTail() string {
	b, err := os.ReadFile(n.LogFile())
	if err != nil {
		return err.Error()
	}
	var tail strings.Builder
	lines := strings.SplitAfter(string(b), "\n")
	last := max(0, len(lines)-20)
	wrong := slices.DeleteFunc(slices.Clone(lines[:last]), func(line string) bool { return !strings.Contains(line, "level=ERROR") })
	for _, line := range append(wrong[max(0, len(wrong)-5):], lines[last:]...) {
		tail.WriteString(line[:min(len(line), 500)])
	}
	return tail.String()
}
