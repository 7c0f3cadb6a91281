package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Status is what `lockstep status --json` says of a volume, as a program that
// knows nothing of Lockstep's packages reads it.
type Status struct {
	Volume     string `json:"volume"`
	Size       int64  `json:"size"`
	Role       string `json:"role"`
	Serving    bool   `json:"serving"`
	Epoch      uint64 `json:"epoch"`
	SetVersion uint64 `json:"setVersion"`
	Disk       string `json:"disk"`
	End        uint64 `json:"end"`
	Committed  uint64 `json:"committed"`
	Stable     uint64 `json:"stable"`
	Applied    uint64 `json:"applied"`
	Checkpoint uint64 `json:"checkpoint"`
	Generation string `json:"generation"`
	InDoubt    int64  `json:"inDoubt"`
	Suspended  bool   `json:"suspended"`
	Waiting    string `json:"waiting"`
	Failure    string `json:"failure"`
	Peers      []Peer `json:"peers"`
	// Members are the in-sync set, as this node knows it.
	Members []Member `json:"inSync"`
	Undo    *Undo    `json:"undo"`
	// Unfinished says that the volume is half rolled back to a snapshot.
	Unfinished string `json:"unfinished"`
}

// A Member is a replica of the in-sync set.
type Member struct {
	Node string `json:"node"`
}

// Undo is what a volume's status says of the way back from a resync.
type Undo struct {
	Preserved int64 `json:"preserved"`
	Used      int64 `json:"used"`
	Base      struct {
		LSN uint64 `json:"lsn"`
	} `json:"base"`
	Began time.Time `json:"began"`
}

// Peer is what a volume's status says of one peer.
type Peer struct {
	Node        string    `json:"node"`
	Connection  string    `json:"connection"`
	Replication string    `json:"replication"`
	Disk        string    `json:"disk"`
	Member      bool      `json:"member"`
	Received    uint64    `json:"received"`
	Behind      int64     `json:"behind"`
	OutOfSync   int64     `json:"outOfSync"`
	Slow        *Slow     `json:"slow"`
	Verdict     string    `json:"verdict"`
	Problem     string    `json:"problem"`
	CatchUps    int       `json:"catchUps"`
	Resyncs     int       `json:"resyncs"`
	Progress    *Progress `json:"progress"`
	LastResync  *Progress `json:"lastResync"`
}

// Progress is how far a catch-up or a resync is; bytes.
type Progress struct {
	Done     int64         `json:"done"`
	Total    int64         `json:"total"`
	Records  int64         `json:"records"`
	Compared int64         `json:"compared"`
	Equal    int64         `json:"equal"`
	Copied   int64         `json:"copied"`
	Speed    int64         `json:"speed"` // per second
	Elapsed  time.Duration `json:"elapsedNanoseconds"`
	Left     time.Duration `json:"leftNanoseconds"`
}

// Slow is what is said of a peer that left the in-sync set for being slow.
type Slow struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// Peer returns the named peer's part, the zero Peer if there is none.
func (s *Status) Peer(node string) Peer {
	for _, p := range s.Peers {
		if p.Node == node {
			return p
		}
	}
	return Peer{}
}

// InSync reports whether every peer is a connected member that lacks nothing.
func (s *Status) InSync() bool {
	for _, p := range s.Peers {
		if p.Connection != "Connected" || p.Replication != "Established" || !p.Member {
			return false
		}
	}
	return s.Disk == "UpToDate"
}

// Settled reports whether everything that was written is in the backing store.
func (s *Status) Settled() bool { return s.Applied == s.End && s.Committed == s.End }

// Status asks for the state of one volume.
func (n *Node) Status(ctx context.Context, volume string) (*Status, error) {
	out, err := n.CLI(ctx, "status", "--json", volume)
	if err != nil {
		return nil, err
	}
	var all struct {
		Volumes []Status `json:"volumes"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("%s: status --json printed no JSON: %w\n%s", n.Name, err, out)
	}
	for i := range all.Volumes {
		if all.Volumes[i].Volume == volume {
			return &all.Volumes[i], nil
		}
	}
	return nil, fmt.Errorf("%s: status does not name volume %q:\n%s", n.Name, volume, out)
}

// Await asks for the volume's status until cond holds, or ctx ends. what says,
// for the error, what was waited for.
func (n *Node) Await(ctx context.Context, volume, what string, cond func(*Status) bool) (*Status, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last *Status
	for {
		s, err := n.Status(ctx, volume)
		if err == nil && cond(s) {
			return s, nil
		}
		if err == nil {
			last = s
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("waiting until %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			b, _ := json.Marshal(last) // a struct of plain fields
			return last, fmt.Errorf("%s: waited in vain until %s: %w; the last status was %s", n.Name, what, ctx.Err(), b)
		case <-tick.C:
		}
	}
}
