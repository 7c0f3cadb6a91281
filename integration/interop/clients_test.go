package interop

import (
	"os"
	"testing"

	"github.com/lockstep-storage/lockstep/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// clients are tried in this order, on one export.
var clients = []struct {
	name, program string
	use           func(t *testing.T, e export)
}{
	{"nbdinfo", "nbdinfo", nbdinfo},
	{"nbdcopy", "nbdcopy", nbdcopy},
	{"qemu-img", "qemu-img", qemuImg},
	{"qemu-io", "qemu-io", qemuIO},
	{"fio", "fio", fio},
	{"libnbd", python, libnbd},
	{"sparse", "qemu-img", sparse},
}

func useAll(t *testing.T, e export) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			harness.NeedTools(t, c.program)
			c.use(t, e)
		})
	}
}

func TestMemoryOverTCP(t *testing.T) { useAll(t, serveMemory(t, "tcp", "127.0.0.1:0")) }

func TestMemoryOverUnixSocket(t *testing.T) { useAll(t, serveMemory(t, "unix", socketPath(t))) }

func TestMirroredPair(t *testing.T) {
	p := harness.NewPair(t, harness.Options{Size: exportSize})
	useAll(t, export{network: "tcp", addr: p.Alpha.NBD, name: harness.Volume})
	p.EqualReplicas()
}
