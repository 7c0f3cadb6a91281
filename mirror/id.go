package mirror

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
)

// NewID draws an id from random, or from crypto/rand if random is nil. Ids are
// random and never counted: two nodes that are forced apart must not draw the
// same (replication.md 1). It fails only if random does.
func NewID(random io.Reader) (ID, error) {
	if random == nil {
		random = rand.Reader
	}
	var id ID
	for id.IsZero() { // the zero ID is none
		if _, err := io.ReadFull(random, id[:]); err != nil {
			return ID{}, fmt.Errorf("drawing a random id: %w", err)
		}
	}
	return id, nil
}

// NewIncarnation draws an incarnation as NewID draws an id: never zero, and not
// counted, so that a replica restored from an old backup cannot take one that
// it had before.
func NewIncarnation(random io.Reader) (uint64, error) {
	for {
		id, err := NewID(random)
		if err != nil {
			return 0, err
		}
		if n := binary.LittleEndian.Uint64(id[:]); n != 0 {
			return n, nil
		}
	}
}
