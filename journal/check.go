package journal

import (
	"errors"

	"github.com/lockstep-storage/lockstep/disk"
)

// A Report is what Check found.
type Report struct {
	State
	ID       uint64 // of the journal
	Segments int    // that hold records
	Free     int    // that were made and hold none
	Size     int64  // bytes, as at Create
	Used     int64  // bytes
	Batches  int
	Records  int
	// Worn are the segments of which one header copy is lost. Open mends them.
	Worn []string
	// Torn: unreadable or dead records follow the end. Open cuts them.
	Torn bool
}

// Check reads the whole journal in dir as Open does, and changes nothing. Its
// error is the one that Open would give; the report then says how far it came.
// Nobody may have the journal open.
func Check(dir disk.FS, o Options) (Report, error) { return Dump(dir, o, Visitor{}) }

// A Visitor is shown what Dump reads, in order. Nil functions are skipped. What
// it is given is valid during the call only.
type Visitor struct {
	Segment func(SegmentInfo)
	Batch   func(BatchInfo)
	// Record is also given the offset at which the record lies in its segment.
	Record func(off int64, r *Record)
}

// SegmentInfo is a segment's header.
type SegmentInfo struct {
	Name      string
	ID        uint64 // of the journal
	Seq, Prev uint64 // sequence numbers of this segment and the one before
	Oldest    uint64 // of the oldest one needed
	First     LSN
	Seed      uint32 // CRC of the record before First
	Notes     Notes
}

// BatchInfo is a batch's header. The batch may turn out to be torn.
type BatchInfo struct {
	Off     int64 // in the segment, bytes
	Length  int64 // bytes, without padding
	Records int
	First   LSN
	Notes   Notes
}

// FirstBatch is the offset of a segment's first batch, bytes.
const FirstBatch = firstBatch

// Next is the offset at which the batch behind this one begins, bytes.
func (b *BatchInfo) Next() int64 { return b.Off + padded(b.Length) }

// Dump is Check that shows what it reads: segments, their batches, their
// records, up to the end or to what is damaged.
func Dump(dir disk.FS, o Options, v Visitor) (_ Report, err error) {
	j, err := load(dir, o)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	r := Report{ID: j.id, Segments: len(j.chain), Free: len(j.free), Size: j.opts.Size}
	for _, s := range j.chain {
		if s.worn {
			r.Worn = append(r.Worn, s.name)
		}
	}
	st, clean, err := j.scan(r.count(v))
	r.State, r.Torn = st, err == nil && !clean
	j.publish()
	r.Used = j.Used()
	return r, err
}

// count returns v, with counting added.
func (r *Report) count(v Visitor) *Visitor {
	batch, record := v.Batch, v.Record
	v.Batch = func(b BatchInfo) {
		r.Batches++
		if batch != nil {
			batch(b)
		}
	}
	v.Record = func(off int64, rec *Record) {
		r.Records++
		if record != nil {
			record(off, rec)
		}
	}
	return &v
}

func (v *Visitor) segment(s *segment) {
	if v != nil && v.Segment != nil {
		v.Segment(SegmentInfo{
			Name: s.name, ID: s.id, Seq: s.seq, Prev: s.prev, Oldest: s.oldest,
			First: s.first, Seed: s.seed, Notes: s.notes,
		})
	}
}

func (v *Visitor) batch(off int64, h batchHeader) {
	if v != nil && v.Batch != nil {
		v.Batch(BatchInfo{Off: off, Length: h.length, Records: h.count, First: h.first, Notes: h.notes})
	}
}

func (v *Visitor) record(off int64, r *Record) {
	if v != nil && v.Record != nil {
		v.Record(off, r)
	}
}
