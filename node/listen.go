package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// listen opens a listener. what names it and key is the configuration's key for
// it, for the sentence that says what to do when it can't be opened. mode is a
// unix socket's.
func listen(a Address, what, key string, mode fs.FileMode) (net.Listener, error) {
	var lc net.ListenConfig
	if a.Network == "unix" {
		if err := clearStaleSocket(a.Addr); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		// The mode is given before the name exists, less the umask's bits, so
		// there is no moment at which somebody else could connect.
		lc.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			if ctl := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), uint32(mode)) }); ctl != nil {
				return ctl
			}
			return err
		}
	}
	l, err := lc.Listen(context.Background(), a.Network, a.Addr)
	switch {
	case err == nil && a.Network == "unix":
		if err := os.Chmod(a.Addr, mode); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: set the mode of %s: %w", what, a, bare(err)), l.Close())
		}
		return l, nil
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: address %s is in use by another program: stop that one, or set %s to another address", what, a, key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: address %s is none of this host's: set %s to one that is", what, a, key)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s: this user may not listen on %s: run as another one, or set %s to another address", what, a, key)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: directory %s does not exist: make it, or set %s to another path", what, filepath.Dir(a.Addr), key)
	}
	return nil, fmt.Errorf("%s: can't listen on %s (%s): %w", what, a, key, err)
}

// clearStaleSocket removes the socket that a killed daemon left behind: one
// that nobody answers on. Anything else of that name is left alone.
func clearStaleSocket(path string) error {
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s exists and is no socket: move it away, or choose another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("another daemon answers on %s: stop it, or choose another path", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("%s is there, and whether a daemon listens on it is unknown (%w): remove it if none does", path, err)
}
