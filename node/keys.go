package node

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// caYears is how long a CA lasts that MakeKeys makes, nodeYears any other certificate.
	caYears, nodeYears = 20, 5
	// clockSkew is how far behind a peer's clock may be.
	clockSkew = 24 * time.Hour
)

// KeysOptions ask for keys for nodes, and for NBD clients.
type KeysOptions struct {
	Dir     string // of the CA, and of a directory for each node; made if it is not there
	Nodes   []string
	Clients []string // in Dir/clients
	Replace bool     // also for those that have keys there
}

// Keys are what MakeKeys made or found.
type Keys struct {
	CA      KeyFiles     `json:"ca"`
	Nodes   []NodeKeys   `json:"nodes"`
	Clients []ClientKeys `json:"clients,omitempty"`
}

// KeyFiles are a certificate and its private key.
type KeyFiles struct {
	Made  bool      `json:"made"` // now; not so a CA that was there
	Cert  string    `json:"cert"`
	Key   string    `json:"key"`
	Until time.Time `json:"until"` // when the certificate ends
}

// NodeKeys are what one node needs: the three files of TLSFiles.
type NodeKeys struct {
	Node string `json:"node"`
	Dir  string `json:"dir"`
	CA   string `json:"ca"` // a copy of the CA's certificate
	KeyFiles
}

// ClientKeys are what one NBD client needs, under the names that libnbd and qemu look for.
type ClientKeys struct {
	Client string `json:"client"`
	Dir    string `json:"dir"`
	CA     string `json:"ca"` // a copy of the CA's certificate, by which the nodes are known
	KeyFiles
}

// MakeKeys makes, for each node, a private key and a certificate that proves to the
// other nodes and to NBD clients who it is, for each client one that proves to the nodes
// who it is, and the CA that all believe unless Dir has one. A client's certificate has
// its name for a common name, and names no node. A CA is never
// replaced. All files have mode 0600, all directories that are made 0700. Each file is
// whole or absent, whenever the program ends.
func MakeKeys(o KeysOptions) (Keys, error) { return makeKeys(o, time.Now()) }

func makeKeys(o KeysOptions, now time.Time) (Keys, error) {
	if len(o.Nodes)+len(o.Clients) == 0 {
		return Keys{}, errors.New("keys are for nodes or clients: name one at least")
	}
	k := Keys{CA: KeyFiles{Cert: filepath.Join(o.Dir, "ca.crt"), Key: filepath.Join(o.Dir, "ca.key")}}
	fresh := func(kind, name, dir string, others []string, files ...string) error {
		if err := checkName(kind, name); err != nil {
			return err
		}
		if slices.Contains(others, name) {
			return fmt.Errorf("%s %q is named twice", kind, name)
		}
		switch there, err := anyExists(files...); {
		case err != nil:
			return err
		case there && !o.Replace:
			return fmt.Errorf("%s %q has keys in %s already: say --replace for new ones, which the old ones go on working beside until they end", kind, name, dir)
		}
		return nil
	}
	for i, name := range o.Nodes {
		dir := filepath.Join(o.Dir, name)
		if dir == k.CA.Cert || dir == k.CA.Key {
			return Keys{}, fmt.Errorf("node %q has the name of the CA's own file", name)
		}
		n := NodeKeys{Node: name, Dir: dir, CA: filepath.Join(dir, "ca.crt")}
		n.Cert, n.Key = filepath.Join(dir, "node.crt"), filepath.Join(dir, "node.key")
		if err := fresh("node", name, dir, o.Nodes[:i], n.CA, n.Cert, n.Key); err != nil {
			return Keys{}, err
		}
		k.Nodes = append(k.Nodes, n)
	}
	for i, name := range o.Clients {
		dir := filepath.Join(o.Dir, "clients", name)
		c := ClientKeys{Client: name, Dir: dir, CA: filepath.Join(dir, "ca-cert.pem")}
		c.Cert, c.Key = filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem")
		if err := fresh("client", name, dir, o.Clients[:i], c.CA, c.Cert, c.Key); err != nil {
			return Keys{}, err
		}
		k.Clients = append(k.Clients, c)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return Keys{}, fmt.Errorf("directory %s can't be made: %w", o.Dir, bare(err))
	}
	ca, err := openCA(&k.CA, now)
	if err != nil {
		return Keys{}, err
	}
	for i := range k.Nodes {
		n := &k.Nodes[i]
		if err := ca.issue(n.Dir, n.CA, &n.KeyFiles, nodeCertificate(n.Node), now); err != nil {
			return Keys{}, fmt.Errorf("keys of node %q: %w", n.Node, err)
		}
	}
	for i := range k.Clients {
		c := &k.Clients[i]
		if err := ca.issue(c.Dir, c.CA, &c.KeyFiles, clientCertificate(c.Client), now); err != nil {
			return Keys{}, fmt.Errorf("keys of client %q: %w", c.Client, err)
		}
	}
	return k, nil
}

