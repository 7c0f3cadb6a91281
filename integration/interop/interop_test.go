package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

const size = 64 << 20

// An export is where a server offers size bytes.
type export struct{ addr, name string }

func (e export) uri() string { return "nbd://" + e.addr + "/" + e.name }

// clients are tried in this order, on one export.
var clients = []struct {
	name     string
	programs []string
	use      func(t *testing.T, e export)
}{
	{"nbdinfo", []string{"nbdinfo"}, nbdinfo},
	{"nbdcopy", []string{"nbdcopy"}, nbdcopy},
	{"qemu-img", []string{"qemu-img"}, qemuImg},
	{"qemu-io", []string{"qemu-io"}, qemuIO},
	{"fio", []string{"fio"}, fio},
	{"libnbd", nil, libnbd},
}

func TestClientsOnNbdkit(t *testing.T) {
	harness.NeedTools(t, "nbdkit")
	addr, err := daemon.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(addr, ":")
	server := exec.Command("nbdkit", "-f", "-i", host, "-p", port, "memory", fmt.Sprint(size))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	late := time.Now().Add(harness.Patience)
	for c, err := net.Dial("tcp", addr); err != nil || c.Close() != nil; c, err = net.Dial("tcp", addr) {
		if time.Now().After(late) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // nbdkit has no other way to say that it is ready
	}
	try(t, export{addr, ""})
}

func TestClientsOnLockstep(t *testing.T) {
	p := harness.NewPair(t, harness.Options{Size: size})
	try(t, export{p.Alpha.NBD, harness.Volume})
	p.EqualReplicas()
}

func try(t *testing.T, e export) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			harness.NeedTools(t, c.programs...)
			c.use(t, e)
		})
	}
}

// output runs a client, which must succeed.
func output(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = t.TempDir() // some leave files where they stand
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return string(out)
}

func nbdinfo(t *testing.T, e export) {
	var info struct {
		Protocol string
		Exports  []map[string]any
	}
	out := output(t, "nbdinfo", "--json", e.uri())
	if err := json.Unmarshal([]byte(out), &info); err != nil || len(info.Exports) != 1 {
		t.Fatalf("nbdinfo printed %s: %v", out, err)
	}
	want := map[string]any{"export-size": float64(size), "is_read_only": false, "can_flush": true, "can_fua": true,
		"can_trim": true, "can_zero": true, "can_multi_conn": true}
	for key, v := range want {
		if got := info.Exports[0][key]; got != v {
			t.Errorf("%s is %v, want %v", key, got, v)
		}
	}
	list := output(t, "nbdinfo", "--list", "nbd://"+e.addr)
	if !strings.Contains(list, fmt.Sprintf("export=%q", e.name)) || strings.Count(list, "export=") != 1 {
		t.Errorf("the list is to name export %q alone:\n%s", e.name, list)
	}
}

// image makes a file of the export's size with holes, zeroes and data.
func image(t *testing.T) string {
	b := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(harness.Seed(t))})
	for off := 0; off < size; off += 3 << 20 {
		_, _ = rng.Read(b[off:min(off+1<<20+512, size)])
	}
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	p, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	q, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, q) {
		t.Errorf("%s and %s differ", a, b)
	}
}

func nbdcopy(t *testing.T, e export) {
	in, out := image(t), filepath.Join(t.TempDir(), "out")
	output(t, "nbdcopy", "--flush", in, e.uri())
	output(t, "nbdcopy", "--flush", e.uri(), out)
	sameFiles(t, in, out)
}

func qemuImg(t *testing.T, e export) {
	in := image(t)
	if info := output(t, "qemu-img", "info", "--output=json", "-f", "raw", e.uri()); !strings.Contains(info, fmt.Sprintf(`"virtual-size": %d`, size)) {
		t.Errorf("qemu-img info does not give the size:\n%s", info)
	}
	output(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", in, e.uri())
	output(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, e.uri())
}

func qemuIO(t *testing.T, e export) {
	out := output(t, "qemu-io", "-f", "raw", "--discard=unmap",
		"-c", "write -P 0xab 0 192k",
		"-c", "write -z 64k 64k",
		"-c", "write -z -u 1M 4M",
		"-c", "write -f -P 0xcd 192k 64k",
		"-c", "discard 0 64k",
		"-c", "flush",
		"-c", "read -P 0 0 128k",
		"-c", "read -P 0xab 128k 64k",
		"-c", "read -P 0xcd 192k 64k",
		"-c", "read -P 0 1M 4M",
		"-c", "aio_write -P 0x11 8M 1M", "-c", "aio_write -P 0x22 9M 1M", "-c", "aio_flush",
		"-c", "read -P 0x11 8M 1M", "-c", "read -P 0x22 9M 1M",
		e.uri())
	for _, bad := range []string{"failed", "error", "invalid"} {
		if strings.Contains(strings.ToLower(out), bad) {
			t.Fatalf("qemu-io printed:\n%s", out)
		}
	}
}

func fio(t *testing.T, e export) {
	for _, args := range [][]string{
		{"--rw=randwrite", "--bsrange=4k-128k", "--fsync=32"},
		{"--rw=randrw", "--bs=64k"},
	} {
		args = append([]string{"fio", "--name=verify", "--ioengine=nbd", "--uri=" + e.uri(), fmt.Sprintf("--size=%d", size),
			"--thread", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0"}, args...)
		output(t, args...)
	}
}

func libnbd(t *testing.T, e export) {
	const python = "/usr/bin/python3" // Debian's, whose packages bring libnbd
	if exec.Command(python, "-c", "import nbd").Run() != nil {
		harness.Lacking(t, "python3-libnbd is not installed here (scripts/install-tools test installs it)")
	}
	script, err := filepath.Abs("testdata/libnbd.py")
	if err != nil {
		t.Fatal(err)
	}
	output(t, python, script, e.uri())
}
