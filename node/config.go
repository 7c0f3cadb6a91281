package node

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

// maxConfig is the largest configuration file that is read, in bytes.
const maxConfig = 1 << 20

// Config is a daemon's configuration. DefaultConfig has every default; a file
// changes what it names.
type Config struct {
	Node    string // this node's name, as its peers' configurations call it
	DataDir string
	Admin   string // path of the admin API's socket
	NBD     NBDConfig
	Peer    PeerConfig
	// Nodes are the other nodes' peer addresses, by name.
	Nodes map[string]string
	// Volumes override what `lockstep create` stored with a volume.
	Volumes map[string]Overrides
	// Handlers are run for every volume that has none of its own.
	Handlers Handlers
	Log      LogConfig

	// File is where all this was read from, "" for none; for messages.
	File string
}

// NBDConfig says where volumes are exported.
type NBDConfig struct {
	Listen []Address
	TLS    NBDTLS
}

// PeerConfig says where the other nodes reach this one, and how they are known.
type PeerConfig struct {
	Listen Address
	// TLS has all of them prove who they are, and encrypts what they are told.
	TLS TLSFiles
	// AllowPlaintext lets Listen and Nodes leave the loopback without TLS.
	AllowPlaintext bool
}

// tls is what secures connections to peers, nil if nothing does.
func (c Config) tls() *peerTLS {
	if !c.Peer.TLS.isSet() {
		return nil
	}
	return &peerTLS{c.Peer.TLS, c.Node}
}

// plaintext fails if a peer at that address must not be spoken to without TLS.
func (c PeerConfig) plaintext(address string) error {
	if c.TLS.isSet() || c.AllowPlaintext || (Address{"tcp", address}).Loopback() {
		return nil
	}
	return fmt.Errorf("%s is another host's, and without peer.tls whoever is in between can read and change what the nodes tell each other: "+
		"make keys with `lockstep keys` and name them in peer.tls; or, if only trusted hosts are on that network, say peer.allow-plaintext: true", address)
}

// LogConfig says what is logged, to standard error.
type LogConfig struct {
	Format string // "text" or "json"
	Level  slog.Level
}

// Overrides are one volume's settings in a configuration; nil leaves what is
// stored with the volume.
type Overrides struct {
	Peers        []string
	PendingLimit *int64
	PeerTimeout  *time.Duration
	// PeerLatencyBudget of 0 is off.
	PeerLatencyBudget *time.Duration
	SyncInterval      *time.Duration
	RetryInterval     *time.Duration
	ResyncRate        *int64
	ResyncUndo        *int64
	SnapshotLimit     *int64
	OnIOError         *mirror.IOErrorPolicy
	Split             mirror.SplitPolicies // "" is the default; nothing is stored with the volume
	Resync            ResyncOverrides      // nor is any of it
	Handlers          Handlers             // nor these
	MinInSync         *int
	OnNoQuorum        *mirror.QuorumPolicy
	Store             *string
	Direct            *bool
	Journal           *string
}

// ResyncOverrides say how a volume is resynced, besides its rate.
type ResyncOverrides struct {
	RateMin, RateMax *int64 // bytes per second
	Checksums        *bool
	After            string // the volume whose resync goes first, "" none
}

// DefaultConfig is the configuration of a daemon that was given none.
func DefaultConfig() Config {
	dir := defaultDataDir()
	host, _ := os.Hostname() // an empty name is refused by check
	return Config{
		Node:    host,
		DataDir: dir,
		Admin:   adminSocket(dir),
		NBD:     NBDConfig{Listen: []Address{{"tcp", "127.0.0.1:10809"}}},
		Peer:    PeerConfig{Listen: Address{"tcp", "127.0.0.1:7790"}},
		Log:     LogConfig{Format: "text", Level: slog.LevelInfo},
	}
}

// DefaultSocket is where a daemon on the default configuration listens for
// admin requests.
func DefaultSocket() string { return adminSocket(defaultDataDir()) }

func adminSocket(dataDir string) string { return filepath.Join(dataDir, "admin.sock") }

func defaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/lockstep"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local", "state", "lockstep")
}

// LoadConfig reads a configuration file. The error lists everything that is
// wrong with it (a *ConfigError), not the first only.
func LoadConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("config file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return Config{}, fmt.Errorf("config file %s can't be read: %w", path, err)
	}
	if len(text) > maxConfig {
		return Config{}, fmt.Errorf("config file %s is larger than %d bytes", path, maxConfig)
	}
	return ParseConfig(text, path)
}

// NewLogger is a logger as l says, writing to w.
func NewLogger(l LogConfig, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: l.Level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// apply puts the overrides over what is stored.
func (o Overrides) apply(s Settings, nodes map[string]string) Settings {
	if o.Peers != nil {
		s.Peers = nil
		for _, name := range o.Peers {
			s.Peers = append(s.Peers, Peer{Name: name})
		}
	} else {
		s.Peers = slices.Clone(s.Peers)
	}
	for i, p := range s.Peers {
		if addr, ok := nodes[p.Name]; ok {
			s.Peers[i].Address = addr
		}
	}
	override(&s.PendingLimit, o.PendingLimit)
	override(&s.PeerTimeout, (*Duration)(o.PeerTimeout))
	override(&s.PeerLatencyBudget, (*Duration)(o.PeerLatencyBudget))
	override(&s.SyncInterval, (*Duration)(o.SyncInterval))
	override(&s.RetryInterval, (*Duration)(o.RetryInterval))
	override(&s.ResyncRate, o.ResyncRate)
	override(&s.ResyncUndo, o.ResyncUndo)
	override(&s.SnapshotLimit, o.SnapshotLimit)
	override(&s.OnIOError, o.OnIOError)
	override(&s.MinInSync, o.MinInSync)
	override(&s.OnNoQuorum, o.OnNoQuorum)
	override(&s.Store, o.Store)
	override(&s.Direct, o.Direct)
	override(&s.Journal, o.Journal)
	return s
}

func override[T any](stored, over *T) {
	if over != nil {
		*stored = *over
	}
}
