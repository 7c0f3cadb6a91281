// Command cutter runs in a guest of integration/lab, as root: it cuts the power
// of a disk under the Lockstep daemon, again and again (see integration/powercut).
//
//	cutter -fs ext4 -bin /path/of/lockstep -cuts 10 -seed 42
//
// It takes the guest's disks, all zeroes: /dev/vdb for the file system, /dev/vdc
// for the log of its writes, /dev/vdd for what a power cut leaves and /dev/vde for
// what recovery changes of that.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	dataDisk, logDisk       = "/dev/vdb", "/dev/vdc"
	replayDisk, changesDisk = "/dev/vdd", "/dev/vde"
	mountPoint              = "/mnt"
)

var (
	fsType  = flag.String("fs", "ext4", "file system, ext4 or xfs")
	bin     = flag.String("bin", "", "path of the lockstep binary")
	cuts    = flag.Int("cuts", 10, "power cuts to recover from")
	seed    = flag.Uint64("seed", 1, "of all that is random")
	seconds = flag.Int("secs", 6, "how long to write, seconds")
)

func main() {
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "cutter: %s, seed %d: %v\n", *fsType, *seed, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(*seed, 0))
	os.Setenv("DM_DISABLE_UDEV", "1")                    // the guest has none: dmsetup makes the nodes
	sh("modprobe", "-a", "dm-log-writes", "dm-snapshot") // they may be built in
	w, err := record(ctx, rng)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	l, err := openLog(logDisk)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d writes, %d flushes acknowledged, %d entries in the log\n", *fsType, w.last(), len(l.marks(markFlushed)), len(l.entries))
	for i, at := range l.moments(rng, *cuts) {
		k, flushed, err := l.cut(ctx, w, at)
		if err != nil {
			return fmt.Errorf("power cut %d, before entry %d of the log, with %d writes flushed: %w", i, at, flushed, err)
		}
		fmt.Printf("cut %2d before entry %6d: the first %4d writes, %4d were flushed\n", i, at, k, flushed)
	}
	if err := l.control(); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	fmt.Printf("%s: %d power cuts, nothing flushed was lost\n", *fsType, *cuts)
	return nil
}

// sh runs a program; its error has what it printed.
func sh(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
