package diskfailure

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// mountTmpfs mounts a small file system at a directory, which is made.
func mountTmpfs(t *testing.T, at, size string) {
	t.Helper()
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-t", "tmpfs", "-o", "size="+size, "none", at)
	t.Cleanup(func() { run(t, "umount", at) })
}

// mountThin mounts at a directory an ext4 on a thin disk: its device has less
// space behind it than it pretends. After exhaust it fails whatever it would
// need space for, and what the file system makes of that is real I/O errors.
func mountThin(t *testing.T, at string) (exhaust func()) {
	t.Helper()
	harness.NeedRoot(t)
	harness.NeedTools(t, "losetup", "mkfs.ext4", "mount", "umount")
	behind := t.TempDir()
	mountTmpfs(t, behind, "512m")
	image := filepath.Join(behind, "image")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(1<<30), f.Close())
	}
	if err == nil {
		err = os.MkdirAll(at, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	dev := run(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() { run(t, "losetup", "--detach", dev) })
	run(t, "mkfs.ext4", "-q", dev)
	run(t, "mount", dev, at)
	t.Cleanup(func() { run(t, "umount", at) })
	return func() {
		f, err := os.Create(filepath.Join(behind, "filler"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for block := make([]byte, 1<<16); err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// loading loads a volume until it is stopped, and gives the client's error.
func loading(t *testing.T, p *harness.Pair, m *load.Model) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	c := p.Dial(p.Alpha)
	o := load.Options{Seed: harness.Seed(t), Rate: 32 << 20}
	go func() {
		stats, err := load.Run(ctx, c, m, o)
		t.Log(stats)
		done <- err
	}()
	return func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(harness.Patience):
			t.Fatal("the load does not end")
			return nil
		}
	}
}

// TestPrimaryDiskFails: the disk under the Primary's journal and store fails for
// good while a client writes. It sees no error, and all that it wrote is read
// through the Primary, which has no disk any more, and then on the peer.
func TestPrimaryDiskFails(t *testing.T) {
	var exhaust func()
	p := harness.NewPair(t, harness.Options{Prepare: func(n *daemon.Pair) { exhaust = mountThin(t, n.Alpha.DataDir()) }})
	m := load.NewModel(p.Size)
	stop := loading(t, p, m)
	before := p.Status(p.Alpha)
	p.Await(p.Alpha, "the load is on its way", func(s *daemon.Status) bool { return s.Committed > before.Committed+200 })
	exhaust()
	at := p.Await(p.Alpha, "the Primary does without its disk", func(s *daemon.Status) bool { return s.Disk == "Diskless" })
	t.Logf("the disk failed: %s", at.Failure)
	p.Await(p.Alpha, "writes go on", func(s *daemon.Status) bool { return s.Committed > at.Committed+500 })
	if err := stop(); err != nil {
		t.Errorf("the client met: %v", err)
	}
	p.Verify(p.Alpha, m)
	p.CLI(p.Alpha, "demote", harness.Volume)
	p.CLI(p.Beta, "promote", harness.Volume)
	p.Verify(p.Beta, m)
	if s := p.Status(p.Alpha); s.Disk != "Failed" {
		t.Errorf("alpha is %s", s.Disk)
	}
}

// TestSecondaryDiskFails: the same of the Secondary. It leaves, and the Primary
// goes on alone.
func TestSecondaryDiskFails(t *testing.T) {
	var exhaust func()
	p := harness.NewPair(t, harness.Options{Prepare: func(n *daemon.Pair) { exhaust = mountThin(t, n.Beta.DataDir()) }})
	m := load.NewModel(p.Size)
	stop := loading(t, p, m)
	before := p.Status(p.Alpha)
	p.Await(p.Alpha, "the load is on its way", func(s *daemon.Status) bool { return s.Committed > before.Committed+200 })
	exhaust()
	at := p.Await(p.Alpha, "the Secondary is out", func(s *daemon.Status) bool { return !s.Peer("beta").Member })
	p.Await(p.Beta, "the Secondary says that it failed", func(s *daemon.Status) bool { return s.Disk == "Failed" })
	p.Await(p.Alpha, "writes go on", func(s *daemon.Status) bool { return s.Committed > at.Committed+500 })
	if err := stop(); err != nil {
		t.Errorf("the client met: %v", err)
	}
	p.Verify(p.Alpha, m)
}

// TestStoreFull: the file system under a sparse store runs full. Writes are
// refused with ENOSPC, what was acknowledged is there, also after a kill, and
// once there is space the volume goes on by itself. The journal is small, for the
// applier rests while clients flush and the journal has room.
func TestStoreFull(t *testing.T) {
	harness.NeedRoot(t)
	harness.NeedTools(t, "mount", "umount")
	small := filepath.Join(t.TempDir(), "small")
	p := harness.NewPair(t, harness.Options{Prepare: func(*daemon.Pair) { mountTmpfs(t, small, "8m") }})
	const volume, size = "thin", 64 << 20
	ctx, cancel := context.WithTimeout(t.Context(), 2*harness.Patience)
	defer cancel()
	p.CLI(p.Alpha, "create", volume, "--size", "64MiB", "--journal-size", "64MiB", "--store", filepath.Join(small, "store"))
	await := func(what string, cond func(*daemon.Status) bool) {
		t.Helper()
		if _, err := p.Alpha.Await(ctx, volume, what, cond); err != nil {
			t.Fatal(err)
		}
	}
	dial := func() *load.Client {
		t.Helper()
		await("it is Primary", func(s *daemon.Status) bool { return s.Role == "Primary" && s.Disk == "UpToDate" })
		c, err := load.Dial(ctx, "unix:"+p.Alpha.NBDSocket(), volume)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	const piece = 64 << 10
	content := func(i int64) []byte { return bytes.Repeat([]byte{byte(i) | 1}, piece) }
	acked := int64(0)
	check := func(c *load.Client) {
		t.Helper()
		got := make([]byte, piece)
		for i := range acked {
			if err := c.ReadAt(got, i*piece); err != nil || !bytes.Equal(got, content(i)) {
				t.Fatalf("piece %d of %d: %v, it begins with %d", i, acked, err, got[0])
			}
		}
	}
	c := dial()
	write := func() error { return c.WriteAt(content(acked), acked*piece, false) }
	var err error
	for err == nil && acked < size/piece {
		if err = write(); err == nil {
			acked++
			err = c.Flush()
		}
	}
	var errno load.Errno
	if !errors.As(err, &errno) || syscall.Errno(errno) != syscall.ENOSPC {
		t.Fatalf("after %d pieces: %v", acked, err)
	}
	check(c)
	p.Kill(p.Alpha)
	p.Start(p.Alpha)
	c = dial()
	check(c)

	run(t, "mount", "-o", "remount,size=128m", small)
	for err = write(); err != nil; err = write() {
		if !errors.As(err, &errno) || syscall.Errno(errno) != syscall.ENOSPC || ctx.Err() != nil {
			t.Fatalf("with space again: %v", err)
		}
		time.Sleep(20 * time.Millisecond) // between two tries
	}
	acked++
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	await("all of it is in the store", (*daemon.Status).Settled)
	check(c)
}
