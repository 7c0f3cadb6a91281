package daemon

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

// FreeAddress returns a loopback address whose port nobody listens on. Somebody
// else may take it before it is used, which on a loopback is a rare accident.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
