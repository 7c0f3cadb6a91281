package mirror

import (
	"crypto/aes"
	"crypto/cipher"

	"github.com/lockstep-storage/lockstep/bitmap"
)

// A hasher makes the checksums by which a resync tells blocks that are equal from
// those that have to cross (replication.md 7).
//
// It is GMAC, that is AES-128-GCM of no plaintext with the block as additional
// data, under a key that the source draws for each resync. Two blocks that differ
// have the same checksum for at most 257 of 2^128 keys, whichever blocks they are,
// as long as they are not chosen by somebody who knows the key: GHASH is a
// universal hash. Of resyncs of an exabyte, every block different, one in 10^21
// would meet such a pair. The nonce is always the same, which would give the hash's
// key away if the checksums were to keep a forger out; they are not.
//
// It is three times as fast as SHA-256 with the processor's SHA instructions
// (4.3 to 1.3 GB/s on one core), and needs none that is rarer than AES.
type hasher struct {
	gcm cipher.AEAD
	out checksum
}

func newHasher(key ID) *hasher {
	c, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	gcm, err := cipher.NewGCM(c)
	if err != nil {
		panic(err) // AES has blocks of 16 bytes
	}
	return &hasher{gcm: gcm}
}

var hashNonce [12]byte

// sum is the checksum of at most one block.
func (h *hasher) sum(p []byte) checksum {
	h.gcm.Seal(h.out[:0], hashNonce[:], nil, p)
	return h.out
}

// sums appends the checksum of each block of p, which begins at one.
func (h *hasher) sums(dst []checksum, p []byte) []checksum {
	for len(p) > 0 {
		n := min(len(p), bitmap.BlockSize)
		dst = append(dst, h.sum(p[:n]))
		p = p[n:]
	}
	return dst
}
