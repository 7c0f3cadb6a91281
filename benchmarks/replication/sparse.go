package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/load"
)

const (
	sparseSize  = 1 << 40
	sparsePiece = 64 << 10 // is dirty in one place
	// wantedProportion is how many times its share a larger resync may take.
	wantedProportion = 1.25
)

// dirty are the two sizes that are compared.
var dirty = [2]int64{128 << 20, 512 << 20}

// sparse measures how long resyncs of little on a large sparse volume take, and what
// memory: both are to be in proportion to what is dirty, not to the volume.
func (b *bench) sparse(ctx context.Context) error {
	const cell = "sparse-1tib"
	if !b.wanted(cell) {
		return nil
	}
	var perByte [2][]float64
	var peaks [2]map[string][]float64
	for run := range b.runs {
		for i := range dirty {
			i = (i + run) % len(dirty)
			report.Progress(fmt.Sprintf("%s, %d MiB dirty, run %d of %d", cell, dirty[i]>>20, run+1, b.runs))
			got, peak, err := b.sparseResync(ctx, fmt.Sprintf("sparse%d-%d", run, i), dirty[i])
			if err != nil {
				return fmt.Errorf("%s: %w", cell, err)
			}
			perByte[i] = append(perByte[i], got.Elapsed.Seconds()/float64(got.Total))
			if peaks[i] == nil {
				peaks[i] = map[string][]float64{}
			}
			for node, bytes := range peak {
				peaks[i][node] = append(peaks[i][node], float64(bytes)/(1<<20))
			}
		}
	}
	for i, n := range dirty {
		b.figure(fmt.Sprintf("%s-%dmib", cell, n>>20), 1e-6/report.Median(perByte[i]), "MB/s")
		for _, node := range []string{"alpha", "beta"} {
			b.figure(fmt.Sprintf("%s-%dmib-memory-%s", cell, n>>20, node), report.Median(peaks[i][node]), "MiB")
		}
	}
	b.limit(cell+"-time", report.Median(perByte[1])/report.Median(perByte[0]), wantedProportion, "times its share")
	return nil
}

// sparseResync resyncs so many bytes on a pair of its own, whose memory holds nothing
// of an earlier one, and returns what that came to, and the most memory that each node
// had meanwhile, bytes.
func (b *bench) sparseResync(ctx context.Context, name string, dirty int64) (*daemon.Progress, map[string]int64, error) {
	p, err := b.pair(ctx, name, sparseSize, daemon.PairOptions{})
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(filepath.Join(b.dir, name))
	defer p.Close()
	if err := apart(ctx, p, func() error { return scatter(ctx, p.Alpha, dirty) }, true); err != nil {
		return nil, nil, err
	}
	for _, n := range p.Nodes() {
		if err := forgetPeak(n.PID()); err != nil {
			return nil, nil, err
		}
	}
	got, err := awaitResync(ctx, p, 0)
	if err != nil {
		return nil, nil, err
	}
	peaks := map[string]int64{}
	for _, n := range p.Nodes() {
		if _, peaks[n.Name], err = memory(n.PID()); err != nil {
			return nil, nil, err
		}
	}
	return got, peaks, nil
}

// scatter writes so many bytes, in pieces all over the volume, and flushes.
func scatter(ctx context.Context, n *daemon.Node, bytes int64) error {
	c, err := load.DialServing(ctx, "unix:"+n.NBDSocket(), volume)
	if err != nil {
		return err
	}
	defer c.Close()
	a, p := pattern{seed: rand.Uint64()}, make([]byte, sparsePiece)
	for ; bytes > 0; bytes -= sparsePiece {
		off := rand.Int64N(sparseSize/sparsePiece) * sparsePiece
		a.fill(p, off)
		if err := c.WriteAt(p, off, false); err != nil {
			return err
		}
	}
	return c.Flush()
}
