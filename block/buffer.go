package block

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	minClass = 12 // 4 KiB
	maxClass = 25 // 32 MiB

	// MaxBuffer is the largest buffer that Get gives, in bytes.
	MaxBuffer = 1 << maxClass
)

var pools [maxClass + 1]sync.Pool

// A Buffer is a pooled piece of memory with a reference count.
type Buffer struct {
	b     []byte
	refs  atomic.Int32
	class int
}

// Get returns a buffer of n bytes, 0 ≤ n ≤ MaxBuffer, with one reference. Its
// content is undefined.
func Get(n int) *Buffer {
	if n < 0 || n > MaxBuffer {
		panic(fmt.Sprintf("block: buffer of %d bytes asked for, the limit is %d", n, MaxBuffer))
	}
	c := max(minClass, bits.Len(uint(max(n, 1)-1)))
	b, _ := pools[c].Get().(*Buffer)
	if b == nil {
		b = &Buffer{b: make([]byte, 1<<c), class: c}
	}
	b.b = b.b[:n]
	b.refs.Store(1)
	return b
}

// Bytes is the buffer's memory. It is valid while the caller holds a reference.
func (b *Buffer) Bytes() []byte { return b.b }

// Ref takes n more references.
func (b *Buffer) Ref(n int32) {
	if b.refs.Add(n) <= n {
		panic("block: reference taken to a free buffer")
	}
}

// Unref drops one reference; the last one gives the memory back to the pool.
func (b *Buffer) Unref() {
	switch n := b.refs.Add(-1); {
	case n == 0:
		b.b = b.b[:cap(b.b)]
		pools[b.class].Put(b)
	case n < 0:
		panic("block: buffer freed twice")
	}
}
