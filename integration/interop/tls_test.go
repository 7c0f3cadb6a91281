package interop

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/node"
)

// A secured is a node, whose name is that of its host, that lets clients in over TLS
// alone: web1 to the volume "data", web2 to another.
type secured struct {
	export        // "data", for web1
	other  string // the directory of web2's keys
	nobody string // a directory without keys, but for the CA by which the node is known
	unix   string // the path of the node's unix socket
}

func serveTLS(t *testing.T) secured {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a daemon, which -short leaves out")
	}
	dir, err := os.MkdirTemp("", "lockstep-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	k, err := node.MakeKeys(node.KeysOptions{Dir: filepath.Join(dir, "keys"), Nodes: []string{"localhost"}, Clients: []string{"web1", "web2"}})
	if err != nil {
		t.Fatal(err)
	}
	s := secured{export: export{network: "tcp", name: "data", keys: k.Clients[0].Dir}, other: k.Clients[1].Dir, nobody: filepath.Join(dir, "nobody"), unix: filepath.Join(dir, "nbd")}
	ca, err := os.ReadFile(k.CA.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.nobody, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.nobody, "ca-cert.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := node.ParseConfig(fmt.Appendf(nil, `
node: localhost
data-dir: %s/data
peer: {listen: "127.0.0.1:0"}
nbd:
  listen: ["127.0.0.1:0", "unix:%s"]
  tls: {ca: %s, cert: %s, key: %s, clients: {web1: data, web2: other}}
`, dir, s.unix, k.Nodes[0].CA, k.Nodes[0].Cert, k.Nodes[0].Key), "")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(node.Options{Config: c, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
		defer cancel()
		if err := n.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	client := node.NewClient(c.Admin)
	defer client.Close()
	for _, volume := range []string{"data", "other"} {
		if _, err := client.Create(t.Context(), node.CreateRequest{Name: volume, Size: exportSize}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Promote(t.Context(), volume, node.PromoteRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	_, port, err := net.SplitHostPort(n.Status().NBD[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	s.addr = "localhost:" + port
	return s
}

// TestTLS: clients with keys, by name, and clients that are refused.
func TestTLS(t *testing.T) {
	harness.NeedTools(t, "nbdinfo", "nbdcopy", "qemu-img")
	s := serveTLS(t)
	t.Run("nbdinfo", func(t *testing.T) { nbdinfo(t, s.export) }) // lists this volume alone
	t.Run("nbdcopy", func(t *testing.T) { nbdcopy(t, s.export) })
	t.Run("qemu-img", func(t *testing.T) { qemuImgTLS(t, s) })

	plain := s.export
	plain.keys = ""
	other, nobody := s.export, s.export
	other.keys, nobody.keys = s.other, s.nobody
	byAddress := s.export
	byAddress.addr = strings.Replace(s.addr, "localhost", "127.0.0.1", 1)
	for _, tc := range []struct {
		name string
		e    export
		want string
	}{
		{"without TLS", plain, "TLS"},
		{"another's volume", other, "No such file"},
		{"without a certificate", nobody, "TLS fatal alert"},
		{"a node of another name", byAddress, "certificate verification"}, // by the client
	} {
		for _, args := range [][]string{{"nbdinfo", tc.e.uri()}, {"nbdcopy", tc.e.uri(), "null:"}} {
			if out, stderr, err := command(t, args[0], args[1:]...); err == nil || !strings.Contains(out+stderr, tc.want) {
				t.Errorf("%s, %s: %v, want %q\n%s%s", tc.name, args[0], err, tc.want, out, stderr)
			}
		}
	}
	run(t, "nbdinfo", export{network: "unix", addr: s.unix, name: "other"}.uri())
}

// qemuImgTLS: qemu has no URI for TLS.
func qemuImgTLS(t *testing.T, s secured) {
	host, port, _ := strings.Cut(s.addr, ":")
	with := func(keys, command string, args ...string) []string {
		creds := "tls-creds-x509,id=tls0,endpoint=client,dir=" + keys
		return append([]string{command, "--object", creds}, args...)
	}
	image1 := "driver=nbd,host=" + host + ",port=" + port + ",export=data,tls-creds=tls0"
	src, back := image(t), filepath.Join(t.TempDir(), "back")
	run(t, "nbdcopy", "--flush", src, s.uri())
	run(t, "qemu-img", with(s.keys, "convert", "--image-opts", "-O", "raw", image1, back)...)
	sameFiles(t, src, back)
	local := "driver=file,filename=" + back
	run(t, "qemu-img", with(s.keys, "convert", "-n", "-W", "-m", "16", "--image-opts", "--target-image-opts", local, image1)...)
	run(t, "qemu-img", with(s.keys, "compare", "--image-opts", "driver=raw,file.driver=file,file.filename="+src, image1)...)
	for keys, want := range map[string]string{s.other: "no such export", s.nobody: "TLS channel"} {
		if out, stderr, err := command(t, "qemu-img", with(keys, "info", "--image-opts", image1)...); err == nil || !strings.Contains(stderr, want) {
			t.Errorf("%s: %v, want %q\n%s%s", keys, err, want, out, stderr)
		}
	}
	if out, stderr, err := command(t, "qemu-img", "info", "nbd://"+s.addr+"/data"); err == nil || !strings.Contains(stderr, "TLS") {
		t.Errorf("without TLS: %v\n%s%s", err, out, stderr)
	}
}
