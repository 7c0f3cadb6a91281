package node

import (
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

func TestConfigOfNothingIsTheDefault(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "nbd:\nvolumes:\n"} {
		c, err := ParseConfig([]byte(text), "f")
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if c.Admin != c.DataDir+"/admin.sock" || fmt.Sprint(c.NBD.Listen) != "[127.0.0.1:10809]" || c.Peer.Listen.String() != "127.0.0.1:7790" {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

const wholeConfig = `
node: alpha
data-dir: /srv/lockstep
admin: /run/lockstep/admin.sock
nbd: {listen: ["127.0.0.1:10809", "unix:/run/x.sock"]}
peer:
  listen: "0.0.0.0:7790"
  allow-plaintext: true
nodes:
  beta: "127.0.0.1:7791"
  gamma: "[::1]:7792"
volumes:
  data:
    peers: [beta, gamma]
    pending-limit: 64MiB
    peer-timeout: 3s
    peer-latency-budget: off
    sync-interval: 500ms
    retry-interval: 1s
    resync-rate: 0
    resync-rate-min: 2MiB
    resync-rate-max: 200MiB
    resync-checksums: false
    resync-after: other
    handlers: {fence-peer: exit 4, timeout: 5m}
    resync-undo: off
    snapshot-limit: 2GiB
    on-io-error: pass-on
    after-sb-0pri: discard-node-beta
    after-sb-1pri: consensus
    after-sb-2pri: call-pri-lost-after-sb
    rr-conflict: disconnect
    min-in-sync: 2
    on-no-quorum: io-error
    store: /mnt/data
    direct: true
    journal: /fast/data
  other:
handlers:
  split-brain: mail -s "$LOCKSTEP_REASON" ops
  fence-peer: exit 1
  timeout: 30s
log: {format: json, level: warn}
`

func TestConfigWhole(t *testing.T) {
	c, err := ParseConfig([]byte(wholeConfig), "f")
	if err != nil {
		t.Fatal(err)
	}
	if c.Node != "alpha" || c.DataDir != "/srv/lockstep" || c.Admin != "/run/lockstep/admin.sock" ||
		c.Peer.Listen.String() != "0.0.0.0:7790" || c.Nodes["gamma"] != "[::1]:7792" || c.Log != (LogConfig{"json", slog.LevelWarn}) {
		t.Errorf("%+v", c)
	}
	if got := fmt.Sprint(c.NBD.Listen); got != "[127.0.0.1:10809 unix:/run/x.sock]" {
		t.Error(got)
	}
	stored := Settings{Format: 1, Peers: []Peer{{"old", "1.2.3.4:5"}}, ResyncRate: 77, PeerTimeout: Duration(time.Minute), PeerLatencyBudget: Duration(time.Second)}
	s := c.Volumes["data"].apply(stored, c.Nodes)
	want := Settings{Format: 1, Peers: []Peer{{"beta", "127.0.0.1:7791"}, {"gamma", "[::1]:7792"}}, PendingLimit: 64 << 20,
		PeerTimeout: Duration(3 * time.Second), SyncInterval: Duration(500 * time.Millisecond), RetryInterval: Duration(time.Second), ResyncRate: mirror.ResyncUnlimited, ResyncUndo: mirror.UndoOff, SnapshotLimit: 2 << 30, OnIOError: mirror.PassOn, MinInSync: 2, OnNoQuorum: mirror.IOError, Store: "/mnt/data", Direct: true, Journal: "/fast/data"}
	if fmt.Sprint(s) != fmt.Sprint(want) {
		t.Errorf("overridden settings\n got %+v\nwant %+v", s, want)
	}
	policies := mirror.SplitPolicies{ZeroPri: "discard-node-beta", OnePri: "consensus", TwoPri: "call-pri-lost-after-sb"}
	if got := c.Volumes["data"].Split; got != policies {
		t.Errorf("policies %+v", got)
	}
	if h := c.Volumes["data"].Handlers.over(c.Handlers); fmt.Sprint(h.Commands) != `map[fence-peer:exit 4 split-brain:mail -s "$LOCKSTEP_REASON" ops]` || *h.Timeout != 5*time.Minute {
		t.Errorf("handlers %+v", h)
	}
	if h := c.Volumes["other"].Handlers.over(c.Handlers); h.Commands["fence-peer"] != "exit 1" || *h.Timeout != 30*time.Second {
		t.Errorf("handlers %+v", h)
	}
	if r := c.Volumes["data"].Resync; *r.RateMin != 2<<20 || *r.RateMax != 200<<20 || *r.Checksums || r.After != "other" {
		t.Errorf("resync %+v", r)
	}
	if s := c.Volumes["other"].apply(stored, c.Nodes); fmt.Sprint(s) != fmt.Sprint(stored) {
		t.Errorf("without overrides: %+v", s)
	}
}

// tlsConfig is node alpha's, with the three files in lines 4, 5 and 6.
func tlsConfig(ca, cert, key string) string {
	return fmt.Sprintf("node: alpha\npeer:\n  tls:\n    ca: %s\n    cert: %s\n    key: %s\n", ca, cert, key)
}

func TestConfigTLS(t *testing.T) {
	f := madeKeys(t, "alpha")["alpha"]
	c, err := ParseConfig([]byte("nodes: {beta: 10.0.0.2:7790}\n"+strings.Replace(tlsConfig(f.CA, f.Cert, f.Key), "  tls:", "  listen: 0.0.0.0:7790\n  tls:", 1)), "f")
	if err != nil || c.Peer.TLS != f {
		t.Errorf("%+v, %v", c.Peer.TLS, err)
	}
	if c, err := ParseConfig([]byte("peer: {tls: }"), "f"); err != nil || c.Peer.TLS.isSet() {
		t.Errorf("%+v, %v", c.Peer.TLS, err)
	}
}

func TestConfigErrors(t *testing.T) {
	files := madeKeys(t, "alpha", "beta")
	f := files["alpha"]
	alpha := fmt.Sprintf("{ca: %s, cert: %s, key: %s}\nnode: alpha", f.CA, f.Cert, f.Key)
	nbdFiles := strings.TrimPrefix(alpha, "{")
	client := madeClientKeys(t, t.TempDir(), "ann")["ann"]
	other := func(name string, mode os.FileMode, text []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, text, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open := other("open", 0o640, read(t, f.Key))
	junk := other("junk", 0o600, []byte("no PEM"))
	none := other("none", 0o600, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")}))
	for _, tc := range []struct{ name, text, want string }{
		{"not YAML", "node: [alpha\nx", "f:2: not YAML"},
		{"a policy that is not done", "volumes:\n  data:\n    after-sb-0pri: discard-least-changes", "f:3: volumes.data.after-sb-0pri: \"discard-least-changes\" is not done: which side changed fewer blocks"},
		{"a policy of another setting", "volumes:\n  data:\n    after-sb-2pri: discard-secondary", "one of disconnect, call-pri-lost-after-sb is wanted"},
		{"a policy for a stranger", "node: alpha\nnodes: {beta: \"127.0.0.1:1\"}\nvolumes:\n  data:\n    after-sb-0pri: discard-node-gamma", "f:5: volume \"data\": after-sb-0pri names node \"gamma\", which is neither this node nor in nodes"},
		{"not a mapping", "hello", "f:1: the config file must be a mapping"},
		{"unknown key", "nod: alpha", `f:1: unknown key "nod" (did you mean "node"?)`},
		{"unknown key far from all", "zzzzzzzz: 1", `f:1: unknown key "zzzzzzzz"`},
		{"unknown key of a volume", "volumes:\n  data:\n    peer-time: 3s", `f:3: unknown key "volumes.data.peer-time" (did you mean "peer-timeout"?)`},
		{"duplicate key", "node: a\nnode: b", `f:2: "node" is set twice, first in line 1`},
		{"duplicate volume", "volumes:\n  a: {}\n  a: {}", `f:3: "volumes.a" is set twice, first in line 2`},
		{"alias", "node: &x alpha\ndata-dir: *x", "f:2: YAML aliases are not supported"},
		{"merge", "log: {<<: {level: info}}", "f:1: a key of log must be a plain word"},
		{"second document", "node: a\n---\nnode: b", "f:2: a second YAML document"},
		{"list for a value", "node: [a]", "f:1: a single value is wanted here"},
		{"value for a section", "nbd: 10809", "f:1: nbd must be a mapping"},
		{"node name", "node: a/b", `f:1: "a/b" can't name a node`},
		{"relative data-dir", "data-dir: here", `f:1: data-dir: "here" is no absolute path`},
		{"socket path too long", "admin: /" + strings.Repeat("x", 120), "f:1: admin: the path of unix socket"},
		{"socket path of data-dir too long", "data-dir: /" + strings.Repeat("x", 120), "set admin to a shorter one"},
		{"nbd address", "nbd:\n  listen:\n    - 127.0.0.1:10809\n    - 127.0.0.1", `f:4: nbd.listen: "127.0.0.1" is no address`},
		{"nbd port", "nbd: {listen: '127.0.0.1:70000'}", `f:1: nbd.listen: "127.0.0.1:70000" has no port number`},
		{"nbd address twice", "nbd: {listen: ['127.0.0.1:1', '127.0.0.1:1']}", "f:1: nbd.listen has 127.0.0.1:1 twice"},
		{"peer on a unix socket", "peer: {listen: 'unix:/x'}", `f:1: peer.listen: "unix:/x" has no port number`},
		{"peer plaintext", "peer:\n  listen: 10.0.0.1:7790", "f:2: peer.listen 10.0.0.1:7790 can be reached from other hosts"},
		{"peer plaintext everywhere", "peer: {listen: ':7790'}", "f:1: peer.listen :7790 can be reached from other hosts"},
		{"peer plaintext to another host", "nodes:\n  beta: 10.0.0.2:7790", `f:2: node "beta": 10.0.0.2:7790 is another host's, and without peer.tls`},
		{"plaintext and TLS", "peer:\n  allow-plaintext: true\n  tls: " + alpha, "f:2: peer.allow-plaintext is true, but with peer.tls"},
		{"TLS without a CA", "peer:\n  tls: {cert: /x, key: /y}", "f:2: peer.tls has no ca: it needs ca, cert and key"},
		{"TLS without a certificate", "peer:\n  tls: {ca: /x, cert: , key: /y}", "f:2: peer.tls has no cert"},
		{"TLS without a key", "peer:\n  tls: {ca: /x, cert: /y}", "f:2: peer.tls has no key"},
		{"relative key", "peer:\n  tls:\n    ca: /x\n    cert: /y\n    key: z", `f:5: peer.tls.key: "z" is no absolute path`},
		{"unknown key of TLS", "peer: {tls: {keys: /x}}", `f:1: unknown key "peer.tls.keys" (did you mean "key"?)`},
		{"missing CA", tlsConfig("/no/ca", f.Cert, f.Key), "f:4: peer.tls.ca: /no/ca: no such file or directory"},
		{"missing certificate", tlsConfig(f.CA, "/no/cert", f.Key), "f:5: peer.tls.cert: /no/cert: no such file or directory"},
		{"missing key", tlsConfig(f.CA, f.Cert, "/no/key"), "f:6: peer.tls.key: /no/key: no such file or directory"},
		{"directory for a key", tlsConfig(f.CA, f.Cert, "/dev"), "f:6: peer.tls.key: /dev: it is no file"},
		{"device for a CA", tlsConfig("/dev/zero", f.Cert, f.Key), "f:4: peer.tls.ca: /dev/zero: it is no file"},
		{"key that others may read", tlsConfig(f.CA, f.Cert, open), "f:6: peer.tls.key: " + open + ": others than its owner may use this key (mode 0640): run `chmod 600 " + open},
		{"CA that is no PEM", tlsConfig(junk, f.Cert, f.Key), "f:4: peer.tls.ca: " + junk + ": it holds no certificate in PEM"},
		{"certificate that is no PEM", tlsConfig(f.CA, junk, f.Key), "f:5: peer.tls.cert: " + junk + ": it holds no certificate in PEM"},
		{"certificate that is none", tlsConfig(f.CA, none, f.Key), "f:5: peer.tls.cert: " + none + ": it holds a certificate that can't be read"},
		{"key that is no PEM", tlsConfig(f.CA, f.Cert, junk), "f:6: peer.tls.key: " + junk + ": it is not the key of the certificate"},
		{"another's key", tlsConfig(f.CA, f.Cert, files["beta"].Key), "f:6: peer.tls.key: " + files["beta"].Key + ": it is not the key of the certificate"},
		{"another's certificate", tlsConfig(f.CA, files["beta"].Cert, files["beta"].Key), `f:5: peer.tls.cert: ` + files["beta"].Cert + `: the certificate is for ["beta"], and this node is "alpha": make one with ` + "`lockstep keys alpha`"},
		{"a node for a CA", tlsConfig(f.Cert, f.Cert, f.Key), `f:4: peer.tls.ca: ` + f.Cert + `: the certificate of ["alpha"] is none of a CA`},
		{"another CA", tlsConfig(madeKeys(t, "alpha")["alpha"].CA, f.Cert, f.Key), "f:5: peer.tls.cert: " + f.Cert + ": no peer would believe it, by the CA in "},
		{"NBD over TLS without keys", "nbd:\n  tls: {mode: required, key: /y}", "f:2: nbd.tls has no cert: it needs cert and key"},
		{"NBD TLS mode", "nbd:\n  tls: {mode: require, " + nbdFiles, `f:2: nbd.tls.mode: "require" is not one of off, optional, required (did you mean "required"?)`},
		{"unknown key of NBD's TLS", "nbd:\n  tls: {client: {}, " + nbdFiles, `f:2: unknown key "nbd.tls.client" (did you mean "clients"?)`},
		{"clients without a CA", "nbd:\n  tls:\n    clients: {ann: [data]}\n    cert: " + f.Cert + "\n    key: " + f.Key, "f:3: nbd.tls.clients needs nbd.tls.ca"},
		{"clients of whom some need no TLS", "nbd:\n  tls:\n    clients: {ann: [data]}\n    <<<\n    mode: optional", "f:3: nbd.tls.clients says what each client may open, but with nbd.tls.mode: optional"},
		{"a client of nothing", "nbd:\n  tls:\n    clients: {ann: }\n    <<<", `f:3: client "ann" has no volumes`},
		{"a client's name", "nbd:\n  tls:\n    clients: {a/b: data}\n    <<<", `f:3: "a/b" can't name a client`},
		{"a client's volume", "nbd:\n  tls:\n    clients:\n      ann:\n        - data\n        - data@alpha\n    <<<", `f:6: client "ann": "data@alpha" can't name a volume`},
		{"relative key of NBD", "nbd:\n  tls:\n    cert: /x\n    key: y", `f:4: nbd.tls.key: "y" is no absolute path`},
		{"missing CA of NBD", "nbd:\n  tls:\n    ca: /no/ca\n    cert: " + f.Cert + "\n    key: " + f.Key, "f:3: nbd.tls.ca: /no/ca: no such file or directory"},
		{"NBD key that others may read", "nbd:\n  tls:\n    cert: " + f.Cert + "\n    key: " + open, "f:4: nbd.tls.key: " + open + ": others than its owner may use this key"},
		{"another's key for NBD", "nbd:\n  tls:\n    cert: " + f.Cert + "\n    key: " + files["beta"].Key, "f:4: nbd.tls.key: " + files["beta"].Key + ": it is not the key of the certificate"},
		{"a client's certificate for NBD", "nbd:\n  tls:\n    cert: " + client.Cert + "\n    key: " + client.Key, "f:3: nbd.tls.cert: " + client.Cert + ": the certificate is not for a server"},
		{"boolean of a volume", "volumes:\n  data:\n    direct: maybe", `f:3: "maybe" is neither true nor false`},
		{"boolean", "peer: {allow-plaintext: maybe}", `f:1: "maybe" is neither true nor false`},
		{"node without address", "nodes: {beta: }", `f:1: node "beta" has no address`},
		{"node address without port", "nodes: {beta: 'host:0'}", `f:1: node "beta": "host:0" can't be dialled`},
		{"this node among nodes", "node: beta\nnodes: {beta: 'localhost:1'}", `f:2: nodes lists this node, "beta"`},
		{"unknown peer", "nodes: {beta: 'localhost:1'}\nvolumes:\n  data:\n    peers:\n      - bete", `f:5: volume "data": peer "bete" is not in nodes (did you mean "beta"?)`},
		{"own peer", "node: a\nvolumes: {data: {peers: [a]}}", `f:2: volume "data" lists this node, "a", as its own peer`},
		{"peer twice", "nodes: {b: 'localhost:1'}\nvolumes: {data: {peers: [b, b]}}", `f:2: volume "data" lists peer "b" twice`},
		{"volume name", "volumes: {.x: {}}", `f:1: ".x" can't name a volume`},
		{"size", "volumes: {data: {pending-limit: lots}}", `f:1: volumes.data.pending-limit: "lots" is no size`},
		{"decimal size", "volumes: {data: {pending-limit: 64MB}}", "has a decimal unit: write MiB"},
		{"size too small", "volumes: {data: {pending-limit: 1MiB}}", "f:1: volumes.data.pending-limit is 1048576 bytes, the least is 4194304"},
		{"duration", "volumes: {data: {peer-timeout: 3}}", `f:1: volumes.data.peer-timeout: "3" is no length of time`},
		{"no budget", "volumes: {data: {peer-latency-budget: none}}", `f:1: volumes.data.peer-latency-budget: "none" is no length of time`},
		{"budget too short", "volumes: {data: {peer-latency-budget: 1ms}}", "volumes.data.peer-latency-budget is 1ms, the least is 10ms"},
		{"duration too short", "volumes: {data: {peer-timeout: 1ms}}", "volumes.data.peer-timeout is 1ms, the least is 200ms"},
		{"too few in sync", "volumes: {data: {min-in-sync: 0}}", `f:1: volumes.data.min-in-sync: "0" is no count of replicas: 1 to 9`},
		{"policy", "volumes: {data: {on-no-quorum: wait}}", `f:1: volumes.data.on-no-quorum: "wait" is no on-no-quorum policy`},
		{"relative journal", "volumes: {data: {journal: x}}", `f:1: volumes.data.journal: "x" is no absolute path`},
		{"relative store", "volumes: {data: {store: x}}", `f:1: volumes.data.store: "x" is no absolute path`},
		{"resync rate", "volumes: {data: {resync-rate: fast}}", `f:1: volumes.data.resync-rate: "fast" is no size`},
		{"resync after itself", "volumes: {data: {resync-after: data}}", `f:1: volume "data" would be resynced after itself: data after data`},
		{"resync in a circle", "volumes:\n  a: {resync-after: b}\n  b: {resync-after: c}\n  c: {resync-after: a}\n  d: {resync-after: a}", `volume "a" would be resynced after itself: a after b after c after a`},
		{"resync after nobody", "volumes: {data: {resync-after: dato}, datb: {}}", `f:1: volume "data": resync-after names volume "dato", which is not in volumes`},
		{"unknown handler", "handlers: {split-brian: x}", `f:1: unknown key "handlers.split-brian" (did you mean "split-brain"?)`},
		{"log format", "log: {format: jason}", `f:1: "jason" is not one of text, json (did you mean "json"?)`},
		{"log level", "log: {level: loud}", `f:1: log.level is "loud": write debug, info, warn or error`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(tc.text, "<<<", fmt.Sprintf("ca: %s\n    cert: %s\n    key: %s", f.CA, f.Cert, f.Key), 1)
			_, err := ParseConfig([]byte(text), "f")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got:  %v\nwant: %s", err, tc.want)
			}
			if e, ok := errors.AsType[*ConfigError](err); ok && len(e.Problems) != 1 {
				t.Errorf("%d problems, 1 expected:\n%v", len(e.Problems), err)
			}
		})
	}
}

func TestConfigErrorsAllAtOnce(t *testing.T) {
	_, err := ParseConfig([]byte("node: a/b\nnbd: {listen: x}\npeer: {listen: y}\nnodes: {beta: 'localhost:1'}\nvolumes:\n  data:\n    peers: [gamma]\n    resync-rate: fast\nlogs: {}\n"), "f")
	e, ok := errors.AsType[*ConfigError](err)
	if !ok {
		t.Fatal(err)
	}
	var lines []int
	for _, p := range e.Problems {
		lines = append(lines, p.Line)
	}
	if got := fmt.Sprint(lines); got != "[1 2 3 7 8 9]" {
		t.Errorf("problems in lines %s:\n%v", got, err)
	}
}

func TestConfigResyncUndo(t *testing.T) {
	for text, want := range map[string]int64{"off": mirror.UndoOff, "10GiB": 10 << 30} {
		c, err := ParseConfig([]byte("node: a\nvolumes: {data: {resync-undo: "+text+"}}\n"), "f")
		if err != nil || *c.Volumes["data"].ResyncUndo != want {
			t.Errorf("resync-undo: %s: %v, %v", text, c.Volumes["data"].ResyncUndo, err)
		}
	}
	for text, want := range map[string]string{"1MiB": "the least is", "on": "resync-undo", "[off]": "a single value"} {
		if _, err := ParseConfig([]byte("node: a\nvolumes: {data: {resync-undo: "+text+"}}\n"), "f"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("resync-undo: %s: %v", text, err)
		}
	}
}

func TestLoadConfigSaysWhatIsMissing(t *testing.T) {
	if _, err := LoadConfig(t.TempDir() + "/no.yaml"); err == nil || !strings.Contains(err.Error(), "no.yaml: no such file") {
		t.Error(err)
	}
	if _, err := LoadConfig(t.TempDir()); err == nil || !strings.Contains(err.Error(), "can't be read") {
		t.Error(err)
	}
}

// FuzzConfig: no text makes the parser panic; what it takes satisfies the rules
// that the daemon relies on.
func FuzzConfig(f *testing.F) {
	f.Add(wholeConfig)
	f.Add("node: [alpha\nx")
	f.Add("a: &a [*a]")
	f.Add("volumes: {? [a] : b, : }")
	f.Add("- 1\n---\n...\n")
	f.Add(tlsConfig("/etc/passwd", "/dev/zero", "/"))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig([]byte(text), "f")
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without words")
			}
			return
		}
		if checkName("node", c.Node) != nil || checkSocketPath(c.Admin) != nil || c.DataDir[0] != '/' {
			t.Fatalf("accepted: %+v", c)
		}
		if !c.Peer.AllowPlaintext && !c.Peer.TLS.isSet() {
			if !c.Peer.Listen.Loopback() {
				t.Fatalf("peers on %v without TLS or allow-plaintext", c.Peer.Listen)
			}
			for _, address := range c.Nodes {
				if err := c.Peer.plaintext(address); err != nil {
					t.Fatal(err)
				}
			}
		}
		for name, o := range c.Volumes {
			if err := o.apply(Settings{}, c.Nodes).check(c.Node); err != nil {
				t.Fatalf("volume %q: %v", name, err)
			}
		}
	})
}
