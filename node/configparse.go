package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lockstep-storage/lockstep/mirror"
)

const maxPeers = 8 // of one volume; package mirror's limit

// ParseConfig reads a configuration from YAML; file is its name in messages and
// may be "". What the text leaves out is the default. The error is a
// *ConfigError.
func ParseConfig(text []byte, file string) (Config, error) {
	p := &configParser{cfg: DefaultConfig(), errs: &ConfigError{File: file}}
	p.cfg.File = file
	if root := p.document(text); root != nil {
		p.mapping(root, "", p.sections())
	}
	if p.understood {
		p.check()
	}
	return p.cfg, p.errs.errOrNil()
}

// configParser walks the YAML tree once, filling cfg and collecting problems.
type configParser struct {
	cfg        Config
	errs       *ConfigError
	understood bool // the text is YAML and a mapping
	adminSet   bool

	// lines remembers where a value stood, for checks across sections.
	lines map[string]int
}

// document gives the root mapping, or nil when there is none.
func (p *configParser) document(text []byte) *yaml.Node {
	p.lines = map[string]int{}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		p.understood = true
		return nil // an empty file: every default
	case err != nil:
		p.syntax(err)
		return nil
	}
	if err := dec.Decode(&second); err == nil {
		p.errs.add(second.Line, "a second YAML document begins here: a config file is one")
	} else if !errors.Is(err, io.EOF) {
		p.syntax(err)
	}
	p.understood = true
	if len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

func (p *configParser) syntax(err error) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if m := yamlLine.FindStringSubmatchIndex(text); m != nil {
		line, _ = strconv.Atoi(text[m[2]:m[3]])
		text = text[:m[0]] + text[m[1]:]
	}
	p.errs.add(line, "not YAML: %s", text)
}

// fields are the keys that a mapping may have, and who reads each value.
type fields map[string]func(v *yaml.Node)

func (p *configParser) sections() fields {
	c := &p.cfg
	return fields{
		"node":     p.text(&c.Node),
		"data-dir": p.absolute("data-dir", &c.DataDir),
		"admin": func(v *yaml.Node) {
			p.adminSet = true
			p.socket(&c.Admin)(v)
		},
		"nbd": p.section("nbd", fields{
			"listen": p.addresses(&c.NBD.Listen),
			"tls":    p.nbdTLS(&c.NBD.TLS),
		}),
		"peer": p.section("peer", fields{
			"listen":          p.parsed("peer.listen", p.peerListen),
			"allow-plaintext": p.boolean(&c.Peer.AllowPlaintext),
			"tls": p.section("peer.tls", fields{
				"ca":   p.tlsFile("peer.tls.ca", &c.Peer.TLS.CA),
				"cert": p.tlsFile("peer.tls.cert", &c.Peer.TLS.Cert),
				"key":  p.tlsFile("peer.tls.key", &c.Peer.TLS.Key),
			}),
		}),
		"nodes":    p.each("nodes", p.oneNode),
		"volumes":  p.each("volumes", p.oneVolume),
		"handlers": p.handlers("handlers", &c.Handlers),
		"log": p.section("log", fields{
			"format": p.choice(&c.Log.Format, "text", "json"),
			"level":  p.parsed("log.level", p.logLevel),
		}),
	}
}

func (p *configParser) oneNode(name string, key, value *yaml.Node) {
	if err := checkName("node", name); err != nil {
		p.errs.add(key.Line, "%v", err)
	}
	var addr string
	p.text(&addr)(value)
	if addr == "" {
		p.errs.add(key.Line, "node %q has no address: write HOST:PORT", name)
		return
	}
	if err := checkPeerAddress(addr); err != nil {
		p.errs.add(value.Line, "node %q: %v", name, err)
	}
	if p.cfg.Nodes == nil {
		p.cfg.Nodes = map[string]string{}
	}
	p.cfg.Nodes[name] = addr
}