func anyExists(paths ...string) (bool, error) {
	for _, path := range paths {
		switch _, err := os.Lstat(path); {
		case err == nil:
			return true, nil
		case !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
	}
	return false, nil
}

// An authority is a CA that can sign.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// openCA reads the CA, or makes it if it is not there.
func openCA(f *KeyFiles, now time.Time) (*authority, error) {
	cert, err := readTLSFile(f.Cert, false)
	if errors.Is(err, fs.ErrNotExist) {
		return makeCA(f, now)
	}
	var all []*x509.Certificate
	if err == nil {
		all, err = parseCertificates(cert)
	}
	if err == nil && (len(all) != 1 || !all[0].IsCA) {
		err = errors.New("it must hold one certificate, a CA's")
	}
	if err != nil {
		return nil, fmt.Errorf("the CA's certificate %s: %w", f.Cert, err)
	}
	ca := &authority{cert: all[0]}
	if ca.key, err = readSigner(f.Key); err != nil {
		return nil, fmt.Errorf("the CA's key %s: %w", f.Key, err)
	}
	if public, ok := ca.key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(ca.cert.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of the CA's certificate %s", f.Key, f.Cert)
	}
	if f.Until = ca.cert.NotAfter; !now.Before(f.Until) {
		return nil, fmt.Errorf("the CA of %s ended at %v: make another in another directory, and have every node believe both while its certificate is replaced", f.Cert, f.Until.Local().Format(time.DateTime))
	}
	return ca, nil
}

func readSigner(path string) (crypto.Signer, error) {
	text, err := readTLSFile(path, true)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("it holds no private key in PEM (PKCS #8)")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key is of a kind that signs nothing")
	}
	return signer, nil
}

func makeCA(f *KeyFiles, now time.Time) (*authority, error) {
	if there, err := anyExists(f.Key); there || err != nil {
		return nil, errors.Join(err, fmt.Errorf("the CA's key %s is there without its certificate %s: put that back, or delete the key if it has signed nothing", f.Key, f.Cert))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Lockstep CA of " + now.UTC().Format(time.DateTime)},
		NotBefore: now.Add(-clockSkew), NotAfter: now.AddDate(caYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	ca := &authority{t, key}
	if ca.cert, err = ca.sign(t, key); err != nil {
		return nil, err
	}
	f.Made, f.Until = true, ca.cert.NotAfter
	// The certificate last: with it the CA is whole.
	if err := writeKey(f.Key, key); err != nil {
		return nil, err
	}
	if err := writeCertificate(f.Cert, ca.cert); err != nil {
		return nil, errors.Join(err, os.Remove(f.Key))
	}
	return ca, nil
}

func nodeCertificate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// clientCertificate has no DNS name, which is what a node is known by: a client can't pose
// as the node that has its name.
func clientCertificate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name},
		// qemu wants the second as well, which is of no use with this kind of key.
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// issue makes the files of one for whom t is: the CA's certificate, and f's.
func (ca *authority) issue(dir, caPath string, f *KeyFiles, t *x509.Certificate, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory %s can't be made: %w", dir, bare(err))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t.NotBefore, t.NotAfter = now.Add(-clockSkew), now.AddDate(nodeYears, 0, 0)
	if t.NotAfter.After(ca.cert.NotAfter) {
		t.NotAfter = ca.cert.NotAfter
	}
	cert, err := ca.sign(t, key)
	if err != nil {
		return err
	}
	f.Made, f.Until = true, cert.NotAfter
	if err := writeCertificate(caPath, ca.cert); err != nil {
		return err
	}
	if err := writeKey(f.Key, key); err != nil {
		return err
	}
	return writeCertificate(f.Cert, cert)
}

// sign makes t the certificate of key.
func (ca *authority) sign(t *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	// Without a serial number of ours one is drawn at random.
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func writeCertificate(path string, c *x509.Certificate) error {
	return writeWhole(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeWhole(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// writeWhole makes a file of mode 0600, or puts it in another's place.
func writeWhole(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return fmt.Errorf("%s can't be made: %w", path, bare(err))
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s can't be written: %w", path, bare(err)), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}
