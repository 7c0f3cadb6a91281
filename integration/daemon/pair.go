package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/lockstep-storage/lockstep/integration/wire"
)

// A Pair is two nodes, alpha and beta, that know each other.
type Pair struct {
	Alpha, Beta *Node
	relays      []*wire.Relay
	createFlags map[string][]string
}

// PairOptions of NewPair; the zero value puts both nodes on the loopback.
type PairOptions struct {
	// Places says where alpha and beta run; default: on the loopback.
	Places map[string]Place
	// Relayed puts a relay between the nodes, in both directions, through which
	// everything arrives OneWay later, and which Cut cuts.
	Relayed bool
	OneWay  time.Duration
	// CreateFlags are, by node, further flags of `lockstep create`.
	CreateFlags map[string][]string
	// Extra is further YAML for both nodes' config files.
	Extra string
}

// A Place is where a node runs and listens.
type Place struct {
	Prefix []string // goes before the command that starts the daemon
	NBD    string   // TCP address to export on, beside the unix socket; "" for none
	Peer   string   // TCP address for the peer
}

// NewPair prepares two nodes below dir. Neither runs yet.
func NewPair(bin, dir string, o PairOptions) (*Pair, error) {
	p := &Pair{createFlags: o.CreateFlags}
	config := map[string]Config{}
	for _, name := range []string{"alpha", "beta"} {
		at, ok := o.Places[name]
		if !ok {
			var err error
			if at, err = loopback(); err != nil {
				return nil, err
			}
		}
		config[name] = Config{Bin: bin, Dir: filepath.Join(dir, name), Name: name,
			Prefix: at.Prefix, NBD: at.NBD, Peer: at.Peer, Dial: map[string]string{}, Extra: o.Extra}
	}
	for name, other := range map[string]string{"alpha": "beta", "beta": "alpha"} {
		addr := config[other].Peer
		if o.Relayed {
			r, err := wire.Listen("127.0.0.1:0", addr, o.OneWay)
			if err != nil {
				p.Close()
				return nil, err
			}
			p.relays = append(p.relays, r)
			addr = r.Addr()
		}
		config[name].Dial[other] = addr
	}
	var err error
	if p.Alpha, err = New(config["alpha"]); err == nil {
		p.Beta, err = New(config["beta"])
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func loopback() (Place, error) {
	nbd, err := FreeAddress()
	if err != nil {
		return Place{}, err
	}
	peer, err := FreeAddress()
	return Place{NBD: nbd, Peer: peer}, err
}

// Nodes are alpha and beta.
func (p *Pair) Nodes() [2]*Node { return [2]*Node{p.Alpha, p.Beta} }

// Other is the node that n is not.
func (p *Pair) Other(n *Node) *Node {
	if n == p.Alpha {
		return p.Beta
	}
	return p.Alpha
}

// Create starts both nodes, creates a volume of size bytes on both, promotes it
// on alpha, and returns when they are in sync.
func (p *Pair) Create(ctx context.Context, volume string, size int64) error {
	for _, n := range p.Nodes() {
		if err := n.Start(ctx); err != nil {
			return err
		}
		create := []string{"create", volume, "--size", fmt.Sprint(size), "--peer", p.Other(n).Name}
		if _, err := n.CLI(ctx, append(create, p.createFlags[n.Name]...)...); err != nil {
			return err
		}
	}
	_, err := p.Alpha.Await(ctx, volume, "the nodes are connected", func(s *Status) bool {
		return s.Peer("beta").Connection == "Connected"
	})
	if err != nil {
		return err
	}
	if _, err := p.Alpha.CLI(ctx, "promote", volume); err != nil {
		return err
	}
	return p.AwaitInSync(ctx, volume)
}

// AwaitInSync waits until both nodes say that they are in sync.
func (p *Pair) AwaitInSync(ctx context.Context, volume string) error {
	for _, n := range p.Nodes() {
		if _, err := n.Await(ctx, volume, "both are in sync", (*Status).InSync); err != nil {
			return err
		}
	}
	return nil
}

// Cut closes the relayed connections between the nodes and lets none through.
func (p *Pair) Cut() {
	for _, r := range p.relays {
		r.Cut()
	}
}

// Mend undoes Cut.
func (p *Pair) Mend() {
	for _, r := range p.relays {
		r.Mend()
	}
}

// Passed is how many bytes have passed between the nodes, in both directions.
func (p *Pair) Passed() (bytes int64) {
	for _, r := range p.relays {
		bytes += r.Passed()
	}
	return bytes
}

// Spoil flips one bit of each of the next n pieces that pass between the nodes,
// through each relay.
func (p *Pair) Spoil(n int) {
	for _, r := range p.relays {
		r.Spoil(n)
	}
}

// Close ends what still runs.
func (p *Pair) Close() {
	for _, n := range p.Nodes() {
		if n != nil {
			n.Close()
		}
	}
	for _, r := range p.relays {
		r.Close()
	}
}
