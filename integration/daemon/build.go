package daemon

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Build compiles the daemon of this source tree into dir and returns the
// binary's path. root is the module's root; with race the daemon runs under the
// race detector. LOCKSTEP_BIN names a binary to take instead.
func Build(root, dir string, race bool) (string, error) {
	if bin := os.Getenv("LOCKSTEP_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	bin, err := filepath.Abs(filepath.Join(dir, "lockstep"))
	if err != nil {
		return "", err
	}
	cgo, args := "CGO_ENABLED=0", []string{"build", "-o", bin}
	if race {
		cgo, args = "CGO_ENABLED=1", append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/lockstep")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the daemon: %w\n%s", err, out)
	}
	return bin, nil
}

// FreeAddress returns a loopback address whose port nobody listens on. It lies
// below the ports that the kernel gives to outgoing connections, so that a
// daemon that was killed finds it free again. Another test may draw the same, by
// a rare accident.
func FreeAddress() (string, error) {
	const first, last = 10000, 30000
	for {
		addr := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first))
		l, err := net.Listen("tcp", addr)
		switch {
		case err == nil:
			return addr, l.Close()
		case !errors.Is(err, syscall.EADDRINUSE):
			return "", err
		}
	}
}
