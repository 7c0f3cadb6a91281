package main

import (
	"context"
	"fmt"
	"math/rand/v2"

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
	p, err := b.pair(ctx, "sparse", sparseSize, daemon.PairOptions{})
	if err != nil {
		return err
	}
	defer p.Close()
	for _, n := range p.Nodes() {
		now, _, err := memory(n.PID())
		if err != nil {
			return err
		}
		b.figure(cell+"-memory-clean-"+n.Name, float64(now)/(1<<20), "MiB")
	}
	var perByte [2][]float64
	var peaks [2]map[string]float64
	for run := range b.runs {
		for i := range dirty {
			i = (i + run) % len(dirty)
			before, err := resyncs(ctx, p)
			if err != nil {
				return err
			}
			if err := apart(ctx, p, func() error { return scatter(ctx, p.Alpha, dirty[i]) }, true); err != nil {
				return err
			}
			for _, n := range p.Nodes() {
				if err := forgetPeak(n.PID()); err != nil {
					return err
				}
			}
			got, err := awaitResync(ctx, p, before)
			if err != nil {
				return err
			}
			perByte[i] = append(perByte[i], got.Elapsed.Seconds()/float64(got.Total))
			if peaks[i] == nil {
				peaks[i] = map[string]float64{}
			}
			for _, n := range p.Nodes() {
				_, peak, err := memory(n.PID())
				if err != nil {
					return err
				}
				peaks[i][n.Name] = max(peaks[i][n.Name], float64(peak)/(1<<20))
			}
		}
	}
	for i, n := range dirty {
		b.figure(fmt.Sprintf("%s-%dmib", cell, n>>20), 1e-6/report.Median(perByte[i]), "MB/s")
		for _, node := range p.Nodes() {
			b.figure(fmt.Sprintf("%s-memory-%dmib-%s", cell, n>>20, node.Name), peaks[i][node.Name], "MiB")
		}
	}
	b.limit(cell+"-time", report.Median(perByte[1])/report.Median(perByte[0]), wantedProportion, "times its share")
	return nil
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
