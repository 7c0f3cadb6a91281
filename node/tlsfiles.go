package node

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// maxTLSFile is the largest file of certificates or of a key that is read, bytes.
const maxTLSFile = 1 << 20

// TLSFiles name what proves who this node is, and who others are: absolute paths of
// files in PEM. The zero value is no TLS. NBD does without a CA.
type TLSFiles struct {
	CA   string // the certificates of the authorities whose word is taken, one at least
	Cert string // this node's certificate, then those between it and a CA, if any
	Key  string // its private key, which nobody but its owner may read
}

func (f TLSFiles) isSet() bool { return f != TLSFiles{} }

// An identity is what the files of a node hold.
type identity struct {
	roots *x509.CertPool
	cert  tls.Certificate // with its Leaf
	until time.Time       // when peers cease to believe it
	stale error           // why they do not now, for the time that it is
}

// A fileProblem is what is wrong with one of the files.
type fileProblem struct {
	key string // of the configuration: "ca", "cert" or "key"
	err error
}

// readFiles reads the files, of which CA may be absent, and lists what is wrong with each
// of them. chain is what Cert holds, nil if it can't be read.
func (f TLSFiles) readFiles() (id identity, chain []*x509.Certificate, problems []fileProblem) {
	bad := func(key, path string, err error) {
		problems = append(problems, fileProblem{key, fmt.Errorf("%s: %w", path, err)})
	}
	if f.CA != "" {
		ca, err := readTLSFile(f.CA, false)
		if err == nil {
			id.roots, err = parseCAs(ca)
		}
		if err != nil {
			bad("ca", f.CA, err)
		}
	}
	cert, err := readTLSFile(f.Cert, false)
	if err == nil {
		chain, err = parseCertificates(cert)
	}
	if err != nil {
		bad("cert", f.Cert, err)
	}
	key, keyErr := readTLSFile(f.Key, true)
	if keyErr != nil {
		bad("key", f.Key, keyErr)
	}
	if err == nil && keyErr == nil {
		if id.cert, err = tls.X509KeyPair(cert, key); err != nil {
			bad("key", f.Key, fmt.Errorf("it is not the key of the certificate in %s: %w", f.Cert, err))
		}
	}
	return id, chain, problems
}

// read reads the files as node's and lists all that is wrong with them, but for what
// the time alone makes wrong, and may mend (identity.stale).
func (f TLSFiles) read(node string) (identity, []fileProblem) {
	id, chain, problems := f.readFiles()
	if chain == nil {
		return id, problems
	}
	bad := func(format string, a ...any) {
		problems = append(problems, fileProblem{"cert", fmt.Errorf("%s: "+format, append([]any{f.Cert}, a...)...)})
	}
	leaf := chain[0]
	if !slices.Contains(leaf.DNSNames, node) {
		bad("the certificate is for %s, and this node is %q: make one with `lockstep keys %s`", namesOf(leaf), node, node)
	}
	if id.roots != nil {
		chains, err := verify(chain, id.roots, x509.ExtKeyUsageAny)
		if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
			id.stale = fmt.Errorf("peer.tls.cert: %s: peers refuse it: %w: make another with `lockstep keys --replace`", f.Cert, err)
		} else if err != nil {
			bad("no peer would believe it, by the CA in %s: %w", f.CA, err)
		}
		id.until = leaf.NotAfter
		for _, c := range slices.Concat(chains...) {
			if c.NotAfter.Before(id.until) {
				id.until = c.NotAfter
			}
		}
	}
	return id, problems
}

// load is read for a connection: it says one thing at once.
func (f TLSFiles) load(node string) (identity, error) {
	id, problems := f.read(node)
	return id, joinProblems("peer.tls", problems)
}

func joinProblems(section string, problems []fileProblem) error {
	var errs []error
	for _, p := range problems {
		errs = append(errs, fmt.Errorf("%s.%s: %w", section, p.key, p.err))
	}
	return errors.Join(errs...)
}

// readTLSFile reads a regular file; one that is secret must be its owner's alone.
func readTLSFile(path string, secret bool) ([]byte, error) {
	// Only a regular file is opened: anything else may have whoever opens it wait.
	st, err := os.Stat(path)
	if err != nil {
		return nil, bare(err)
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is no file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close()
	if st, err = f.Stat(); err != nil {
		return nil, bare(err)
	}
	if mode := st.Mode().Perm(); secret && mode&0o077 != 0 {
		return nil, fmt.Errorf("others than its owner may use this key (mode %04o): run `chmod 600 %s`, and make a new one if somebody has", mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTLSFile+1))
	if err != nil {
		return nil, bare(err)
	}
	if len(text) > maxTLSFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxTLSFile)
	}
	return text, nil
}

// parseCertificates reads every certificate of a PEM file: one at least.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("it holds a certificate that can't be read: %w", err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return all, nil
}

func parseCAs(text []byte) (*x509.CertPool, error) {
	all, err := parseCertificates(text)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range all {
		if !c.IsCA {
			return nil, fmt.Errorf("the certificate of %s is none of a CA", namesOf(c))
		}
		pool.AddCert(c)
	}
	return pool, nil
}

// verify judges a chain, the first certificate of which is whose it is.
func verify(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	return chain[0].Verify(o)
}

// namesOf is whom a certificate is for.
func namesOf(c *x509.Certificate) string {
	if len(c.DNSNames) == 0 {
		return fmt.Sprintf("nobody (its subject is %q)", c.Subject)
	}
	return fmt.Sprintf("%q", c.DNSNames)
}

// expiring is how long before its end a certificate is spoken of.
const expiring = 30 * 24 * time.Hour

// warning is a sentence about a certificate that has ended or will soon; "" is none.
func (id identity) warning(now time.Time) string {
	switch {
	case id.stale != nil:
		return id.stale.Error()
	case id.until.Sub(now) < expiring:
		return fmt.Sprintf("the certificate of peer.tls ends at %v, and peers will refuse it then: make another with `lockstep keys --replace`", id.until.Local().Format(time.DateTime))
	}
	return ""
}
