package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/load"
)

const (
	volume    = "data"
	blockSize = 4 << 10
	// journalSize is the least that there is: it is the sooner too short for a
	// catch-up, so that blocks are copied by bitmap.
	journalSize = 64 << 20
)

// pair starts two nodes with a mirrored volume, in sync.
func (b *bench) pair(ctx context.Context, name string, size int64, o daemon.PairOptions) (*daemon.Pair, error) {
	flags := []string{"--journal-size", fmt.Sprint(journalSize)}
	o.CreateFlags = map[string][]string{"alpha": flags, "beta": flags}
	p, err := daemon.NewPair(b.bin, filepath.Join(b.dir, name), o)
	if err != nil {
		return nil, err
	}
	if err := p.Create(ctx, volume, size); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// A pattern says what every block of a volume holds: bytes drawn from its seed, and,
// of one block of every so many, from another.
type pattern struct {
	seed  uint64
	other uint64
	every int64 // 0: no block is of other
}

// fill writes the pattern of the blocks at off into p. No two blocks are equal, and
// none is zeroes.
func (a pattern) fill(p []byte, off int64) {
	for ; len(p) > 0; p, off = p[blockSize:], off+blockSize {
		n, seed := off/blockSize, a.seed
		if a.every > 0 && differs(n, a.every) {
			seed = a.other
		}
		var key [32]byte
		binary.LittleEndian.PutUint64(key[:], seed)
		binary.LittleEndian.PutUint64(key[8:], uint64(n))
		_, _ = rand.NewChaCha8(key).Read(p[:blockSize]) // never fails
	}
}

// differs draws one block of each group of so many.
func differs(n, every int64) bool {
	return rand.New(rand.NewPCG(uint64(n/every), 1)).Int64N(every) == n%every
}

// write writes the pattern over the whole volume, and flushes.
func (a pattern) write(ctx context.Context, n *daemon.Node, size int64) error {
	const piece, writers = 1 << 20, 4
	c, err := load.DialServing(ctx, "unix:"+n.NBDSocket(), volume)
	if err != nil {
		return err
	}
	defer c.Close()
	g, ctx := errgroup.WithContext(ctx)
	for i := range int64(writers) {
		g.Go(func() error {
			buf := make([]byte, piece)
			for off := i * piece; off < size; off += writers * piece {
				p := buf[:min(piece, size-off)]
				a.fill(p, off)
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := c.WriteAt(p, off, false); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.Flush()
}

// apart has the peer lack what change writes: it is away meanwhile, and comes back.
// With settled all of it is in the Primary's store by then, so that nothing but the
// resync is left.
func apart(ctx context.Context, p *daemon.Pair, change func() error, settled bool) error {
	if err := p.Beta.Stop(ctx); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	if settled {
		if _, err := p.Alpha.Await(ctx, volume, "the store has everything", (*daemon.Status).Settled); err != nil {
			return err
		}
	}
	return p.Beta.Start(ctx)
}

// look is how often a resync is looked at: each look starts a process.
const look = 200 * time.Millisecond

// awaitResync waits until the peer has been through one resync more than before, and
// returns what that came to.
func awaitResync(ctx context.Context, p *daemon.Pair, before int) (*daemon.Progress, error) {
	for {
		s, err := p.Alpha.Status(ctx, volume)
		if err != nil {
			return nil, err
		}
		if peer := s.Peer("beta"); peer.Resyncs > before && s.InSync() {
			return peer.LastResync, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for a resync: %w", ctx.Err())
		case <-time.After(look):
		}
	}
}

// resyncs is how many the peer has been through.
func resyncs(ctx context.Context, p *daemon.Pair) (int, error) {
	s, err := p.Alpha.Status(ctx, volume)
	if err != nil {
		return 0, err
	}
	return s.Peer("beta").Resyncs, nil
}
