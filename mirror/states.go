package mirror

import (
	"fmt"
	"slices"
)

// The names that the command line, the logs, the metrics and the documents use,
// indexed by value.
var (
	roleNames     = []string{"Secondary", "Primary"}
	diskNames     = []string{"Diskless", "Attaching", "Failed", "Inconsistent", "Outdated", "Consistent", "UpToDate"}
	connNames     = []string{"StandAlone", "Connecting", "Connected"}
	replNames     = []string{"Off", "Established", "CatchUp", "SyncSource", "SyncTarget", "PausedSyncS", "PausedSyncT"}
	protocolNames = []string{"C", "B"}
	policyNames   = []string{"detach", "pass-on"}
	accuracyNames = []string{"exact", "blocks", "filled", "unknown"}

	quorumPolicyNames = []string{"suspend-io", "io-error"}
)

// nameOf prints a value that has no name as its number.
func nameOf[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("unknown(%d)", uint8(v))
}

func marshalName[T ~uint8](what string, names []string, v T) ([]byte, error) {
	if int(v) >= len(names) {
		return nil, fmt.Errorf("%d is no %s", uint8(v), what)
	}
	return []byte(names[v]), nil
}

func unmarshalName[T ~uint8](what string, names []string, v *T, text []byte) error {
	i := slices.Index(names, string(text))
	if i < 0 {
		return fmt.Errorf("%q is no %s: one of %q is wanted", text, what, names)
	}
	*v = T(i)
	return nil
}

// String is the role's name.
func (r Role) String() string { return nameOf(roleNames, r) }

// MarshalText implements encoding.TextMarshaler.
func (r Role) MarshalText() ([]byte, error) { return marshalName("role", roleNames, r) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Role) UnmarshalText(b []byte) error { return unmarshalName("role", roleNames, r, b) }

// String is the state's name.
func (s DiskState) String() string { return nameOf(diskNames, s) }

// MarshalText implements encoding.TextMarshaler.
func (s DiskState) MarshalText() ([]byte, error) { return marshalName("disk state", diskNames, s) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *DiskState) UnmarshalText(b []byte) error {
	return unmarshalName("disk state", diskNames, s, b)
}

// String is the state's name.
func (s ConnState) String() string { return nameOf(connNames, s) }

// MarshalText implements encoding.TextMarshaler.
func (s ConnState) MarshalText() ([]byte, error) {
	return marshalName("connection state", connNames, s)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *ConnState) UnmarshalText(b []byte) error {
	return unmarshalName("connection state", connNames, s, b)
}

// String is the state's name; ReplOff is "Off".
func (s ReplState) String() string { return nameOf(replNames, s) }

// MarshalText implements encoding.TextMarshaler.
func (s ReplState) MarshalText() ([]byte, error) {
	return marshalName("replication state", replNames, s)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *ReplState) UnmarshalText(b []byte) error {
	return unmarshalName("replication state", replNames, s, b)
}

// String is the protocol's letter.
func (p Protocol) String() string { return nameOf(protocolNames, p) }

// MarshalText implements encoding.TextMarshaler.
func (p Protocol) MarshalText() ([]byte, error) { return marshalName("protocol", protocolNames, p) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Protocol) UnmarshalText(b []byte) error {
	return unmarshalName("protocol", protocolNames, p, b)
}

// String is the policy's name.
func (p IOErrorPolicy) String() string { return nameOf(policyNames, p) }

// MarshalText implements encoding.TextMarshaler.
func (p IOErrorPolicy) MarshalText() ([]byte, error) {
	return marshalName("on-io-error policy", policyNames, p)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *IOErrorPolicy) UnmarshalText(b []byte) error {
	return unmarshalName("on-io-error policy", policyNames, p, b)
}

// String is the accuracy's name.
func (a RangeAccuracy) String() string { return nameOf(accuracyNames, a) }

// MarshalText implements encoding.TextMarshaler.
func (a RangeAccuracy) MarshalText() ([]byte, error) {
	return marshalName("range accuracy", accuracyNames, a)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *RangeAccuracy) UnmarshalText(b []byte) error {
	return unmarshalName("range accuracy", accuracyNames, a, b)
}

// String is the policy's name.
func (p QuorumPolicy) String() string { return nameOf(quorumPolicyNames, p) }

// MarshalText implements encoding.TextMarshaler.
func (p QuorumPolicy) MarshalText() ([]byte, error) {
	return marshalName("on-no-quorum policy", quorumPolicyNames, p)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *QuorumPolicy) UnmarshalText(b []byte) error {
	return unmarshalName("on-no-quorum policy", quorumPolicyNames, p, b)
}
