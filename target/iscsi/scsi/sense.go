package scsi

// sense is sense data in the making.
type sense struct {
	b [64]byte
	n uint8
}

func (s *sense) bytes() []byte { return s.b[:s.n] }
