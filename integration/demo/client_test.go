package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
)

// Both clients, the foreign and the own one, against a server that is not ours.
func TestClientsWriteAndReadBack(t *testing.T) {
	harness.NeedTools(t, "nbdkit")
	addr, err := daemon.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(addr, ":")
	server := exec.Command("nbdkit", "-f", "-i", host, "-p", port, "memory", "64M")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for c, err := net.Dial("tcp", addr); err != nil || c.Close() != nil; c, err = net.Dial("tcp", addr) {
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // nbdkit has no other way to say that it is ready
	}
	foreign := pickClient()
	if foreign == (own{}) {
		harness.Lacking(t, "python3-libnbd is not installed here (scripts/install-tools demo installs it)")
	}
	for pass, c := range []client{foreign, own{}} {
		var flushed []int
		uri := "nbd://" + addr + "/"
		if err := c.write(ctx, uri, 10, 150, pass, func(n int) { flushed = append(flushed, n) }); err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		if got := fmt.Sprint(flushed); got != "[64 128 150]" {
			t.Errorf("%v: flushed before blocks %s, want [64 128 150]", c, got)
		}
		next, want := 9, make([]byte, blockSize)
		err := c.read(ctx, uri, 9, 151, func(n int, p []byte) error {
			fill(want, pass, n)
			if written := n >= 10 && n < 150; n != next || bytes.Equal(p, want) != written {
				return fmt.Errorf("block %d, after %d, is not as expected", n, next-1)
			}
			next++
			return nil
		})
		if err != nil || next != 151 {
			t.Errorf("%v: read up to block %d: %v", c, next, err)
		}
		if err := c.write(ctx, uri, 1020, 1030, pass, func(int) {}); err == nil {
			t.Errorf("%v: a write beyond the end succeeds", c)
		}
	}
}
