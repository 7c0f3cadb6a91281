package peer

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"syscall"
	"time"
)

// A Server is a process that serves one export until it is closed.
type Server struct {
	Name    string
	Version string
	URI     string // of the export
	Addr    string // that it listens on
	PID     int
	Close   func() // may be called more than once
}

// Start starts a server and waits until it accepts connections on addr, of that
// network ("tcp" or "unix").
func Start(ctx context.Context, s Server, network, addr string, args ...string) (*Server, error) {
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	s.Addr, s.PID = addr, cmd.Process.Pid
	s.Close = func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
	for {
		c, err := net.Dial(network, addr)
		if err == nil {
			c.Close()
			return &s, nil
		}
		select {
		case <-ctx.Done():
			s.Close()
			return nil, fmt.Errorf("%s does not come up (%w): %s", s.Name, err, &stderr)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
