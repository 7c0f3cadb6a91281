package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/daemon"
)

// A Network is two network namespaces, for alpha and beta, joined by one cable.
// Nothing in it reaches, or is reached from, anything else; clients use the
// nodes' unix sockets.
type Network struct {
	t    testing.TB
	name string // of the namespaces, before -alpha and -beta
}

// NewNetwork makes the namespaces, which live as long as the test.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	NeedRoot(t)
	NeedTools(t, "ip", "nft")
	w := &Network{t: t, name: fmt.Sprintf("lockstep%d", os.Getpid())}
	for _, node := range []string{"alpha", "beta"} {
		w.run("ip", "netns", "add", w.namespace(node))
		t.Cleanup(func() { w.run("ip", "netns", "del", w.namespace(node)) })
		w.run("ip", "-n", w.namespace(node), "link", "set", "lo", "up")
	}
	w.run("ip", "-n", w.namespace("alpha"), "link", "add", "cable", "type", "veth",
		"peer", "name", "cable", "netns", w.namespace("beta"))
	for _, node := range []string{"alpha", "beta"} {
		w.run("ip", "-n", w.namespace(node), "addr", "add", w.address(node)+"/24", "dev", "cable")
		w.run("ip", "-n", w.namespace(node), "link", "set", "cable", "up")
	}
	return w
}

func (w *Network) namespace(node string) string { return w.name + "-" + node }

// Places are where the nodes of a pair run in this network.
func (w *Network) Places() map[string]daemon.Place {
	at := map[string]daemon.Place{}
	for _, node := range []string{"alpha", "beta"} {
		at[node] = daemon.Place{Prefix: []string{"ip", "netns", "exec", w.namespace(node)}, Peer: w.address(node) + ":7790"}
	}
	return at
}

func (w *Network) address(node string) string {
	return map[string]string{"alpha": "192.168.77.1", "beta": "192.168.77.2"}[node]
}

// Drop makes every packet between the nodes vanish, without a word to either.
func (w *Network) Drop() {
	w.t.Helper()
	for _, node := range []string{"alpha", "beta"} {
		w.run("ip", "netns", "exec", w.namespace(node), "nft",
			`add table inet cut; add chain inet cut in { type filter hook input priority 0; }; add rule inet cut in iifname "cable" drop`)
	}
}

// Restore undoes Drop.
func (w *Network) Restore() {
	w.t.Helper()
	for _, node := range []string{"alpha", "beta"} {
		w.run("ip", "netns", "exec", w.namespace(node), "nft", "delete table inet cut")
	}
}

// Sent is how many bytes a node has put on the cable.
func (w *Network) Sent(node string) int64 {
	w.t.Helper()
	out := w.run("ip", "netns", "exec", w.namespace(node), "cat", "/sys/class/net/cable/statistics/tx_bytes")
	n, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		w.t.Fatalf("bytes sent by %s: %v", node, err)
	}
	return n
}

func (w *Network) run(args ...string) string {
	w.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
