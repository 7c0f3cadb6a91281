package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os/exec"
	"strconv"
	"strings"

	"github.com/lockstep-storage/lockstep/target/nbd/nbdclient"
)

const (
	blockSize  = 64 << 10
	flushEvery = 64 // blocks
)

// A client writes and reads numbered blocks of an NBD export.
type client interface {
	String() string
	// write writes the blocks first to last-1 of a pass, one after the other,
	// and tells flushed the next block's number after each acknowledged flush.
	// It ends with an error when the server is gone.
	write(ctx context.Context, uri string, first, last, pass int, flushed func(next int)) error
	// read hands the same blocks' bytes to each.
	read(ctx context.Context, uri string, first, last int, each func(n int, p []byte) error) error
}

// fill makes a block: the pass and the block's own number, over and over.
func fill(p []byte, pass, n int) {
	var pair [16]byte
	binary.LittleEndian.PutUint64(pair[:], uint64(pass))
	binary.LittleEndian.PutUint64(pair[8:], uint64(n))
	copy(p, bytes.Repeat(pair[:], len(p)/len(pair)))
}

// pickClient takes libnbd, a client that is not Lockstep's, where it is.
func pickClient() client {
	const python = "/usr/bin/python3" // Debian's, whose packages bring libnbd
	if exec.Command(python, "-c", "import nbd").Run() == nil {
		return libnbd{python}
	}
	return own{}
}

//go:embed client.py
var script string

// libnbd runs client.py.
type libnbd struct{ python string }

func (libnbd) String() string { return "libnbd" }

func (l libnbd) run(ctx context.Context, mode, uri string, first, last, pass int, read func(io.Reader) error) error {
	cmd := exec.CommandContext(ctx, l.python, "-c", script, mode, uri,
		strconv.Itoa(blockSize), strconv.Itoa(first), strconv.Itoa(last), strconv.Itoa(pass))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	failed := read(out)
	if failed != nil {
		_ = cmd.Process.Kill() // nobody reads what it has to say any more
	}
	err = cmd.Wait()
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

func (l libnbd) write(ctx context.Context, uri string, first, last, pass int, flushed func(int)) error {
	return l.run(ctx, "write", uri, first, last, pass, func(r io.Reader) error {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			next, err := strconv.Atoi(lines.Text())
			if err != nil {
				return fmt.Errorf("client.py printed no number: %w", err)
			}
			flushed(next)
		}
		return nil
	})
}

func (l libnbd) read(ctx context.Context, uri string, first, last int, each func(int, []byte) error) error {
	return l.run(ctx, "read", uri, first, last, 0, func(r io.Reader) error {
		p := make([]byte, blockSize)
		for n := first; n < last; n++ {
			if _, err := io.ReadFull(r, p); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil // its exit status says why
			} else if err != nil {
				return err
			}
			if err := each(n, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// own is Lockstep's own client, for a machine without libnbd.
type own struct{}

func (own) String() string { return "Lockstep's own client (libnbd is not installed)" }

func (own) dial(ctx context.Context, uri string) (*nbdclient.Client, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	return nbdclient.Dial(ctx, "tcp", u.Host, strings.TrimPrefix(u.Path, "/"))
}

func (o own) write(ctx context.Context, uri string, first, last, pass int, flushed func(int)) error {
	c, err := o.dial(ctx, uri)
	if err != nil {
		return err
	}
	defer c.Close()
	p := make([]byte, blockSize)
	for n := first; n < last; n++ {
		fill(p, pass, n)
		if _, err := c.WriteAt(p, int64(n)*blockSize); err != nil {
			return err
		}
		if (n+1)%flushEvery == 0 || n+1 == last {
			if err := c.Flush(); err != nil {
				return err
			}
			flushed(n + 1)
		}
	}
	return nil
}

func (o own) read(ctx context.Context, uri string, first, last int, each func(int, []byte) error) error {
	c, err := o.dial(ctx, uri)
	if err != nil {
		return err
	}
	defer c.Close()
	p := make([]byte, blockSize)
	for n := first; n < last; n++ {
		if _, err := c.ReadAt(p, int64(n)*blockSize); err != nil {
			return err
		}
		if err := each(n, p); err != nil {
			return err
		}
	}
	return nil
}
