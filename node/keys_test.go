package node

import (
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// madeKeys makes keys of a new CA, and gives the files of each node.
func madeKeys(t testing.TB, nodes ...string) map[string]TLSFiles {
	t.Helper()
	return madeKeysIn(t, t.TempDir(), time.Now(), nodes...)
}

func madeKeysIn(t testing.TB, dir string, now time.Time, nodes ...string) map[string]TLSFiles {
	t.Helper()
	k, err := makeKeys(KeysOptions{Dir: dir, Nodes: nodes, Replace: true}, now)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]TLSFiles{}
	for _, n := range k.Nodes {
		files[n.Node] = TLSFiles{CA: n.CA, Cert: n.Cert, Key: n.Key}
	}
	return files
}

// madeClientKeys makes keys of NBD clients, by the CA in dir.
func madeClientKeys(t testing.TB, dir string, clients ...string) map[string]TLSFiles {
	t.Helper()
	k, err := makeKeys(KeysOptions{Dir: dir, Clients: clients, Replace: true}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]TLSFiles{}
	for _, c := range k.Clients {
		files[c.Client] = TLSFiles{CA: c.CA, Cert: c.Cert, Key: c.Key}
	}
	return files
}

func TestMakeKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "keys")
	k, err := MakeKeys(KeysOptions{Dir: dir, Nodes: []string{"alpha", "beta"}})
	if err != nil {
		t.Fatal(err)
	}
	if !k.CA.Made || len(k.Nodes) != 2 || k.Nodes[1].Node != "beta" || k.Nodes[1].Dir != filepath.Join(dir, "beta") {
		t.Errorf("%+v", k)
	}
	usable := func(n NodeKeys) {
		t.Helper()
		if id, problems := (TLSFiles{n.CA, n.Cert, n.Key}).read(n.Node); len(problems) > 0 || id.warning(time.Now()) != "" {
			t.Errorf("%s: %v, %q", n.Node, problems, id.warning(time.Now()))
		} else if !id.until.Equal(n.Until) || n.Until.Before(time.Now().AddDate(nodeYears, 0, -1)) {
			t.Errorf("%s: until %v and %v", n.Node, id.until, n.Until)
		}
	}
	for _, n := range k.Nodes {
		usable(n)
	}
	files := snapshot(t, dir)
	if len(files) != 2+2*3 {
		t.Errorf("%d files: %v", len(files), keysOf(files))
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", path, st.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}

	// Nothing is overwritten: not even gamma gets keys.
	_, err = MakeKeys(KeysOptions{Dir: dir, Nodes: []string{"gamma", "beta"}})
	if err == nil || !strings.Contains(err.Error(), `node "beta" has keys in `+dir+`/beta already: say --replace`) {
		t.Error(err)
	}
	changed := func() (names []string) {
		now := snapshot(t, dir)
		for name := range now {
			if rel, _ := filepath.Rel(dir, name); files[name] != now[name] {
				names = append(names, rel)
			}
		}
		files = now
		return names
	}
	if got := changed(); len(got) > 0 {
		t.Errorf("a refused request changed %v", got)
	}

	// Another node gets keys of the same CA.
	k2, err := MakeKeys(KeysOptions{Dir: dir, Nodes: []string{"gamma"}})
	if err != nil || k2.CA.Made || !k2.CA.Until.Equal(k.CA.Until) {
		t.Fatalf("%+v, %v", k2, err)
	}
	usable(k2.Nodes[0])
	if got := changed(); len(got) != 3 || !strings.HasPrefix(got[0], "gamma/") {
		t.Errorf("keys for gamma changed %v", got)
	}
	if files[k2.Nodes[0].CA] != files[k.CA.Cert] {
		t.Error("gamma believes another CA")
	}

	// With replace a node's key changes, and the CA does not.
	k3, err := MakeKeys(KeysOptions{Dir: dir, Nodes: []string{"beta"}, Replace: true})
	if err != nil || k3.CA.Made {
		t.Fatalf("%+v, %v", k3, err)
	}
	usable(k3.Nodes[0])
	if got := changed(); len(got) != 2 || !strings.HasPrefix(got[0], "beta/node.") || !strings.HasPrefix(got[1], "beta/node.") {
		t.Errorf("keys for beta changed %v", got)
	}
}