func (p *configParser) oneVolume(name string, key, value *yaml.Node) {
	if err := checkName("volume", name); err != nil {
		p.errs.add(key.Line, "%v", err)
	}
	var o Overrides
	at := "volumes." + name
	of := fields{
		"peers":               p.words(at+".peers", &o.Peers),
		"pending-limit":       p.size(at+".pending-limit", &o.PendingLimit, 4<<20),
		"resync-rate":         p.rate(at+".resync-rate", &o.ResyncRate),
		"resync-rate-min":     p.size(at+".resync-rate-min", &o.Resync.RateMin, 64<<10),
		"resync-rate-max":     p.size(at+".resync-rate-max", &o.Resync.RateMax, 0),
		"resync-checksums":    p.flag(&o.Resync.Checksums),
		"resync-after":        p.text(&o.Resync.After),
		"resync-undo":         p.sizeOrOff(at+".resync-undo", &o.ResyncUndo, 64<<20, mirror.UndoOff),
		"snapshot-limit":      p.size(at+".snapshot-limit", &o.SnapshotLimit, 0),
		"peer-timeout":        p.duration(at+".peer-timeout", &o.PeerTimeout, 200*time.Millisecond),
		"peer-latency-budget": p.durationOrOff(at+".peer-latency-budget", &o.PeerLatencyBudget, mirror.BudgetLeast),
		"sync-interval":       p.duration(at+".sync-interval", &o.SyncInterval, time.Millisecond),
		"retry-interval":      p.duration(at+".retry-interval", &o.RetryInterval, time.Millisecond),
		"handlers":            p.handlers(at+".handlers", &o.Handlers),
		"store":               p.path(at+".store", &o.Store),
		"direct":              p.flag(&o.Direct),
		"journal":             p.path(at+".journal", &o.Journal),
		"on-io-error": func(v *yaml.Node) {
			var policy mirror.IOErrorPolicy
			p.parsed(at+".on-io-error", func(s string) error {
				o.OnIOError = &policy
				return policy.UnmarshalText([]byte(s))
			})(v)
		},
		"min-in-sync": p.parsed(at+".min-in-sync", func(s string) (err error) {
			o.MinInSync, err = parseMinInSync(s)
			return err
		}),
		"on-no-quorum": func(v *yaml.Node) {
			var policy mirror.QuorumPolicy
			p.parsed(at+".on-no-quorum", func(s string) error {
				o.OnNoQuorum = &policy
				return policy.UnmarshalText([]byte(s))
			})(v)
		},
	}
	for _, setting := range mirror.SplitSettings() {
		of[setting] = p.parsed(at+"."+setting, func(s string) error { return o.Split.Set(setting, s) })
	}
	p.section(at, of)(value)
	if p.cfg.Volumes == nil {
		p.cfg.Volumes = map[string]Overrides{}
	}
	p.cfg.Volumes[name] = o
}

// parseMinInSync parses a count of replicas.
func parseMinInSync(s string) (*int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxPeers+1 {
		return nil, fmt.Errorf("%q is no count of replicas: 1 to %d are wanted", s, maxPeers+1)
	}
	return &n, nil
}

// check judges what takes more than one value to judge.
func (p *configParser) check() {
	c := &p.cfg
	if !p.adminSet {
		c.Admin = adminSocket(c.DataDir)
		if err := checkSocketPath(c.Admin); err != nil {
			p.errs.add(p.lines["data-dir"], "%v: set admin to a shorter one", err)
		}
	}
	if err := checkName("node", c.Node); err != nil {
		p.errs.add(p.lines["node"], "%v; set node to this node's name", err)
	}
	if _, ok := c.Nodes[c.Node]; ok {
		p.errs.add(p.lines["nodes."+c.Node], "nodes lists this node, %q, itself: list only the others", c.Node)
	}
	p.checkTLS()
	p.checkNBDTLS()
	for name, o := range c.Volumes {
		p.checkPeers(name, o.Peers)
		p.checkResyncAfter(name, o.Resync.After)
		if node := o.Split.Discards(); node != "" && node != c.Node && c.Nodes[node] == "" {
			p.errs.add(p.lines["volumes."+name+".after-sb-0pri"], "volume %q: after-sb-0pri names node %q, which is neither this node nor in nodes", name, node)
		}
	}
}

// checkTLS: peers of other hosts prove who they are, or the file says that they need not.
func (p *configParser) checkTLS() {
	c := &p.cfg.Peer
	set := c.TLS.isSet()
	switch {
	case !set && !c.AllowPlaintext && !c.Listen.Loopback():
		p.errs.add(p.lines["peer.listen"], "peer.listen %s can be reached from other hosts, and without peer.tls whoever reaches it can pose as a peer: "+
			"make keys with `lockstep keys` and name them in peer.tls; or, if only trusted hosts reach it, say so with peer.allow-plaintext: true", c.Listen)
	case set && c.AllowPlaintext:
		p.errs.add(p.lines["peer.allow-plaintext"], "peer.allow-plaintext is true, but with peer.tls no peer is spoken to without TLS: remove one of the two")
	default:
		for name, address := range p.cfg.Nodes {
			if err := c.plaintext(address); err != nil && checkPeerAddress(address) == nil {
				p.errs.add(p.lines["nodes."+name], "node %q: %v", name, err)
			}
		}
	}
	if !set {
		return
	}
	usable := true
	for key, path := range map[string]string{"ca": c.TLS.CA, "cert": c.TLS.Cert, "key": c.TLS.Key} {
		if path == "" {
			p.errs.add(p.lines["peer.tls"], "peer.tls has no %s: it needs ca, cert and key, each the path of a file", key)
		}
		usable = usable && filepath.IsAbs(path)
	}
	if !usable {
		return
	}
	_, problems := c.TLS.read(p.cfg.Node)
	for _, problem := range problems {
		p.errs.add(p.lines["peer.tls."+problem.key], "peer.tls.%s: %v", problem.key, problem.err)
	}
}

