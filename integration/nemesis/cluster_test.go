package nemesis

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
	"github.com/lockstep-storage/lockstep/integration/wire"
)

const (
	size        = 16 << 20 // of the volume, bytes
	peerTimeout = 800 * time.Millisecond
	// commandLimit is how long a command may take, and patience how long an operator
	// waits for one in the middle of the faults: a demote may wait for what is held back.
	commandLimit = 30 * time.Second
	patience     = 5 * time.Second
)

var names = [3]string{"alpha", "beta", "gamma"}

// A cluster is three nodes with one volume.
type cluster struct {
	t      *testing.T
	dir    string
	nodes  [3]*daemon.Node
	relays [3][3]*wire.Relay // from who dials, to whom; nil on the diagonal
	dead   [3]bool           // killed
	frozen [3]bool           // stopped
	forces struct{ whole, lossy, refused int }
	held   int // restarts because writes that were held back kept a node from being demoted
	counts
	values atomic.Uint64 // that were written, each once

	mu     sync.Mutex
	epochs map[uint64]string // who acknowledged in it
	loose  bool              // an epoch may be drawn twice in this round: a force that loses something
}

func newCluster(t *testing.T, minInSync int) *cluster {
	t.Helper()
	// Not t.TempDir: a unix socket's path has an end at 108 bytes, and what a
	// failure leaves is kept.
	dir, err := os.MkdirTemp("", "lockstep-nemesis-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir, epochs: map[uint64]string{}}
	t.Cleanup(c.end)
	var address [3]string
	for i := range names {
		if address[i], err = daemon.FreeAddress(); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range names {
		config := daemon.Config{Bin: harness.Binary(t), Dir: filepath.Join(dir, name), Name: name, Peer: address[i], Dial: map[string]string{},
			Extra: fmt.Sprintf("log: {level: debug}\nvolumes:\n  %s: {peer-timeout: %v, retry-interval: 100ms}\n", harness.Volume, peerTimeout)}
		create := []string{"create", harness.Volume, "--size", strconv.Itoa(size), "--journal-size", "64MiB", "--min-in-sync", strconv.Itoa(minInSync)}
		for j, other := range names {
			if i == j {
				continue
			}
			if c.relays[i][j], err = wire.Listen("127.0.0.1:0", address[j], 0); err != nil {
				t.Fatal(err)
			}
			config.Dial[other] = c.relays[i][j].Addr()
			create = append(create, "--peer", other)
		}
		if c.nodes[i], err = daemon.New(config); err != nil {
			t.Fatal(err)
		}
		c.start(i)
		if err := c.command(i, create...); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	_, err = c.nodes[0].Await(ctx, harness.Volume, "all are connected", func(s *daemon.Status) bool {
		return s.Peer(names[1]).Connection == "Connected" && s.Peer(names[2]).Connection == "Connected"
	})
	if err == nil {
		err = c.command(0, "promote", harness.Volume)
	}
	for i := 0; err == nil && i < len(names); i++ {
		_, err = c.nodes[i].Await(ctx, harness.Volume, "it is in sync", func(s *daemon.Status) bool {
			return s.Disk == "UpToDate" && len(s.Members) == len(names)
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// logEnd is the end of what a node printed, without what clients cause who look for
// the Primary.
func (c *cluster) logEnd(i int) string {
	const most = 40
	b, err := os.ReadFile(c.nodes[i].LogFile())
	if err != nil {
		return err.Error()
	}
	lines := slices.DeleteFunc(strings.Split(string(b), "\n"), func(line string) bool { return strings.Contains(line, "handshake failed\" remote=/") })
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// end ends what still runs, and keeps the files of a failure.
func (c *cluster) end() {
	for _, n := range c.nodes {
		if n != nil {
			n.Close()
		}
	}
	for i := range c.relays {
		for _, r := range c.relays[i] {
			if r != nil {
				r.Close()
			}
		}
	}
	c.inspectLogs()
	if c.t.Failed() {
		c.t.Logf("logs and files are kept: %s/{alpha,beta,gamma}/log, %s/events", c.dir, c.dir)
		return
	}
	os.RemoveAll(c.dir)
}

// inspectLogs fails the test for what no daemon may ever print.
func (c *cluster) inspectLogs() {
	for _, n := range c.nodes {
		if n == nil {
			continue
		}
		log, err := os.ReadFile(n.LogFile())
		if err != nil {
			continue // it was never started
		}
		for _, never := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if i := bytes.Index(log, []byte(never)); i >= 0 {
				c.t.Errorf("%s printed:\n%s", n.Name, log[i:min(len(log), i+4000)])
			}
		}
	}
}

// start starts a node; that it cannot is a failure.
func (c *cluster) start(i int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	if err := c.nodes[i].Start(ctx); err != nil {
		c.t.Fatal(err)
	}
	c.dead[i] = false
}

func (c *cluster) kill(i int) {
	c.t.Helper()
	if err := c.nodes[i].Kill(); err != nil {
		c.t.Fatal(err)
	}
	c.dead[i], c.frozen[i] = true, false
}

// freeze stops the process, and thaw lets it go on.
func (c *cluster) freeze(i int) { c.signal(i, syscall.SIGSTOP); c.frozen[i] = true }
func (c *cluster) thaw(i int)   { c.signal(i, syscall.SIGCONT); c.frozen[i] = false }

func (c *cluster) signal(i int, s syscall.Signal) {
	c.t.Helper()
	pid := c.nodes[i].PID()
	if pid == 0 {
		c.t.Fatalf("%s has ended by itself:\n%s", names[i], c.nodes[i].LogTail())
	}
	if err := syscall.Kill(pid, s); err != nil {
		c.t.Fatal(err)
	}
}

// answers reports whether a node can be asked anything.
func (c *cluster) answers(i int) bool { return !c.dead[i] && !c.frozen[i] }

// hold keeps back, or lets go on, what from sends to to.
func (c *cluster) hold(from, to int, held *[3][3]bool) {
	// A connection that from dialled carries its words forth, one that to dialled
	// carries them back.
	c.relays[from][to].Hold(held[from][to], held[to][from])
	c.relays[to][from].Hold(held[to][from], held[from][to])
}

// command runs a command on a node's daemon.
func (c *cluster) command(i int, args ...string) error {
	return c.commandWithin(commandLimit, i, args...)
}

func (c *cluster) commandWithin(limit time.Duration, i int, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, err := c.nodes[i].CLI(ctx, args...)
	return err
}

// status is a node's view, or an error if it does not answer soon.
func (c *cluster) status(i int) (*daemon.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c.nodes[i].Status(ctx, harness.Volume)
}

// primary is a node that says that it is Primary, -1 if none does.
func (c *cluster) primary() int {
	for i := range c.nodes {
		if !c.answers(i) {
			continue
		}
		if s, err := c.status(i); err == nil && s.Role == "Primary" {
			return i
		}
	}
	return -1
}

// A set is an in-sync set as a node has recorded it.
type set struct {
	Epoch      uint64          `json:"epoch"`
	SetVersion uint64          `json:"setVersion"`
	InSync     []daemon.Member `json:"inSync"`
}

// recorded is a node's set, from its status, or from its files if it is dead.
func (c *cluster) recorded(i int) (set, error) {
	switch {
	case c.frozen[i]:
		return set{}, fmt.Errorf("%s is stopped", names[i])
	case !c.dead[i]:
		s, err := c.status(i)
		if err != nil {
			return set{}, err
		}
		return set{s.Epoch, s.SetVersion, s.Members}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	n := c.nodes[i]
	out, err := n.Check(ctx, "--json")
	if err != nil {
		return set{}, err
	}
	var checked struct {
		Replicas []struct {
			Superblock *set `json:"superblock"`
		} `json:"replicas"`
	}
	if err := json.Unmarshal([]byte(out), &checked); err != nil {
		return set{}, err
	}
	if len(checked.Replicas) != 1 || checked.Replicas[0].Superblock == nil {
		return set{}, fmt.Errorf("check --json of %s names no superblock:\n%s", n.Name, out)
	}
	return *checked.Replicas[0].Superblock, nil
}

// hasEverything reports whether a node has whatever was acknowledged by now, given
// that nothing is acknowledged any more: whether it is in the newest set that any
// node has recorded. A Primary records a smaller set before it acknowledges anything
// without who left. err says why that cannot be told.
func (c *cluster) hasEverything(i int) (bool, error) {
	var newest set
	for j := range c.nodes {
		s, err := c.recorded(j)
		if err != nil {
			return false, err
		}
		if s.Epoch > newest.Epoch || s.Epoch == newest.Epoch && s.SetVersion > newest.SetVersion {
			newest = s
		}
	}
	for _, m := range newest.InSync {
		if m.Node == names[i] {
			return true, nil
		}
	}
	return false, nil
}

// acknowledged notes that a node acknowledged something in an epoch.
func (c *cluster) acknowledged(epoch uint64, node string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, ok := c.epochs[epoch]
	c.epochs[epoch] = node
	if ok && before != node && !c.loose {
		return fmt.Errorf("both %s and %s acknowledged requests in epoch %d", before, node, epoch)
	}
	return nil
}

// loosen says whether a force that loses something was in this round.
func (c *cluster) loosen(loose bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loose = loose
}

// equalReplicas waits until all stores hold everything, and compares them with each
// other and with what the clients read last.
func (c *cluster) equalReplicas(want []uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	var first []byte
	var end uint64
	for i, n := range c.nodes {
		s, err := n.Await(ctx, harness.Volume, "all of the journal is in the store", func(s *daemon.Status) bool {
			return s.Settled() && (i == 0 || s.End == end)
		})
		if err != nil {
			return err
		}
		b, err := os.ReadFile(n.Replica(harness.Volume))
		if err != nil {
			return err
		}
		if i == 0 {
			first, end = b, s.End
		}
		if !bytes.Equal(b, first) {
			at := 0
			for at < min(len(b), len(first)) && b[at] == first[at] {
				at++
			}
			return fmt.Errorf("the replicas of %s and %s differ at byte %d", names[0], n.Name, at)
		}
	}
	for b, value := range want {
		got, err := identify(first[offset(b):][:load.BlockSize], b)
		if err != nil {
			return fmt.Errorf("the replicas: %w", err)
		}
		if got != value {
			return fmt.Errorf("block %d: the replicas hold write %d, the Primary gave %d", b, got, value)
		}
	}
	return nil
}

// sound ends all nodes in order and checks their files.
func (c *cluster) sound() error {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	// The Primary first: alone it may have to wait, for min-in-sync, before it can stop.
	if p := c.primary(); p >= 0 {
		if err := c.command(p, "demote", harness.Volume); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := n.Stop(ctx); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if out, err := n.Check(ctx); err != nil {
			return fmt.Errorf("%w\n%s", err, strings.TrimSpace(out))
		}
	}
	return nil
}
