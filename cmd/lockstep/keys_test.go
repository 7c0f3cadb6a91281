package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/node"
)

// TestKeys: what one command makes is what a daemon takes, and nothing is overwritten
// unasked.
func TestKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	status, out, errOut := lockstep("keys", "alpha", "beta", "--dir", dir)
	if status != exitOK || errOut != "" {
		t.Fatal(status, out, errOut)
	}
	for _, want := range []string{
		"a new CA: " + dir + "/ca.crt and " + dir + "/ca.key, until ",
		"node alpha: ca.crt, node.crt and node.key in " + dir + "/alpha, until ",
		"scp " + dir + "/beta/* beta:/etc/lockstep/tls/\n",
		"tls: {ca: /etc/lockstep/tls/ca.crt, cert: /etc/lockstep/tls/node.crt, key: /etc/lockstep/tls/node.key}",
		"No node and no client needs " + dir + "/ca.key.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	check := func(name, dir string) (int, string) {
		file, _ := writeConfig(t, "nodes: {beta: 'other:7790'}\n")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tls := fmt.Sprintf("peer: {listen: '0.0.0.0:0', tls: {ca: %[1]s/ca.crt, cert: %[1]s/node.crt, key: %[1]s/node.key}}", dir)
		changed := strings.NewReplacer("peer: {listen: '127.0.0.1:0'}", tls, "node: alpha", "node: "+name).Replace(string(text))
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		status, out, errOut := lockstep("serve", "--check", "--config", file)
		return status, out + errOut
	}
	if status, out := check("alpha", dir+"/alpha"); status != exitOK {
		t.Error(out)
	}
	if status, out := check("gamma", dir+"/alpha"); status != exitFailure || !strings.Contains(out, `the certificate is for ["alpha"], and this node is "gamma"`) {
		t.Error(out)
	}

	status, out, errOut = lockstep("keys", "--dir", dir, "beta")
	if status != exitFailure || out != "" || !strings.Contains(errOut, `lockstep: node "beta" has keys in `+dir+`/beta already: say --replace`) {
		t.Error(status, out, errOut)
	}
	status, out, errOut = lockstep("keys", "beta", "gamma", "--dir", dir, "--replace", "--json")
	var k node.Keys
	if err := json.Unmarshal([]byte(out), &k); status != exitOK || err != nil {
		t.Fatal(status, out, errOut, err)
	}
	if k.CA.Made || k.CA.Key != dir+"/ca.key" || len(k.Nodes) != 2 || !k.Nodes[0].Made || k.Nodes[0].Node != "beta" || k.Nodes[1].Cert != dir+"/gamma/node.crt" || k.Nodes[1].Until.Before(time.Now()) {
		t.Errorf("%+v", k)
	}
	for _, key := range []string{`"ca": {`, `"nodes": [`, `"node": "beta"`, `"made": true`, `"dir": "` + dir + `/beta"`, `"until": "`} {
		if !strings.Contains(out, key) {
			t.Errorf("%s is not in\n%s", key, out)
		}
	}
	if status, out := check("gamma", dir+"/gamma"); status != exitOK {
		t.Error(out)
	}

	status, out, errOut = lockstep("keys", "--client", "web1", "--client", "web2", "--dir", dir)
	if status != exitOK || errOut != "" || strings.Contains(out, "scp") {
		t.Error(status, out, errOut)
	}
	for _, want := range []string{
		"client web1: ca-cert.pem, client-cert.pem and client-key.pem in " + dir + "/clients/web1, until ",
		"nbdinfo 'nbds://NODE/VOLUME?tls-certificates=" + dir + "/clients/web2'\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	status, out, errOut = lockstep("keys", "--client", "web1", "--dir", dir)
	if status != exitFailure || out != "" || !strings.Contains(errOut, `client "web1" has keys in `+dir+`/clients/web1 already`) {
		t.Error(status, out, errOut)
	}
}

func TestKeysUsage(t *testing.T) {
	if status, _, errOut := lockstep("keys"); status != exitUsage || !strings.Contains(errOut, "keys needs NODE... or --client NAME") {
		t.Error(status, errOut)
	}
	dir := t.TempDir()
	if status, _, errOut := lockstep("keys", "a/b", "--dir", dir); status != exitFailure || !strings.Contains(errOut, `"a/b" can't name a node`) {
		t.Error(status, errOut)
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
		t.Error(made, err)
	}
}
