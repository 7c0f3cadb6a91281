package mirror

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"time"

	"github.com/lockstep-storage/lockstep/journal"
)

// The file "split-brain.NODE" keeps what a peer told of its side of a
// split-brain, so that it can be shown while the peer is not reached. Nothing
// rests on it: one that is missing or damaged is known again when the two meet.
//
//	offset size field
//	 0     8    magic "LSTEPSPB"
//	 8     4    format version, 1
//	12     4    CRC32C of bytes 16 to the end
//	16     8    when the two met: Unix time, nanoseconds
//	24     -    the peer's Hello frame, then its Split frame
const (
	splitPrefix  = "split-brain."
	splitMagic   = "LSTEPSPB"
	splitVersion = 1
	splitHeader  = 24
	maxSplitFile = splitHeader + 2*FrameHeaderSize + maxHello + maxSplit
)

var errSplitFile = errors.New("it is not what was written")

func (m *metSplit) encode() []byte {
	b := append(make([]byte, 0, splitHeader), splitMagic...)
	b = le.AppendUint32(b, splitVersion)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, uint64(m.at.UnixNano()))
	b = AppendFrame(AppendFrame(b, &m.hello), &m.told)
	le.PutUint32(b[12:], crc32.Checksum(b[16:], journal.Castagnoli))
	return b
}

// decodeSplit reads what encode wrote, all but the comparison.
func decodeSplit(b []byte) (*metSplit, error) {
	if len(b) < splitHeader || string(b[:8]) != splitMagic {
		return nil, errSplitFile
	}
	if n := le.Uint32(b[8:]); n != splitVersion {
		return nil, fmt.Errorf("its format is %d, this program knows %d", n, splitVersion)
	}
	if le.Uint32(b[12:]) != crc32.Checksum(b[16:], journal.Castagnoli) {
		return nil, errSplitFile
	}
	m := &metSplit{at: time.Unix(0, int64(le.Uint64(b[16:])))}
	rest := b[splitHeader:]
	for _, frame := range []Message{&m.hello, &m.told} {
		if len(rest) < FrameHeaderSize {
			return nil, errSplitFile
		}
		h, err := decodeFrameHeader(rest)
		if err != nil {
			return nil, err
		}
		rest = rest[FrameHeaderSize:]
		if h.kind != frame.FrameType() || int(h.length) > len(rest) || crc32.Checksum(rest[:h.length], journal.Castagnoli) != h.fixedCRC {
			return nil, errSplitFile
		}
		if err := frame.Decode(rest[:h.length]); err != nil {
			return nil, err
		}
		rest = rest[h.length:]
	}
	if len(rest) > 0 {
		return nil, errSplitFile
	}
	return m, nil
}

// saveSplit keeps m for the next start. That it could not be is no failure of
// the replica.
func (p *peer) saveSplit(m *metSplit) {
	dir, name := p.v.opts.FS, splitPrefix+p.node
	temp := name + ".new"
	_ = dir.Remove(temp) // a crash left it
	f, err := dir.Create(temp)
	if err == nil {
		_, err = f.WriteAt(m.encode(), 0)
		err = errors.Join(err, f.Datasync(), f.Close())
	}
	if err == nil {
		err = dir.Rename(temp, name)
	}
	if err == nil {
		err = dir.SyncDir()
	}
	if err != nil {
		p.v.log.Warn("what the peer has since the split-brain is not kept over a restart", "peer", p.node, "error", err)
	}
}

// forgetSplit drops what was kept: the two are no split-brain any more.
func (p *peer) forgetSplit() {
	p.v.mu.Lock()
	p.split, p.keep = nil, nil
	p.v.mu.Unlock()
	_ = p.v.opts.FS.Remove(splitPrefix + p.node) // if it stays, the next start judges it
}

// restoreSplit reads what was kept, and judges the two histories again: they may
// be a split-brain no longer.
func (p *peer) restoreSplit() {
	v := p.v
	name := splitPrefix + p.node
	f, err := v.opts.FS.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var m *metSplit
	if err == nil {
		var b []byte
		b, err = io.ReadAll(io.NewSectionReader(f, 0, maxSplitFile+1))
		if err = errors.Join(err, f.Close()); err == nil {
			m, err = decodeSplit(b)
		}
	}
	if err != nil {
		v.log.Warn("what the peer had since a split-brain cannot be read; it is known again when they meet", "peer", p.node, "file", name, "error", err)
		return
	}
	v.mu.Lock()
	mine := v.describe(p)
	v.mu.Unlock()
	m.result = Compare(mine.Description, m.hello.Description)
	if m.result.Verdict != SplitBrain {
		p.forgetSplit()
		return
	}
	v.mu.Lock()
	p.split = m
	v.mu.Unlock()
}
