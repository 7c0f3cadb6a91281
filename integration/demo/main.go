// The demo shows, with real processes and a real NBD client, what Lockstep is
// for: a mirrored volume whose Primary is killed in mid-write loses nothing that
// a flush had covered, and the dead node catches up. `make demo` runs it; it
// exits with status 1, and names the block, if anything is not as it must be.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
)

const (
	volume     = "data"
	volumeSize = 1 << 30
	blocks     = volumeSize / blockSize
	// lonely is how much is written while one node is dead: half a journal.
	lonely = 2048 // blocks
)

func main() {
	bin := flag.String("bin", "bin/lockstep", "the lockstep binary")
	dir := flag.String("dir", filepath.Join(os.TempDir(), "lockstep-demo"), "the nodes' directory; what an earlier demo left there is removed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s := newScreen()
	if err := run(ctx, s, *bin, *dir); err != nil {
		fmt.Printf("\n%s %v\n", s.red("FAILED:"), err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *screen, bin, dir string) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	if err := clean(dir); err != nil {
		return err
	}
	pair, err := daemon.NewPair(bin, dir, daemon.PairOptions{})
	if err != nil {
		return err
	}
	defer pair.Close()
	d := &demo{screen: s, Pair: pair, client: pickClient()}
	fmt.Printf("%s\n\n", s.bold("Lockstep: one volume on two nodes, and one of them dies"))
	start := time.Now()
	for _, step := range []func(context.Context) error{
		d.start, d.write, d.promote, d.readBack, d.goOn, d.catchUp, d.compare, d.stop,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.conclude(dir, time.Since(start))
	return nil
}

// clean removes what an earlier demo left, and nothing else. Nodes that
// somebody plays with are left alone.
func clean(dir string) error {
	for _, node := range []string{"alpha", "beta"} {
		if c, err := net.Dial("unix", filepath.Join(dir, node, "admin.sock")); err == nil {
			c.Close()
			return fmt.Errorf("node %s of an earlier demo still runs in %s; please end it, or give another -dir", node, dir)
		}
		if err := os.RemoveAll(filepath.Join(dir, node)); err != nil {
			return err
		}
	}
	return nil
}

// A demo is the story, step by step.
type demo struct {
	*screen
	*daemon.Pair
	client  client
	flushed int // blocks before this one are covered by an acknowledged flush
	written int // and so many were written in all, by the end
}

func uri(n *daemon.Node) string { return "nbd://" + n.NBD + "/" + volume }

func (d *demo) start(ctx context.Context) error {
	d.begin("two nodes")
	d.goes("starting")
	if err := d.Create(ctx, volume, volumeSize); err != nil {
		return err
	}
	d.done("alpha (pid %d) and beta (pid %d), each with a directory of its own", d.Alpha.PID(), d.Beta.PID())
	d.begin("one volume")
	d.done("%q, 1 GiB, mirrored on both; alpha is Primary and exports %s", volume, uri(d.Alpha))
	return nil
}

// write writes through a real client, and kills the Primary in the middle.
func (d *demo) write(ctx context.Context) error {
	d.begin("writing")
	// A third to half of the volume is written when it happens.
	deadline := blocks/3 + rand.IntN(blocks/6)
	var flushed atomic.Int64
	fatal := make(chan struct{})
	ended := make(chan error, 1)
	start := time.Now()
	go func() {
		ended <- d.client.write(ctx, uri(d.Alpha), 0, blocks, 1, func(next int) {
			flushed.Store(int64(next))
			if next >= deadline && next < deadline+flushEvery {
				close(fatal)
			}
		})
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var died time.Time
	tooLong := time.After(8 * time.Second) // a slow disk: then less is written
	for died.IsZero() {
		select {
		case <-tick.C:
			n := int(flushed.Load())
			d.goes("%s %s blocks of 64 KiB, %s, through %v", bar(n, blocks), count(n), rate(n, time.Since(start)), d.client)
			continue
		case err := <-ended:
			return fmt.Errorf("the client ended before anybody was killed: %w", err)
		case <-fatal:
		case <-tooLong:
		}
		// Somewhere within the next blocks, not right after a flush.
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		died = time.Now()
		if err := d.Alpha.Kill(); err != nil {
			return err
		}
	}
	err := <-ended
	if err == nil {
		return errors.New("the client did not notice that its server was killed")
	}
	d.flushed = int(flushed.Load())
	d.done("%s blocks of 64 KiB through %v, %s, %d flushes acknowledged", count(d.flushed), d.client,
		rate(d.flushed, died.Sub(start)), d.flushed/flushEvery)
	d.begin("kill -9 alpha")
	d.done("in mid-write, with SIGKILL; the client lost its connection")
	return nil
}

func (d *demo) promote(ctx context.Context) error {
	d.begin("promote beta")
	start := time.Now()
	if _, err := d.Beta.CLI(ctx, "promote", volume, "--force"); err != nil {
		return err
	}
	d.done("it is Primary after %s and exports %s", seconds(time.Since(start)), uri(d.Beta))
	return nil
}

// readBack compares every block on the new Primary. What a flush covered must
// be there; of what came after it each block is whole or absent, and none is
// there after one that is not.
func (d *demo) readBack(ctx context.Context) error {
	d.begin("reading back")
	want := make([]byte, blockSize)
	zero := make([]byte, blockSize)
	extra, gone := 0, -1
	last := min(d.flushed+2*flushEvery, blocks)
	seen := 0
	err := d.client.read(ctx, uri(d.Beta), 0, last, func(n int, p []byte) error {
		seen++
		if n%512 == 0 {
			d.goes("%s %s of %s", bar(n, last), count(n), count(last))
		}
		fill(want, 1, n)
		there := bytes.Equal(p, want)
		switch {
		case n < d.flushed && !there:
			return fmt.Errorf("block %d (byte %d) is lost: its flush had been acknowledged", n, n*blockSize)
		case n >= d.flushed && !there && !bytes.Equal(p, zero):
			return fmt.Errorf("block %d (byte %d) is torn: it is neither old nor new", n, n*blockSize)
		case there && gone >= 0:
			return fmt.Errorf("block %d is there, block %d before it is not", n, gone)
		case n >= d.flushed && there:
			extra++
		case !there && gone < 0:
			gone = n
		}
		return nil
	})
	if err != nil {
		return err
	}
	if seen != last {
		return fmt.Errorf("only %d of %d blocks could be read", seen, last)
	}
	d.written = d.flushed + extra
	d.done("%s: all %s flushed blocks are there, byte for byte", d.green("right"), count(d.flushed))
	d.more("(so are %d that no flush had covered; none is torn, none is out of order)", extra)
	return nil
}

// goOn writes to the one node that is left.
func (d *demo) goOn(ctx context.Context) error {
	d.begin("going on")
	start := time.Now()
	first, last := d.lonelyRange()
	err := d.client.write(ctx, uri(d.Beta), first, last, 2, func(next int) {
		d.goes("%s %s blocks", bar(next-first, lonely), count(next-first))
	})
	if err != nil {
		return err
	}
	d.done("%s more blocks written to beta alone, %s", count(lonely), rate(lonely, time.Since(start)))
	return nil
}

// lonelyRange is what is written while alpha is dead: old blocks and new ones.
func (d *demo) lonelyRange() (first, last int) {
	first = max(0, min(d.written-lonely/2, blocks-lonely))
	return first, first + lonely
}

// catchUp starts the dead node again and watches.
func (d *demo) catchUp(ctx context.Context) error {
	d.begin("alpha is back")
	if err := d.Alpha.Start(ctx); err != nil {
		return err
	}
	start := time.Now()
	before, err := d.Beta.Status(ctx, volume)
	if err != nil {
		return err
	}
	_, err = d.Beta.Await(ctx, volume, "alpha has caught up", func(st *daemon.Status) bool {
		p := st.Peer("alpha")
		if g := p.Progress; g != nil && g.Total > 0 {
			left := "?"
			if g.Left >= 0 {
				left = seconds(time.Duration(g.Left))
			}
			done, total := int(g.Done/blockSize), int(g.Total/blockSize)
			d.goes("%s %s of %s blocks, %s/s, %s left", bar(done, total), count(done), count(total), mib(g.Speed), left)
		}
		return st.InSync()
	})
	if err != nil {
		return err
	}
	took := time.Since(start)
	after, err := d.Beta.Status(ctx, volume)
	if err != nil {
		return err
	}
	how := "from beta's journal, in order"
	if after.Peer("alpha").Resyncs > before.Peer("alpha").Resyncs {
		how = "by bitmap, the blocks that differ"
	}
	d.done("it caught up in %s: %s blocks, %s, %s", seconds(took), count(lonely), rate(lonely, took), how)
	return nil
}

// compare compares the replicas' files once everything is in them.
func (d *demo) compare(ctx context.Context) error {
	d.begin("comparing")
	var files [2]*os.File
	for i, n := range d.Nodes() {
		if _, err := n.Await(ctx, volume, "the journal is in the store", (*daemon.Status).Settled); err != nil {
			return err
		}
		f, err := os.Open(n.Replica(volume))
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	p, q := make([]byte, blockSize), make([]byte, blockSize)
	for n := range blocks {
		if n%512 == 0 {
			d.goes("%s", bar(n, blocks))
		}
		for i, b := range [][]byte{p, q} {
			if _, err := files[i].ReadAt(b, int64(n)*blockSize); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
		if !bytes.Equal(p, q) {
			return fmt.Errorf("block %d (byte %d) differs between the replicas", n, n*blockSize)
		}
	}
	d.done("%s: both replicas are equal, all %s bytes", d.green("right"), count(volumeSize))
	return nil
}

// stop ends both daemons as an operator would.
func (d *demo) stop(ctx context.Context) error {
	for _, n := range d.Nodes() {
		if err := n.Stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) conclude(dir string, took time.Duration) {
	fmt.Printf("\n%s in %s: a node was killed in mid-write, its peer took over, nothing that was\n", d.green("Proved"), seconds(took))
	fmt.Printf("acknowledged by a flush was lost, and both are equal again. Now you:\n\n")
	for _, n := range d.Nodes() {
		fmt.Printf("  bin/lockstep serve --config %s 2>>%s &\n", n.ConfigFile(), n.LogFile())
	}
	// Beta led last: it may hold a record of that which alpha has not.
	fmt.Printf("  sleep 1; export LOCKSTEP_SOCKET=%s\n", d.Beta.Socket())
	fmt.Printf("  bin/lockstep promote %s && bin/lockstep status\n", volume)
	fmt.Printf("  nbdinfo %s      # or nbdcopy, qemu-img, fio, nbd-client\n", uri(d.Beta))
	fmt.Printf("  kill $(jobs -p); wait; rm -r %s      # when you are done\n", dir)
}

func mib(bytesPerSecond int64) string {
	return fmt.Sprintf("%.0f MiB", float64(bytesPerSecond)/(1<<20))
}
