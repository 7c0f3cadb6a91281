package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/lockstep-storage/lockstep/mirror"
)

const (
	settingsFile   = "volume.json"
	settingsFormat = 1
	maxSettings    = 64 << 10 // bytes
)

// Settings are what a node keeps about a volume beside the replica itself. They
// are written once, by create; the configuration overrides them. Zero is
// package mirror's default.
type Settings struct {
	Format       int      `json:"format"` // 1
	Peers        []Peer   `json:"peers"`
	PendingLimit int64    `json:"pendingLimit,omitempty"` // bytes
	PeerTimeout  Duration `json:"peerTimeout,omitzero"`
	// PeerLatencyBudget is how long writes may wait for one peer alone; 0 is for as long as they have to.
	PeerLatencyBudget Duration `json:"peerLatencyBudget,omitzero"`
	SyncInterval      Duration `json:"syncInterval,omitzero"`
	RetryInterval     Duration `json:"retryInterval,omitzero"`
	ResyncRate        int64    `json:"resyncRate,omitempty"` // bytes per second; 0 is auto, -1 unlimited
	// ResyncUndo is the most bytes that a resync of this replica may keep to be
	// rolled back by; 0 no limit, mirror.UndoOff nothing.
	ResyncUndo int64 `json:"resyncUndo,omitempty"`
	// SnapshotLimit is the most bytes that one snapshot of this replica may take; 0 no
	// limit.
	SnapshotLimit int64 `json:"snapshotLimit,omitempty"`
	// OnIOError is what this node does as Primary when its own disk fails.
	OnIOError mirror.IOErrorPolicy `json:"onIOError,omitempty"`
	// MinInSync is how many in-sync replicas a write needs; 0 is 1.
	MinInSync int `json:"minInSync,omitempty"`
	// OnNoQuorum is what writes meet while there are fewer.
	OnNoQuorum mirror.QuorumPolicy `json:"onNoQuorum,omitempty"`
	// Store is the path of the file or block device that holds the volume's
	// bytes; "" is the file data beside the superblock.
	Store string `json:"store,omitempty"`
	// Direct opens it past the page cache.
	Direct bool `json:"direct,omitempty"`
	// Journal is the path of the directory that holds the journal, and nothing
	// else; "" is the directory journal beside the superblock.
	Journal string `json:"journal,omitempty"`
}

// Peer is another node that holds a replica.
type Peer struct {
	Name string `json:"name"`
	// Address is HOST:PORT of its peer listener; the configuration's nodes
	// override it, and are all there is when it is "".
	Address string `json:"address,omitempty"`
}

// names are the peers' names, in order.
func (s Settings) names() []string {
	names := make([]string, len(s.Peers))
	for i, p := range s.Peers {
		names[i] = p.Name
	}
	return names
}

// check judges the peers as node's; what package mirror checks it checks when
// the volume is opened.
func (s Settings) check(node string) error {
	var errs []error
	names := s.names()
	if len(names) > maxPeers {
		errs = append(errs, fmt.Errorf("there are %d peers, the limit is %d", len(names), maxPeers))
	}
	for i, p := range s.Peers {
		if err := checkName("peer", p.Name); err != nil {
			errs = append(errs, err)
			continue
		}
		switch {
		case p.Name == node:
			errs = append(errs, fmt.Errorf("peer %q is this node itself", p.Name))
		case slices.Contains(names[:i], p.Name):
			errs = append(errs, fmt.Errorf("peer %q is listed twice", p.Name))
		case p.Address == "":
			errs = append(errs, fmt.Errorf("the address of peer %q is unknown: name it as %s=HOST:PORT, or add it to nodes in the config file", p.Name, p.Name))
		default:
			if err := checkPeerAddress(p.Address); err != nil {
				errs = append(errs, fmt.Errorf("peer %q: %w", p.Name, err))
			}
		}
	}
	if s.MinInSync < 0 || s.MinInSync > 1+len(s.Peers) {
		errs = append(errs, fmt.Errorf("min-in-sync is %d: with %d peers 1 to %d replicas can be in sync", s.MinInSync, len(s.Peers), 1+len(s.Peers)))
	}
	for what, path := range map[string]string{"store": s.Store, "journal": s.Journal} {
		if path != "" && !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%s %q is no absolute path", what, path))
		}
	}
	return errors.Join(errs...)
}

func readSettings(dir string) (Settings, error) {
	path := filepath.Join(dir, settingsFile)
	f, err := os.Open(path)
	if err != nil {
		return Settings{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSettings+1))
	if err == nil && len(text) > maxSettings {
		err = fmt.Errorf("it is larger than %d bytes", maxSettings)
	}
	if err != nil {
		return Settings{}, fmt.Errorf("%s can't be read: %w", path, err)
	}
	s, err := parseSettings(text)
	if err != nil {
		return Settings{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func writeSettings(dir string, s Settings) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, settingsFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}

func parseSettings(text []byte) (Settings, error) {
	var s Settings
	if err := decodeStrict(bytes.NewReader(text), &s); err != nil {
		return Settings{}, err
	}
	if s.Format != settingsFormat {
		return Settings{}, fmt.Errorf("its format is %d, this program knows %d", s.Format, settingsFormat)
	}
	return s, nil
}

// decodeStrict reads one JSON value with no unknown key and nothing after it.
func decodeStrict(r io.Reader, to any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return fmt.Errorf("not the JSON that is wanted here: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("not the JSON that is wanted here: something follows it")
	}
	return nil
}
