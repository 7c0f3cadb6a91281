package mirror

import (
	"bytes"
	"hash/crc32"
	"testing"

	"github.com/lockstep-storage/lockstep/journal"
)

// FuzzFrame gives every decoder every body: none panics, and what one accepts it
// encodes to the same bytes.
func FuzzFrame(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(byte(m.FrameType()), m.Encode(nil))
	}
	f.Add(byte(FrameRecords), (&Records{Count: 3, Stable: 9}).Encode(nil))
	f.Add(byte(FrameBlock), (&Block{Length: 4096, LSN: 9}).Encode(nil))
	f.Add(byte(FrameReadReply), (&ReadReply{ID: 3, Length: 4096, PayloadCRC: 9}).Encode(nil))
	f.Add(byte(0), EncodeGeneration(nil, &sampleSuperblock().History[2]))
	f.Add(byte(0), EncodeGeneration(nil, &rolledBackHistory()[1]))
	f.Add(byte(FrameProceed), (&Proceed{From: 1, History: rolledBackHistory()}).Encode(nil))
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		if kind == 0 {
			if g, err := DecodeGeneration(body, 5); err == nil && !bytes.Equal(EncodeGeneration(nil, &g), body) {
				t.Fatalf("%+v\n%x", g, body)
			}
			return
		}
		for _, m := range append(sampleMessages(), new(Records), new(Block), new(ReadReply)) {
			if m.FrameType() != FrameType(kind) {
				continue
			}
			m = blank(m)
			if m.Decode(body) == nil && !bytes.Equal(m.Encode(nil), body) {
				t.Fatalf("%+v\n%x\n%x", m, m.Encode(nil), body)
			}
		}
	})
}

// FuzzStream reads a connection's bytes as a volume would. Nothing that a peer
// sends makes it panic, or hold more than one message and one payload.
func FuzzStream(f *testing.F) {
	var all []byte
	for _, m := range sampleMessages() {
		all = AppendFrame(all, m)
	}
	f.Add(all)
	rec := journal.Record{LSN: 1, Kind: journal.KindWrite, Length: 3, Payload: []byte("abc")}
	rec.PayloadCRC = crc32.Checksum(rec.Payload, journal.Castagnoli)
	rec.Seal(0)
	f.Add(recordsFrame([]journal.Record{rec}))
	f.Add(append(AppendBlockHeader(nil, &Block{Length: 3}, []byte("abc")), "abc"...))
	f.Add(append(AppendReadReplyHeader(nil, &ReadReply{ID: 3}, []byte("abc")), "abc"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		mendCRCs(b)
		r := reader(b)
		for {
			kind, body, err := r.Next()
			if err != nil {
				break
			}
			switch kind {
			case FrameRecords:
				err = drainRecords(r, body)
			case FrameBlock:
				var m Block
				if err = m.Decode(body); err == nil {
					buf, e := r.ReadBlock(&m)
					if err = e; buf != nil {
						buf.Unref()
					}
				}
			case FrameReadReply:
				var m ReadReply
				if err = m.Decode(body); err == nil {
					buf, e := r.ReadReplied(&m)
					if err = e; buf != nil {
						buf.Unref()
					}
				}
			}
			if err != nil {
				break
			}
		}
		if cap(r.buf) > maxHello {
			t.Fatalf("%d bytes kept", cap(r.buf))
		}
	})
}

// mendCRCs makes the frame headers in b right, so that the fuzzer gets past them.
func mendCRCs(b []byte) {
	for len(b) >= FrameHeaderSize {
		n := min(uint64(le.Uint32(b[4:])), uint64(len(b)-FrameHeaderSize))
		fixed := b[FrameHeaderSize:][:n]
		if k := FrameType(b[0]); k.known() && frameKinds[k].fixed != 0 {
			fixed = fixed[:min(uint32(n), frameKinds[k].fixed)]
		}
		le.PutUint32(b[8:], crc32.Checksum(fixed, journal.Castagnoli))
		le.PutUint32(b[12:], crc32.Checksum(b[:12], journal.Castagnoli))
		b = b[FrameHeaderSize+n:]
	}
}

func drainRecords(r *FrameReader, body []byte) error {
	var m Records
	if err := m.Decode(body); err != nil {
		return err
	}
	var prev uint32
	for range m.Count {
		var rec journal.Record
		if err := r.ReadRecord(&rec, prev); err != nil {
			return err
		}
		prev = rec.CRC
		if rec.Buf != nil {
			rec.Buf.Unref()
		}
	}
	return nil
}

// FuzzPreamble: what a stranger sends first.
func FuzzPreamble(f *testing.F) {
	p := Preamble{Min: 1, Max: 1, Volume: "v", Node: "n"}
	f.Add(p.encode())
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(b)
		got, _, err := ReadPreamble(in)
		if read := len(b) - in.Len(); read > preambleHeader+maxPreamble {
			t.Fatalf("%d bytes read", read)
		}
		if err == nil && !bytes.HasPrefix(b, got.encode()) {
			t.Fatalf("%+v from %x", got, b)
		}
	})
}
