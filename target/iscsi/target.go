package iscsi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/iscsi/scsi"
)

// NamePrefix is what a target's name begins with; its export's name follows.
const NamePrefix = "iqn.2026-11.io.lockstep:"

// maxName is the longest iSCSI name, bytes (4.2.7.1).
const maxName = 223

// portalGroup is the tag of the one portal group.
const portalGroup = 1

// A Secret is one side of CHAP (RFC 1994): what a name proves itself with.
type Secret struct {
	Name string
	// Secret has 12 to 255 bytes.
	Secret string
}

// An Initiator is what a target asks of an initiator.
type Initiator struct {
	// Name is the iSCSI name, or "*": every initiator that has no entry of its
	// own.
	Name string
	// CHAP is what the initiator authenticates itself with; nil: it need not.
	CHAP *Secret
	// Mutual is what the target proves itself with if the initiator asks for
	// that; nil: it cannot. Its secret must be another than CHAP's.
	Mutual *Secret
}

// A Target offers an export as LUN 0 of the iSCSI target NamePrefix + Export.
type Target struct {
	// Export is the export's name, in characters that an iSCSI name may have:
	// lower-case letters, digits, '-', '.' and ':'.
	Export string
	// VolumeID is the volume's, the same on every node (scsi.Config).
	VolumeID [16]byte
	// Initiators may log in; nobody else can. Empty: everybody, without
	// authentication.
	Initiators []Initiator
	// MaxSessions is how many sessions there may be at once; 0 is no limit of the
	// target's own.
	MaxSessions int
	// RelativePort is the relative target port identifier: another on each node
	// that serves the volume. 0 is 1.
	RelativePort uint16
	// Unit bounds the logical unit; its Device and VolumeID are set by AddTarget.
	Unit scsi.Config
}

// tgt is a Target that is offered.
type tgt struct {
	Target
	name     string
	unit     *scsi.Unit
	sessions map[*conn]struct{} // guarded by the server's mutex
}

func (t *Target) validate() error {
	if t.Export == "" {
		return errors.New("iscsi: a target needs an export")
	}
	if n := len(NamePrefix) + len(t.Export); n > maxName {
		return fmt.Errorf("iscsi: target of export %q: a name of %d bytes, at most %d are possible", t.Export, n, maxName)
	}
	if !plainName(t.Export) {
		return fmt.Errorf("iscsi: target of export %q: an iSCSI name has lower-case letters, digits, '-', '.' and ':' alone", t.Export)
	}
	if t.MaxSessions < 0 {
		return fmt.Errorf("iscsi: target of export %q: %d sessions at most makes no sense, use 0 for no limit", t.Export, t.MaxSessions)
	}
	seen := make(map[string]bool)
	for _, i := range t.Initiators {
		if i.Name == "" || seen[strings.ToLower(i.Name)] {
			return fmt.Errorf("iscsi: target of export %q: initiator %q has no name or two entries", t.Export, i.Name)
		}
		seen[strings.ToLower(i.Name)] = true
		for _, s := range []*Secret{i.CHAP, i.Mutual} {
			if s != nil && (s.Name == "" || len(s.Secret) < 12 || len(s.Secret) > 255) {
				return fmt.Errorf("iscsi: target of export %q: CHAP of initiator %q needs a name, and a secret of 12 to 255 bytes", t.Export, i.Name)
			}
		}
		if i.Mutual != nil && (i.CHAP == nil || i.CHAP.Secret == i.Mutual.Secret) {
			return fmt.Errorf("iscsi: target of export %q: mutual CHAP of initiator %q needs CHAP, with another secret", t.Export, i.Name)
		}
	}
	return nil
}

func plainName(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == ':') {
			return false
		}
	}
	return true
}

// admits finds what is asked of an initiator, nil if it may not log in.
func (t *tgt) admits(initiator string) *Initiator {
	if len(t.Initiators) == 0 {
		return &Initiator{Name: "*"}
	}
	var any *Initiator
	for i := range t.Initiators {
		switch e := &t.Initiators[i]; {
		case strings.EqualFold(e.Name, initiator):
			return e
		case e.Name == "*":
			any = e
		}
	}
	return any
}

// exported is an export as the device of a logical unit: its sessions hold a
// place in the table.
type exported struct {
	exports *target.Exports
	name    string
}

func (e exported) Info() block.Info {
	x, err := e.exports.Lookup(e.name)
	if err != nil {
		return block.Info{SectorSize: 512}
	}
	return x.Device.Info()
}

func (e exported) Attach(ctx context.Context, revoked func(error)) (block.Session, error) {
	s, err := e.exports.Open(ctx, e.name, revoked)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// AddTarget offers an export. It fails if t makes no sense, the export does not
// exist, or it is offered already.
func (s *Server) AddTarget(t Target) error {
	if err := t.validate(); err != nil {
		return err
	}
	if _, err := s.exports.Lookup(t.Export); err != nil {
		return fmt.Errorf("iscsi: add a target: %w", err)
	}
	def(&t.RelativePort, 1)
	t.Unit.Device, t.Unit.VolumeID = exported{s.exports, t.Export}, t.VolumeID
	unit, err := scsi.NewUnit(t.Unit)
	if err != nil {
		return fmt.Errorf("iscsi: add target %s%s: %w", NamePrefix, t.Export, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := NamePrefix + t.Export
	if _, is := s.targets[name]; is {
		return fmt.Errorf("iscsi: target %s is offered already", name)
	}
	s.targets[name] = &tgt{Target: t, name: name, unit: unit, sessions: make(map[*conn]struct{})}
	return nil
}

// RemoveTarget offers an export no longer, asks its initiators to log out, and
// waits until their sessions have ended, or for ctx, whose error it then
// returns.
func (s *Server) RemoveTarget(ctx context.Context, export string) error {
	s.mu.Lock()
	t, is := s.targets[NamePrefix+export]
	if !is {
		s.mu.Unlock()
		return fmt.Errorf("iscsi: remove target %s%s: there is none", NamePrefix, export)
	}
	delete(s.targets, t.name)
	var over []*conn
	for c := range t.sessions {
		over = append(over, c)
	}
	s.mu.Unlock()
	for _, c := range over {
		c.revoke(target.ErrRemoved)
	}
	for _, c := range over {
		select {
		case <-c.ended:
		case <-ctx.Done():
			return fmt.Errorf("iscsi: remove target %s: it still has sessions: %w", t.name, ctx.Err())
		}
	}
	return nil
}
