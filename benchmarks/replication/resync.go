package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lockstep-storage/lockstep/benchmarks/report"
	"github.com/lockstep-storage/lockstep/integration/daemon"
)

// wantedCopy is the least ratio that is aimed for of a resync of blocks that all
// differ, beside nbdcopy.
const wantedCopy = 0.85

// A divergence is how much of two stores differs when a resync of all of it begins.
type divergence struct {
	name   string
	every  int64 // one block of so many differs; 0: none
	target float64
	pairs  int // 2: without an undo, too
}

var divergences = []divergence{
	{"resync-all-differ", 1, wantedCopy, 2},
	{"resync-none-differ", 0, 0, 1},
	{"resync-1-percent", 100, 0, 1},
}

// copies measures resyncs of a whole volume, with an undo and without one, beside
// nbdcopy from one such store to another, as bytes of the volume per second.
func (b *bench) copies(ctx context.Context) error {
	if !b.wanted(divergences[0].name, divergences[1].name, divergences[2].name) {
		return nil
	}
	b.report.Versions["nbdcopy"] = report.FirstLine("nbdcopy", "--version")
	content := pattern{seed: rand.Uint64()}
	var pairs []*resyncPair
	for _, v := range []struct{ name, extra string }{
		{"lockstep", ""}, {"lockstep, no undo", "volumes:\n  " + volume + ": {resync-undo: off}\n"},
	} {
		p, err := b.pair(ctx, fmt.Sprint("copies", len(pairs)), b.size, daemon.PairOptions{Extra: v.extra})
		if err != nil {
			return err
		}
		defer p.Close()
		r := &resyncPair{v.name, p, content, b.size}
		pairs = append(pairs, r)
		if err := content.write(ctx, p.Alpha, b.size); err != nil {
			return err
		}
	}
	nbdcopy, err := b.nbdcopy(ctx, content)
	if err != nil {
		return err
	}
	for _, d := range divergences {
		if !b.wanted(d.name) {
			continue
		}
		subjects := []subject{{"nbdcopy", nbdcopy}}
		for _, r := range pairs[:d.pairs] {
			subjects = append(subjects, subject{r.name, func(ctx context.Context) (report.Sample, error) { return r.run(ctx, d) }})
		}
		results, err := b.turns(ctx, d.name, report.MBPerSec, subjects...)
		if err != nil {
			return err
		}
		b.compare(d.name, results[1], results[0], d.target)
		if len(results) > 2 {
			b.compare(d.name+"-no-undo", results[2], results[0], 0)
		}
	}
	return nil
}

// A resyncPair is resynced again and again.
type resyncPair struct {
	name string
	*daemon.Pair
	content pattern // of both
	size    int64
}

// run has the peer lack all of the volume, of which so much differs, and measures the
// resync from the handshake to the last block.
func (r *resyncPair) run(ctx context.Context, d divergence) (report.Sample, error) {
	before, err := resyncs(ctx, r.Pair)
	if err != nil {
		return report.Sample{}, err
	}
	next := r.content
	switch d.every {
	case 0:
	case 1:
		next = pattern{seed: rand.Uint64()}
	default:
		next.other, next.every = rand.Uint64(), d.every
	}
	r.content = next
	if err := apart(ctx, r.Pair, func() error { return next.write(ctx, r.Alpha, r.size) }, true); err != nil {
		return report.Sample{}, err
	}
	got, err := awaitResync(ctx, r.Pair, before)
	if err != nil {
		return report.Sample{}, err
	}
	differ := int64(0)
	if d.every > 0 {
		differ = r.size / d.every
	}
	if got.Total != r.size || max(got.Copied-differ, differ-got.Copied) > differ/10 {
		return report.Sample{}, fmt.Errorf("%d bytes were resynced and %d copied, of %d that differ in %d: %+v", got.Total, got.Copied, differ, r.size, got)
	}
	return rate(r.size, got.Elapsed), nil
}

func rate(bytes int64, d time.Duration) report.Sample {
	return report.Sample{Bytes: float64(bytes) / d.Seconds()}
}

// nbdcopy copies one file to another, both written full, each served by nbdkit.
func (b *bench) nbdcopy(ctx context.Context, content pattern) (func(context.Context) (report.Sample, error), error) {
	dir := filepath.Join(b.dir, "nbdcopy")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	var uris []string
	for _, name := range []string{"from", "to"} {
		if err := content.file(filepath.Join(dir, name), b.size); err != nil {
			return nil, err
		}
		s, err := b.nbdkit(ctx, name, filepath.Join(dir, name), name == "from")
		if err != nil {
			return nil, err
		}
		b.closers = append(b.closers, s.Close)
		uris = append(uris, s.URI)
	}
	return func(ctx context.Context) (report.Sample, error) {
		start := time.Now()
		out, err := exec.CommandContext(ctx, "nbdcopy", "--flush", uris[0], uris[1]).CombinedOutput()
		took := time.Since(start)
		if err != nil {
			return report.Sample{}, fmt.Errorf("nbdcopy: %w\n%s", err, out)
		}
		return rate(b.size, took), nil
	}, nil
}

// file writes the pattern into a new file.
func (a pattern) file(path string, size int64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	p := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		p = p[:min(int64(len(p)), size-off)]
		a.fill(p, off)
		if _, err := f.Write(p); err != nil {
			return err
		}
	}
	return nil
}
