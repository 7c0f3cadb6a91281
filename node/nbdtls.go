package node

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lockstep-storage/lockstep/target/nbd"
)

// NBDTLS says how NBD clients prove who they are. The zero value is no TLS.
type NBDTLS struct {
	Mode nbd.TLSMode
	// Files are this node's. With a CA clients have to show a certificate; without,
	// whoever knows a volume's name is served.
	Files TLSFiles
	// Clients are the volumes that each client may open, by the common name of its
	// certificate; nil lets all that have one open all.
	Clients map[string][]string
}

// nbdTLSModes are the modes as the configuration has them.
var nbdTLSModes = map[string]nbd.TLSMode{"off": nbd.TLSOff, "optional": nbd.TLSOptional, "required": nbd.TLSRequired}

// options are what the server needs to know. The files are read for every connection, so
// new ones count without a restart.
func (t NBDTLS) options() nbd.TLS {
	o := nbd.TLS{Mode: t.Mode, Config: t.config}
	if t.Clients != nil {
		o.Admits = t.admits
	}
	return o
}

func (t NBDTLS) config() (*tls.Config, error) {
	id, err := t.load()
	if err != nil {
		return nil, err
	}
	c := id.config()
	c.MinVersion = tls.VersionTLS12 // the protocol's least; not all clients have more
	if id.roots != nil {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, id.roots
	}
	return c, nil
}

// admits: a volume's snapshots, and the read-only export of this replica, go with it.
func (t NBDTLS) admits(client *x509.Certificate, export string) bool {
	volume, _, _ := strings.Cut(export, "@")
	return client != nil && slices.Contains(t.Clients[client.Subject.CommonName], volume)
}

// read reads the files and lists all that is wrong with them, but for what the time alone
// makes wrong.
func (t NBDTLS) read() (identity, []fileProblem) {
	id, chain, problems := t.Files.readFiles()
	if chain == nil {
		return id, problems
	}
	bad := func(text string) {
		problems = append(problems, fileProblem{"cert", fmt.Errorf("%s: %s", t.Files.Cert, text)})
	}
	leaf := chain[0]
	id.until = leaf.NotAfter
	serves := func(u x509.ExtKeyUsage) bool { return u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageAny }
	switch {
	case leaf.IsCA || len(leaf.ExtKeyUsage) > 0 && !slices.ContainsFunc(leaf.ExtKeyUsage, serves):
		bad("the certificate is not for a server, and no client would believe it")
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		bad("the certificate names no host, and no client would believe it")
	}
	return id, problems
}

func (t NBDTLS) load() (identity, error) {
	id, problems := t.read()
	return id, joinProblems("nbd.tls", problems)
}

// warning is a sentence about what is not protected on an address; "" is none.
func (t NBDTLS) warning(a Address) string {
	switch {
	case a.Loopback() || t.Mode == nbd.TLSRequired && t.Files.CA != "":
		return ""
	case t.Mode == nbd.TLSOff:
		return "NBD clients are neither authenticated nor encrypted: whoever reaches this address can read and write every volume"
	case t.Mode == nbd.TLSOptional:
		return "NBD clients need no TLS (nbd.tls.mode is optional): whoever reaches this address can read and write every volume"
	}
	return "NBD clients are not authenticated (nbd.tls has no ca): whoever reaches this address can read and write every volume"
}

// ending is a sentence about a certificate that has ended or will soon; "" is none.
func (t NBDTLS) ending(id identity, now time.Time) string {
	if id.until.Sub(now) >= expiring {
		return ""
	}
	return fmt.Sprintf("the certificate of nbd.tls, %s, ends at %v, and NBD clients will refuse it then", t.Files.Cert, id.until.Local().Format(time.DateTime))
}

// checkNBDTLS refuses to start with files that no client could be convinced by.
func (n *Node) checkNBDTLS() error {
	t := n.cfg.NBD.TLS
	if t.Mode == nbd.TLSOff {
		return nil
	}
	id, err := t.load()
	if err != nil {
		return err
	}
	if text := t.ending(id, time.Now()); text != "" {
		n.log.Warn(text)
	}
	return nil
}

// nbdTLS reads a section whose presence asks for TLS.
func (p *configParser) nbdTLS(t *NBDTLS) func(*yaml.Node) {
	const at = "nbd.tls"
	clients := p.each(at+".clients", func(name string, key, value *yaml.Node) {
		if err := checkName("client", name); err != nil {
			p.errs.add(key.Line, "%v", err)
		}
		if !isSet(value) {
			p.errs.add(key.Line, "client %q has no volumes: list those that it may open", name)
		}
		at, volumes := at+".clients."+name, []string(nil)
		p.words(at, &volumes)(value)
		for _, v := range volumes {
			if err := checkName("volume", v); err != nil {
				p.errs.add(p.lines[at+"."+v], "client %q: %v", name, err)
			}
		}
		t.Clients[name] = volumes
	})
	section := p.section(at, fields{
		"mode": p.parsed(at+".mode", func(s string) error {
			mode, ok := nbdTLSModes[s]
			if !ok {
				return fmt.Errorf("%q is not one of %s%s", s, strings.Join(keysOf(nbdTLSModes), ", "), didYouMean(s, keysOf(nbdTLSModes)))
			}
			t.Mode = mode
			return nil
		}),
		"ca":   p.tlsFile(at+".ca", &t.Files.CA),
		"cert": p.tlsFile(at+".cert", &t.Files.Cert),
		"key":  p.tlsFile(at+".key", &t.Files.Key),
		"clients": func(v *yaml.Node) {
			if isSet(v) { // an empty mapping admits nobody
				t.Clients = map[string][]string{}
			}
			clients(v)
		},
	})
	return func(v *yaml.Node) {
		if isSet(v) {
			t.Mode = nbd.TLSRequired
		}
		section(v)
	}
}

// checkNBDTLS judges nbd.tls as a whole.
func (p *configParser) checkNBDTLS() {
	t := p.cfg.NBD.TLS
	if t.Mode == nbd.TLSOff {
		return
	}
	usable := true
	for key, path := range map[string]string{"ca": t.Files.CA, "cert": t.Files.Cert, "key": t.Files.Key} {
		if path == "" && key != "ca" {
			p.errs.add(p.lines["nbd.tls"], "nbd.tls has no %s: it needs cert and key, each the path of a file, and a ca if clients are to prove who they are", key)
		}
		usable = usable && (filepath.IsAbs(path) || path == "" && key == "ca")
	}
	if t.Clients != nil {
		line := p.lines["nbd.tls.clients"]
		if t.Files.CA == "" {
			p.errs.add(line, "nbd.tls.clients needs nbd.tls.ca: without it no client proves who it is")
		}
		if t.Mode == nbd.TLSOptional {
			p.errs.add(line, "nbd.tls.clients says what each client may open, but with nbd.tls.mode: optional one without TLS may open everything: remove one of the two")
		}
	}
	if !usable {
		return
	}
	_, problems := t.read()
	for _, problem := range problems {
		p.errs.add(p.lines["nbd.tls."+problem.key], "nbd.tls.%s: %v", problem.key, problem.err)
	}
}