func (p *configParser) checkPeers(volume string, peers []string) {
	if len(peers) > maxPeers {
		p.errs.add(p.lines["volumes."+volume], "volume %q has %d peers, the limit is %d", volume, len(peers), maxPeers)
	}
	for i, peer := range peers {
		line := p.lines["volumes."+volume+".peers."+peer]
		switch _, known := p.cfg.Nodes[peer]; {
		case peer == p.cfg.Node:
			p.errs.add(line, "volume %q lists this node, %q, as its own peer", volume, peer)
		case !known:
			p.errs.add(line, "volume %q: peer %q is not in nodes%s: add its address there", volume, peer, didYouMean(peer, keysOf(p.cfg.Nodes)))
		case slices.Contains(peers[:i], peer):
			p.errs.add(line, "volume %q lists peer %q twice", volume, peer)
		}
	}
}

// checkResyncAfter: no volume may wait for itself, nor for one that is unknown.
func (p *configParser) checkResyncAfter(volume, after string) {
	line := p.lines["volumes."+volume+".resync-after"]
	if after == "" {
		return
	}
	if _, known := p.cfg.Volumes[after]; !known {
		p.errs.add(line, "volume %q: resync-after names volume %q, which is not in volumes%s", volume, after, didYouMean(after, keysOf(p.cfg.Volumes)))
		return
	}
	way := []string{volume}
	for next := after; next != "" && !slices.Contains(way[1:], next); next = p.cfg.Volumes[next].Resync.After {
		way = append(way, next)
		if next == volume && slices.Min(way) == volume { // one of the circle says so
			p.errs.add(line, "volume %q would be resynced after itself: %s", volume, strings.Join(way, " after "))
			return
		}
	}
}

func (p *configParser) peerListen(s string) error {
	a, err := parseTCP(s)
	if err == nil {
		p.cfg.Peer.Listen = a
	}
	return err
}

func (p *configParser) absolute(at string, to *string) func(*yaml.Node) {
	return p.parsed(at, func(s string) error {
		if !filepath.IsAbs(s) {
			return fmt.Errorf("%q is no absolute path", s)
		}
		*to = filepath.Clean(s)
		return nil
	})
}

// tlsFile is an absolute path; a wrong one is kept, so that it is not missed as well.
func (p *configParser) tlsFile(at string, to *string) func(*yaml.Node) {
	return p.parsed(at, func(s string) error {
		if *to = filepath.Clean(s); !filepath.IsAbs(s) {
			return fmt.Errorf("%q is no absolute path", s)
		}
		return nil
	})
}

// path is an absolute path that may be left out.
func (p *configParser) path(at string, to **string) func(*yaml.Node) {
	return func(v *yaml.Node) {
		var path string
		if p.absolute(at, &path)(v); path != "" {
			*to = &path
		}
	}
}

func (p *configParser) socket(to *string) func(*yaml.Node) {
	return p.parsed("admin", func(s string) error {
		*to = s
		return checkSocketPath(s)
	})
}

func (p *configParser) addresses(to *[]Address) func(*yaml.Node) {
	return func(v *yaml.Node) {
		var all []string
		p.words("nbd.listen", &all)(v)
		if all == nil {
			return
		}
		*to = nil
		for i, s := range all {
			a, err := ParseAddress(s)
			if err != nil {
				p.errs.add(p.lines["nbd.listen."+s], "nbd.listen: %v", err)
			} else if slices.Contains(all[:i], s) {
				p.errs.add(p.lines["nbd.listen."+s], "nbd.listen has %s twice", s)
			}
			*to = append(*to, a)
		}
	}
}

func (p *configParser) logLevel(s string) error {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s) {
		return errors.New("log.level is " + strconv.Quote(s) + ": write debug, info, warn or error")
	}
	return p.cfg.Log.Level.UnmarshalText([]byte(s))
}
