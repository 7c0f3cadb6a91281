package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The log of dm-log-writes (the kernel's drivers/md/dm-log-writes.c) begins with
// a sector that has
//
//	offset size field
//	 0     8    magic
//	 8     8    version, 1
//	16     8    number of entries
//	24     4    length of a sector, bytes
//
// and goes on with the entries, each a sector that has
//
//	 0     8    first sector that was written
//	 8     8    number of sectors
//	16     8    flags
//	24     8    length of a mark's name, which follows here
//
// and then the sectors' bytes, but for those of a discard. All little-endian.
const (
	logMagic    = 0x6a736677736872
	flagDiscard = 1 << 2
	flagMark    = 1 << 3
)

// A writeLog is such a log, and a disk to which its first entries were written.
type writeLog struct {
	f       *os.File
	sector  int64 // bytes
	entries []entry
	disk    *os.File
	done    int // entries that were written to the disk
}

type entry struct {
	off, length int64 // on the disk, bytes
	discard     bool
	mark        string
	data        int64 // where in the log its bytes are
}

func openLog(path string) (*writeLog, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	head := make([]byte, 512)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, err
	}
	if le.Uint64(head) != logMagic || le.Uint64(head[8:]) != 1 {
		return nil, fmt.Errorf("no log of version 1: % x", head[:16])
	}
	l := &writeLog{f: f, sector: int64(le.Uint32(head[24:]))}
	at := l.sector
	for range le.Uint64(head[16:]) {
		p := make([]byte, l.sector)
		if _, err := f.ReadAt(p, at); err != nil {
			return nil, fmt.Errorf("entry %d: %w", len(l.entries), err)
		}
		at += l.sector
		flags := le.Uint64(p[16:])
		e := entry{
			off: int64(le.Uint64(p)) * l.sector, length: int64(le.Uint64(p[8:])) * l.sector,
			discard: flags&flagDiscard != 0, data: at,
		}
		if flags&flagMark != 0 {
			e.mark = string(bytes.TrimRight(p[32:][:le.Uint64(p[24:])], "\x00"))
		}
		if !e.discard {
			at += e.length
		}
		l.entries = append(l.entries, e)
	}
	l.disk, err = os.OpenFile(replayDisk, os.O_RDWR, 0)
	return l, err
}

// replay brings the disk to where it was before entry number upTo, which is not
// before those of earlier calls.
func (l *writeLog) replay(upTo int) error {
	for ; l.done < upTo; l.done++ {
		e := l.entries[l.done]
		p := make([]byte, e.length)
		if !e.discard {
			if _, err := l.f.ReadAt(p, e.data); err != nil {
				return fmt.Errorf("read the log's entry %d: %w", l.done, err)
			}
		}
		if _, err := l.disk.WriteAt(p, e.off); err != nil {
			return fmt.Errorf("replay entry %d: %w", l.done, err)
		}
	}
	return l.disk.Sync()
}

// marks are the entries that are marks whose names begin with prefix.
func (l *writeLog) marks(prefix string) (at []int) {
	for i, e := range l.entries {
		if strings.HasPrefix(e.mark, prefix) {
			at = append(at, i)
		}
	}
	return at
}

// moments draws so many moments at which the power is cut, in order, from the
// first mark of a flush to that of the control: half of them right after a flush was acknowledged, when
// the least that is missing would show.
func (l *writeLog) moments(rng *rand.Rand, n int) (at []int) {
	flushed := l.marks(markFlushed)
	from, to := flushed[0], l.marks(markControl)[0]
	for i := range n {
		if i%2 == 0 {
			at = append(at, flushed[rng.IntN(len(flushed))]+1)
		} else {
			at = append(at, from+1+rng.IntN(to-from))
		}
	}
	slices.Sort(at)
	return at
}

// flushedBefore is the number of the newest write that a mark before entry at
// says was flushed.
func (l *writeLog) flushedBefore(at int) (n int, err error) {
	for _, i := range l.marks(markFlushed) {
		if i < at {
			if n, err = strconv.Atoi(strings.TrimPrefix(l.entries[i].mark, markFlushed)); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}
