package fakedisk

import (
	"fmt"
	"io/fs"
	"maps"
)

// CrashClone returns what a power loss at this moment would leave of the
// directory and those below it. The disk itself goes on.
func (d *FS) CrashClone(keep Policy) *FS {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	return d.crashClone(keep)
}

func (d *FS) crashClone(keep Policy) *FS {
	return newFS(d.disk.rng.Uint64(), d.dir.crash(keep), d.path)
}

// Crash is CrashClone, and the power of this disk stays off: its operations
// answer ErrPowerLost, from the very moment that the clone shows.
func (d *FS) Crash(keep Policy) *FS {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	d.disk.off = true
	return d.crashClone(keep)
}

// KillClone returns what a kill of the process at this moment would leave: all
// that was written, and unsynced what was.
func (d *FS) KillClone() *FS {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	return d.killClone()
}

// Kill is KillClone, and the process is dead: whatever of it still runs gets
// ErrPowerLost from this disk, from the very moment that the clone shows.
func (d *FS) Kill() *FS {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	d.disk.off = true
	return d.killClone()
}

func (d *FS) killClone() *FS {
	left := newFS(d.disk.rng.Uint64(), d.dir.clone(map[*inode]*inode{}), d.path)
	left.disk.number = d.disk.number
	return left
}

func (d *dir) crash(keep Policy) *dir {
	left := newDir()
	left.now = maps.Clone(d.durable)
	for _, n := range d.pending {
		if keep(Unsynced{Kind: n.kind, Name: n.name, Number: n.number}) {
			n.replay(left.now)
		}
	}
	crashed := map[*inode]*inode{} // a file may be left with two names, or none
	for _, name := range sortedKeys(left.now) {
		n := left.now[name]
		if crashed[n] == nil {
			crashed[n] = n.crash(name, keep)
		}
		left.now[name] = crashed[n]
	}
	left.durable = maps.Clone(left.now)
	for _, name := range sortedKeys(d.subs) {
		left.subs[name] = d.subs[name].crash(keep)
	}
	return left
}

func (d *dir) clone(done map[*inode]*inode) *dir {
	copied := func(n *inode) *inode {
		if n != nil && done[n] == nil {
			done[n] = n.clone()
		}
		return done[n]
	}
	left := newDir()
	for name, n := range d.now {
		left.now[name] = copied(n)
	}
	for name, n := range d.durable {
		left.durable[name] = copied(n)
	}
	for _, n := range d.pending {
		n.file = copied(n.file)
		left.pending = append(left.pending, n)
	}
	for name, sub := range d.subs {
		left.subs[name] = sub.clone(done)
	}
	return left
}

// Flip turns bits, chosen by seed, in the n bytes of a file at off: in what is
// durable and in what a read finds.
func (d *FS) Flip(name string, off, n int64, bits int) error {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	node := d.dir.now[name]
	if node == nil {
		return fmt.Errorf("flip bits: %w", pathError("flip", name, fs.ErrNotExist))
	}
	if n <= 0 || off < 0 || off+n > node.now.size {
		return fmt.Errorf("flip bits in %d bytes at %d of %s, which has %d", n, off, name, node.now.size)
	}
	for _, bit := range d.disk.rng.Perm(int(n * 8))[:min(int64(bits), n*8)] {
		at, mask := off+int64(bit/8), byte(1)<<(bit%8)
		node.now.flip(at, mask)
		node.durable.flip(at, mask)
	}
	return nil
}

func (m *image) flip(off int64, mask byte) {
	if off >= m.size {
		return
	}
	var b [1]byte
	m.read(b[:], off)
	b[0] ^= mask
	m.write(b[:], off)
}