// TestMakeClientKeys: a client has a name, and none that a node could have.
func TestMakeClientKeys(t *testing.T) {
	dir := t.TempDir()
	madeKeysIn(t, dir, time.Now(), "alpha")
	before := snapshot(t, dir)
	files := madeClientKeys(t, dir, "alpha", "web.1")
	if n := len(snapshot(t, dir)) - len(before); n != 2*3 {
		t.Errorf("%d files were made", n)
	}
	for name, f := range files {
		if want := filepath.Join(dir, "clients", name); f.CA != want+"/ca-cert.pem" || f.Cert != want+"/client-cert.pem" || f.Key != want+"/client-key.pem" {
			t.Errorf("%+v", f)
		}
		id, chain, problems := f.readFiles()
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if leaf := chain[0]; leaf.Subject.CommonName != name || len(leaf.DNSNames) > 0 || id.cert.PrivateKey == nil {
			t.Errorf("%s: %q, %q", name, leaf.Subject, leaf.DNSNames)
		}
		if _, err := verify(chain, id.roots, x509.ExtKeyUsageClientAuth); err != nil {
			t.Error(err)
		}
		if _, err := verify(chain, id.roots, x509.ExtKeyUsageServerAuth); err == nil {
			t.Error("a client could pose as a server")
		}
	}
	if _, err := MakeKeys(KeysOptions{Dir: dir, Clients: []string{"web.2", "alpha"}}); err == nil || !strings.Contains(err.Error(), `client "alpha" has keys in `) {
		t.Error(err)
	}
	if _, err := MakeKeys(KeysOptions{Dir: dir, Clients: []string{"../x"}}); err == nil || !strings.Contains(err.Error(), `can't name a client`) {
		t.Error(err)
	}
}

// TestMakeKeysOfAnyName: whatever may name a node may stand in its certificate.
func TestMakeKeysOfAnyName(t *testing.T) {
	for _, name := range []string{"a", "A.B", "a..b", "a.", "_x-", "10.0.0.1", "a-_", "ca", strings.Repeat("x", maxName)} {
		for node, files := range madeKeys(t, name) {
			if _, problems := files.read(node); len(problems) > 0 {
				t.Errorf("%q: %v", name, problems)
			}
		}
	}
}

func TestMakeKeysRefuses(t *testing.T) {
	good := t.TempDir()
	madeKeysIn(t, good, time.Now(), "alpha")
	expired := t.TempDir()
	madeKeysIn(t, expired, time.Now().AddDate(-caYears-1, 0, 0), "alpha")
	broken := func(change func(dir string) error) string {
		dir := t.TempDir()
		madeKeysIn(t, dir, time.Now(), "alpha")
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, dir string
		nodes     []string
		want      string
	}{
		{"nobody", good, nil, "name one at least"},
		{"no name", good, []string{"a/b"}, `"a/b" can't name a node`},
		{"twice", good, []string{"b", "b"}, `node "b" is named twice`},
		{"the CA's file", good, []string{"ca.key"}, "has the name of the CA's own file"},
		{"no directory", file, []string{"b"}, "not a directory"},
		{"expired CA", expired, []string{"b"}, "ended at"},
		{"no key of the CA", broken(func(d string) error { return os.Remove(d + "/ca.key") }), []string{"b"}, "ca.key: no such file"},
		{"no certificate of the CA", broken(func(d string) error { return os.Remove(d + "/ca.crt") }), []string{"b"}, "is there without its certificate"},
		{"bad certificate", broken(func(d string) error { return os.WriteFile(d+"/ca.crt", []byte("x"), 0o600) }), []string{"b"}, "it holds no certificate in PEM"},
		{"a node's certificate", broken(func(d string) error { return os.Rename(d+"/alpha/node.crt", d+"/ca.crt") }), []string{"b"}, "it must hold one certificate, a CA's"},
		{"another's key", broken(func(d string) error { return os.Rename(d+"/alpha/node.key", d+"/ca.key") }), []string{"b"}, "is not the key of the CA's certificate"},
		{"bad key", broken(func(d string) error { return os.WriteFile(d+"/ca.key", []byte("x"), 0o600) }), []string{"b"}, "it holds no private key in PEM"},
		{"open key", broken(func(d string) error { return os.Chmod(d+"/ca.key", 0o640) }), []string{"b"}, "others than its owner may use this key (mode 0640)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := map[string]string{}
			if tc.dir != file {
				before = snapshot(t, tc.dir)
			}
			_, err := MakeKeys(KeysOptions{Dir: tc.dir, Nodes: tc.nodes})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got:  %v\nwant: %s", err, tc.want)
			}
			if tc.dir != file && len(snapshot(t, tc.dir)) != len(before) {
				t.Error("files were made")
			}
		})
	}
}
