package bitmap

import "math/bits"

// A page is the bits of pageBits units, of which some but not all are set.
type page struct {
	words [pageWords]uint64
	set   int // how many bits are set
}

// fullPage stands for every page that is all set. It is never changed.
var fullPage = newFullPage()

func newFullPage() *page {
	p := &page{set: pageBits}
	for w := range p.words {
		p.words[w] = ^uint64(0)
	}
	return p
}

// count is how many of the bits from … end-1 are set.
func (p *page) count(from, end int) (n int) {
	for w := from / 64; w*64 < end; w++ {
		n += bits.OnesCount64(p.words[w] & mask(w, from, end))
	}
	return n
}

// fill sets or clears the bits from … end-1. p.set is the caller's to mend.
func (p *page) fill(from, end int, set bool) {
	for w := from / 64; w*64 < end; w++ {
		if m := mask(w, from, end); set {
			p.words[w] |= m
		} else {
			p.words[w] &^= m
		}
	}
}

// find is the first bit at or after from that is set, or clear; pageBits if
// there is none.
func (p *page) find(from int, set bool) int {
	for w := from / 64; w < pageWords; w++ {
		word := p.words[w]
		if !set {
			word = ^word
		}
		if word &= mask(w, from, pageBits); word != 0 {
			return w*64 + bits.TrailingZeros64(word)
		}
	}
	return pageBits
}

// mask has the bits of word w that lie in from … end-1.
func mask(w, from, end int) uint64 {
	m := ^uint64(0)
	if from > w*64 {
		m <<= from - w*64
	}
	if over := (w+1)*64 - end; over > 0 {
		m &= ^uint64(0) >> over
	}
	return m
}
