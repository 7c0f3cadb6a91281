package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/fio"
	"github.com/lockstep-storage/lockstep/benchmarks/peer"
	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/wire"
)

// What is aimed for.
const (
	boundFactor = 1.3
	boundMicros = 80   // more
	wantedTwo   = 0.75 // of one replica's throughput, at queue depth 32 on the loopback
	wantedQemu  = 1
)

// A distance is how much longer a round trip to the peer takes than on the loopback.
type distance struct {
	name  string
	added time.Duration
}

var distances = []distance{
	{"loopback", 0}, {"0.1ms", 100 * time.Microsecond}, {"0.5ms", 500 * time.Microsecond}, {"2ms", 2 * time.Millisecond},
}

var (
	one  = fio.Workload{RW: "randwrite", BS: "4k", Depth: 1}
	many = fio.Workload{RW: "randwrite", BS: "4k", Depth: 32}
)

// bound is how long a mirrored write may take, microseconds: both replicas at once,
// the other one a round trip away.
func bound(local, roundTrip, peer float64) float64 {
	return max(local, roundTrip+peer)*boundFactor + boundMicros
}

// writes measures 4 KiB writes on a mirrored pair at several distances, beside one
// copy of ours and beside qemu's mirror.
func (b *bench) writes(ctx context.Context) error {
	var near []distance
	for _, d := range distances {
		if b.wanted("latency-"+d.name, "depth32-"+d.name, "cpu-"+d.name) {
			near = append(near, d)
		}
	}
	if len(near) == 0 {
		return nil
	}
	b.report.Versions["fio"] = report.FirstLine("fio", "--version")
	alone, err := b.alone(ctx)
	if err != nil {
		return err
	}
	defer alone.Close()
	if err := fio.Fill(ctx, uriOf(alone), b.size); err != nil {
		return err
	}
	client, err := b.clientTrip()
	if err != nil {
		return err
	}
	b.figure("round-trip-client", client, "us")
	for _, d := range near {
		if err := b.at(ctx, d, alone, client); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

// at measures at one distance.
func (b *bench) at(ctx context.Context, d distance, alone *daemon.Node, client float64) error {
	trip, err := roundTrip("tcp", "127.0.0.1:0", d.added/2, trips)
	if err != nil {
		return err
	}
	b.figure("round-trip-"+d.name, trip, "us")
	p, err := b.pair(ctx, "pair-"+d.name, b.size, daemon.PairOptions{Relayed: d.added > 0, OneWay: d.added / 2})
	if err != nil {
		return err
	}
	defer p.Close()
	q, err := b.qemu(ctx, "qemu-"+d.name, d.added/2)
	if err != nil {
		return err
	}
	defer q.close()
	for _, uri := range []string{uriOf(p.Alpha), q.uri} {
		if err := fio.Fill(ctx, uri, b.size); err != nil {
			return err
		}
	}
	fios := func(uri string, w fio.Workload) func(context.Context) (report.Sample, error) {
		return func(ctx context.Context) (report.Sample, error) { return fio.Run(ctx, uri, b.size, w, b.length()) }
	}
	if cell := "latency-" + d.name; b.wanted(cell) {
		r, err := b.turns(ctx, cell, report.IOPS, subject{"pair", fios(uriOf(p.Alpha), one)},
			subject{"one", fios(uriOf(alone), one)}, subject{"qemu", fios(q.uri, one)})
		if err != nil {
			return err
		}
		local := r[1].MeanMicros()
		b.limit(cell, r[0].MeanMicros(), bound(local, trip, max(local-client, 0)), "us")
		b.compare(cell, r[0], r[2], wantedQemu)
	}
	if cell := "depth32-" + d.name; b.wanted(cell) {
		r, err := b.turns(ctx, cell, report.IOPS, subject{"pair", fios(uriOf(p.Alpha), many)},
			subject{"one", fios(uriOf(alone), many)}, subject{"qemu", fios(q.uri, many)})
		if err != nil {
			return err
		}
		least := 0.0
		if d.added == 0 {
			least = wantedTwo
		}
		b.compare(cell, r[0], r[1], least)
		b.compare(cell, r[0], r[2], wantedQemu)
	}
	if cell := "cpu-" + d.name; d.added == 0 && b.wanted(cell) {
		return b.cpu(ctx, cell, p, q)
	}
	return nil
}

// cpu measures the processor time that both sides of a mirror take, the client's left
// out, as bytes mirrored for each second of it.
func (b *bench) cpu(ctx context.Context, cell string, p *daemon.Pair, q *qemuMirror) error {
	for _, w := range []struct {
		name string
		fio.Workload
	}{{"128k", fio.Workload{RW: "write", BS: "128k", Depth: 8}}, {"4k", fio.Workload{RW: "randwrite", BS: "4k", Depth: 32}}} {
		size := b.size
		if w.BS == "4k" {
			size /= 4
		}
		once := func(uri string, pids ...int) func(context.Context) (report.Sample, error) {
			return func(ctx context.Context) (report.Sample, error) {
				before, err := cpuTime(pids...)
				if err != nil {
					return report.Sample{}, err
				}
				if _, err := fio.Once(ctx, uri, size, w.Workload); err != nil {
					return report.Sample{}, err
				}
				after, err := cpuTime(pids...)
				return rate(size, after-before), err
			}
		}
		r, err := b.turns(ctx, cell+"-"+w.name, report.MBPerCPU, subject{"pair", once(uriOf(p.Alpha), p.Alpha.PID(), p.Beta.PID())},
			subject{"qemu", once(q.uri, q.pids...)})
		if err != nil {
			return err
		}
		b.compare(cell+"-"+w.name, r[0], r[1], 0)
		b.figure(cell+"-"+w.name, (1<<30)/1e6/r[0].Value(), "s/GiB")
	}
	return nil
}

// uriOf is a node's export, on its unix socket.
func uriOf(n *daemon.Node) string { return "nbd+unix:///" + volume + "?socket=" + n.NBDSocket() }

// alone serves a volume without peers.
func (b *bench) alone(ctx context.Context) (*daemon.Node, error) {
	addr, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	n, err := daemon.New(daemon.Config{Bin: b.bin, Dir: filepath.Join(b.dir, "alone"), Name: "alone", Peer: addr})
	if err != nil {
		return nil, err
	}
	if err = n.Start(ctx); err == nil {
		_, err = n.CLI(ctx, "create", volume, "--size", fmt.Sprint(b.size), "--journal-size", fmt.Sprint(journalSize))
	}
	if err == nil {
		_, err = n.CLI(ctx, "promote", volume)
	}
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// A qemuMirror is qemu-storage-daemon, which writes to a file and to an NBD server.
type qemuMirror struct {
	uri     string
	pids    []int
	closers []func()
}

func (q *qemuMirror) close() {
	for _, f := range q.closers {
		f()
	}
}

// qemu starts qemu's mirror: its quorum driver acknowledges a write when both of its
// children have. What everything takes to the other one and back is twice oneWay.
//
// It is set up so as to be fast: one child is the file itself, without a server
// between; the other is served by nbdkit, which was faster at that than qemu-nbd; both
// through the page cache (cache.direct off), as Lockstep's stores are. It has no
// iothread: the process does nothing else, and qemu 7.2 aborts when a client of an
// export in an iothread leaves.
func (b *bench) qemu(ctx context.Context, name string, oneWay time.Duration) (_ *qemuMirror, err error) {
	q := &qemuMirror{}
	defer func() {
		if err != nil {
			q.close()
		}
	}()
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	local, far := filepath.Join(dir, "local"), filepath.Join(dir, "far")
	for _, path := range []string{local, far} {
		if err := hollow(path, b.size); err != nil {
			return nil, err
		}
		q.closers = append(q.closers, func() { _ = os.Remove(path) }) // it is memory
	}
	server, err := b.nbdkit(ctx, name, far, false)
	if err != nil {
		return nil, err
	}
	q.closers = append(q.closers, server.Close)
	addr := server.Addr
	if oneWay > 0 {
		r, err := wire.Listen("127.0.0.1:0", addr, oneWay)
		if err != nil {
			return nil, err
		}
		q.closers = append(q.closers, func() { _ = r.Close() })
		addr = r.Addr()
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "sock")
	q.uri = "nbd+unix:///" + volume + "?socket=" + socket
	s := peer.Server{Name: "qemu", Version: report.FirstLine("qemu-storage-daemon", "--version"), URI: q.uri}
	b.report.Versions["qemu"] = s.Version
	daemon, err := peer.Start(ctx, s, "unix", socket, "qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=local,filename="+local+",aio=threads,cache.direct=off,cache.no-flush=off",
		"--blockdev", "driver=nbd,node-name=far,server.type=inet,server.host="+host+",server.port="+port+",cache.direct=off,cache.no-flush=off",
		"--blockdev", "driver=quorum,node-name=both,children.0=local,children.1=far,vote-threshold=2",
		"--nbd-server", "addr.type=unix,addr.path="+socket+",max-connections=8",
		"--export", "type=nbd,id=e,node-name=both,name="+volume+",writable=on")
	if err != nil {
		return nil, err
	}
	q.closers = append(q.closers, daemon.Close)
	q.pids = []int{daemon.PID, server.PID}
	return q, nil
}

// hollow makes a file of size bytes that reads as zeroes.
func hollow(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// trips are made to know how long one takes.
const trips = 500

// clientTrip is what a write's request and its answer take on the unix socket that
// clients use, microseconds: of one copy's latency, what is not the copy's.
func (b *bench) clientTrip() (float64, error) {
	return roundTrip("unix", filepath.Join(b.dir, "trip.sock"), 0, trips)
}

// roundTrip measures what 4 KiB there and a few bytes back take, microseconds: over a
// relay, in which everything takes oneWay, or straight if that is 0; the median of so
// many.
func roundTrip(network, addr string, oneWay time.Duration, times int) (float64, error) {
	const there, back = blockSize + 64, 32
	l, err := net.Listen(network, addr)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, there)
		for {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if _, err := c.Write(b[:back]); err != nil {
				return
			}
		}
	}()
	to := l.Addr().String()
	if oneWay > 0 {
		r, err := wire.Listen("127.0.0.1:0", to, oneWay)
		if err != nil {
			return 0, err
		}
		defer r.Close()
		to = r.Addr()
	}
	c, err := net.Dial(network, to)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	b := make([]byte, there)
	var micros []float64
	for range times {
		start := time.Now()
		if _, err := c.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, b[:back]); err != nil {
			return 0, err
		}
		micros = append(micros, float64(time.Since(start).Nanoseconds())/1e3)
	}
	return report.Median(micros), nil
}
