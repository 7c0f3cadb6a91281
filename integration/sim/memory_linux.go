package main

import (
	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// memories gives each guest its memory: address space for as much as it may ever use,
// of which the kernel provides what it does use. So to grow it copies nothing.
type memories struct{}

// maxMemory of a guest, bytes.
const maxMemory = 2 << 30

// Allocate implements experimental.MemoryAllocator.
func (memories) Allocate(_, most uint64) experimental.LinearMemory {
	b, err := unix.Mmap(-1, 0, int(min(most, maxMemory)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		panic(err)
	}
	return &memory{b}
}

type memory struct{ b []byte }

// Reallocate implements experimental.LinearMemory.
func (m *memory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.b)) {
		return nil
	}
	return m.b[:size]
}

// Free implements experimental.LinearMemory.
func (m *memory) Free() { _ = unix.Munmap(m.b) } // it was mapped
