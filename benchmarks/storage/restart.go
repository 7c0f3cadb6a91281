package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/integration/daemon"
)

const (
	hugeVolume  = 16<<40 - 4096 // ext4's longest file
	mostRestart = 100           // ms
	mostMemory  = 100           // MiB
)

// restart starts a daemon that has one huge, clean volume.
func (b *bench) restart() error {
	const restart, memory = "restart-16t", "rss-16t"
	if !b.wanted(restart, memory) {
		return nil
	}
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Minute)
	defer cancel()
	n, err := b.hugeNode(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", restart, err)
	}
	defer n.Close()
	var took, rss []float64
	for run := range b.runs {
		report.Progress(fmt.Sprintf("%s, run %d of %d", restart, run+1, b.runs))
		began := time.Now()
		if err := n.Start(ctx); err != nil {
			return err
		}
		if err := awaitServed(ctx, n.NBD, hugeVolume); err != nil {
			return fmt.Errorf("%s: %w\n%s", restart, err, n.LogTail())
		}
		took = append(took, micros(time.Since(began))/1000)
		mib, err := resident(n.PID())
		if err != nil {
			return err
		}
		rss = append(rss, mib)
		if err := n.Stop(ctx); err != nil {
			return err
		}
	}
	b.limit(restart, took, mostRestart, "ms")
	b.limit(memory, rss, mostMemory, "MiB")
	return nil
}

// hugeNode is a daemon that was stopped cleanly, with one volume.
func (b *bench) hugeNode(ctx context.Context) (*daemon.Node, error) {
	bin, err := filepath.Abs(b.bin)
	if err != nil {
		return nil, err
	}
	addr, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	peer, err := daemon.FreeAddress()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(b.path("huge"))
	if err != nil {
		return nil, err
	}
	n, err := daemon.New(daemon.Config{Bin: bin, Dir: dir, Name: "huge", NBD: addr, Peer: peer})
	if err != nil {
		return nil, err
	}
	if err = n.Start(ctx); err == nil {
		_, err = n.CLI(ctx, "create", "data", "--size", fmt.Sprint(int64(hugeVolume)))
	}
	if err == nil {
		err = awaitServed(ctx, addr, hugeVolume)
	}
	if err == nil {
		err = n.Stop(ctx)
	}
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// awaitServed waits until a client of NBD would be let in.
func awaitServed(ctx context.Context, addr string, size int64) error {
	for {
		err := attach(addr, size)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// attach asks for the export "data", in the oldest way, which is answered with
// its size once it is served.
func attach(addr string, size int64) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	const fixedNoZeroes, optExportName = 3, 1
	hello := binary.BigEndian.AppendUint32(nil, fixedNoZeroes)
	hello = append(hello, "IHAVEOPT"...)
	hello = binary.BigEndian.AppendUint32(hello, optExportName)
	hello = binary.BigEndian.AppendUint32(hello, uint32(len("data")))
	hello = append(hello, "data"...)
	if _, err := c.Write(hello); err != nil {
		return err
	}
	var answer [18 + 10]byte // greeting; size and flags
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return fmt.Errorf("attach to the export: %w", err)
	}
	if got := binary.BigEndian.Uint64(answer[18:]); got != uint64(size) {
		return fmt.Errorf("the export has %d bytes, want %d", got, size)
	}
	return nil
}

// resident is the memory of a process, MiB.
func resident(pid int) (float64, error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if v, ok := strings.CutPrefix(string(line), "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")))
			return float64(kib) / 1024, err
		}
	}
	return 0, fmt.Errorf("%s does not say VmRSS", path)
}
