package node

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSocketPath is what the kernel takes for a unix socket, without the final
// zero byte.
const maxSocketPath = 107

// Address is where to listen: a TCP HOST:PORT, or a unix socket's path.
type Address struct {
	Network string // "tcp" or "unix"
	Addr    string
}

// String is the address as the configuration writes it.
func (a Address) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Addr
	}
	return a.Addr
}

// MarshalText implements encoding.TextMarshaler.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Address) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAddress(string(text))
	return err
}

// Loopback reports whether only this host can reach the address.
func (a Address) Loopback() bool {
	if a.Network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(a.Addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// ParseAddress reads "HOST:PORT" or "unix:/PATH". Port 0 is any free one.
func ParseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if err := checkSocketPath(path); err != nil {
			return Address{}, err
		}
		return Address{"unix", path}, nil
	}
	if _, _, err := splitHostPort(s); err != nil {
		return Address{}, err
	}
	return Address{"tcp", s}, nil
}

// parseTCP is ParseAddress where only HOST:PORT will do.
func parseTCP(s string) (Address, error) {
	if _, _, err := splitHostPort(s); err != nil {
		return Address{}, err
	}
	return Address{"tcp", s}, nil
}

// checkPeerAddress judges where a peer is dialled.
func checkPeerAddress(s string) error {
	host, port, err := splitHostPort(s)
	if err != nil {
		return err
	}
	if host == "" || port == 0 {
		return fmt.Errorf("%q can't be dialled: write HOST:PORT with both of them", s)
	}
	return nil
}

func splitHostPort(s string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q is no address: write HOST:PORT, such as 127.0.0.1:7790 or [::1]:7790", s)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q has no port number: write one from 1 to 65535 after the colon", s)
	}
	return host, uint16(n), nil
}

func checkSocketPath(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%q is no absolute path for a unix socket", path)
	}
	if len(path) > maxSocketPath {
		return fmt.Errorf("the path of unix socket %q has %d bytes, the kernel takes %d", path, len(path), maxSocketPath)
	}
	return nil
}
