package mirror

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/journal"
)

// sampleMessages has one of every type but Records, Block and ReadReply, every
// field set.
func sampleMessages() []Message {
	sb := sampleSuperblock()
	return []Message{
		&Hello{
			Version: 1, Session: 12, JournalFirst: 90, Base: Position{ID{1}, 88},
			Description: Description{
				Node: "a", Volume: ID{9}, Name: "vol", Size: 1 << 30, Protocol: ProtocolB, WriteCache: true,
				Role: Primary, Disk: Consistent, Epoch: 4, SetVersion: 9, Set: sb.Set, Excluded: true, Incarnation: 77,
				History: sb.History, End: 300, Durable: 299, Stable: 298, Resync: sb.Resync,
			},
		},
		&Proceed{Mode: ModeResync, Volume: ID{9}, Epoch: 4, Common: 99, From: 100, PrevCRC: 0xabcdef, History: sb.History},
		&Ready{End: 99, Durable: 98, EndCRC: 0x1234},
		&Ack{Received: 120, Durable: 110, Session: 12},
		&SyncRequest{LSN: 120},
		&Heartbeat{Stable: 100, Committed: 110, Epoch: 4, End: 120, Sent: -5},
		&JoinReady{LSN: 120},
		&SetUpdate{SetVersion: 10, Epoch: 4, Confirmed: true, Set: sb.Set},
		&ResyncStart{Bytes: 1 << 30},
		&BlockAck{Blocks: 7, Bytes: 7 << 20},
		&ResyncEnd{LSN: 130},
		&Bye{Code: CodeShutdown + 1, Sentence: "the daemon stops"},
		&Refuse{Code: CodeSplitBrain, Sentence: "split-brain"},
		&Read{ID: 3, Committed: 110, Offset: 1 << 20, Length: 4096},
		&Regions{Last: true, Ranges: []Range{{16 << 20, 32 << 20}, {1 << 40, 4096}}},
		&SplitFrame{
			Common: Position{ID{1}, 99}, Policies: SplitPolicies{ZeroPri: "discard-zero-changes", OnePri: "consensus", TwoPri: "disconnect"}, Keep: "a", Trimmed: 7, Bytes: 12 << 20, Accuracy: RangesBlocks,
			Known:  []KnownGeneration{{ID{2}, 1_700_000_000_000_000_000, 2}, {ID{3}, 0, 1}},
			Ranges: []Range{{4096, 512}, {1 << 30, 8192}},
		},
		&ChecksumRequest{Key: ID{7, 8}, Offset: 1 << 20, Length: 8192},
		&Checksums{Offset: 1 << 20, Sums: []checksum{{1, 2}, {3}}},
		&ResyncPause{Paused: true},
		&Prepare{},
		&Vote{Yes: true, Sentence: "why not"},
	}
}

// blank is a new, zero message of m's type.
func blank(m Message) Message {
	return reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
}

func reader(b []byte) *FrameReader { return NewFrameReader(bufio.NewReader(bytes.NewReader(b))) }

// TestFrames: every message comes back as it was, alone and among others, and
// its bytes are those of the version that it came with.
func TestFrames(t *testing.T) {
	var stream []byte
	for _, m := range sampleMessages() {
		v := reflect.ValueOf(m).Elem()
		for i := range v.NumField() {
			optional := v.Type().Field(i).Name == "Discard" // TestSplitFrameDiscard
			if v.Field(i).IsZero() && !optional {
				t.Errorf("the sample %v leaves %s zero", m.FrameType(), v.Type().Field(i).Name)
			}
		}
		frame := AppendFrame(nil, m)
		golden(t, fmt.Sprintf("frame-v%d-%s", m.FrameType().since(), strings.ToLower(m.FrameType().String())), frame)
		stream = append(stream, frame...)
	}
	r := reader(stream)
	for _, m := range sampleMessages() {
		kind, body, err := r.Next()
		if err != nil || kind != m.FrameType() {
			t.Fatalf("%v: got %v, %v", m.FrameType(), kind, err)
		}
		got := blank(m)
		if err := got.Decode(body); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%v: %v\n got %+v\nwant %+v", kind, err, got, m)
		}
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// TestFrameDamage: no byte of a frame may be flipped, nor may it end early.
func TestFrameDamage(t *testing.T) {
	for _, m := range sampleMessages() {
		frame := AppendFrame(nil, m)
		for at := range frame {
			bad := bytes.Clone(frame)
			bad[at] ^= 1
			if _, _, err := reader(bad).Next(); !errors.Is(err, ErrFrame) {
				t.Fatalf("%v: byte %d flipped: %v", m.FrameType(), at, err)
			}
		}
		for n := 1; n < len(frame); n++ {
			if _, _, err := reader(frame[:n]).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%v: cut to %d bytes: %v", m.FrameType(), n, err)
			}
		}
		body := frame[FrameHeaderSize:]
		for n := range body {
			if err := blank(m).Decode(body[:n]); !errors.Is(err, ErrFrame) {
				t.Fatalf("%v: a body of %d bytes instead of %d: %v", m.FrameType(), n, len(body), err)
			}
		}
		if err := blank(m).Decode(append(bytes.Clone(body), 0)); !errors.Is(err, ErrFrame) {
			t.Errorf("%v: a byte too many: %v", m.FrameType(), err)
		}
	}
}

// TestFrameHeaderLimits: what a header announces is bounded before anything is
// read or allocated for it.
func TestFrameHeaderLimits(t *testing.T) {
	header := func(kind FrameType, length uint32, flags byte) []byte {
		p := make([]byte, FrameHeaderSize)
		p[0], p[1] = byte(kind), flags
		le.PutUint32(p[4:], length)
		le.PutUint32(p[12:], crc32.Checksum(p[:12], journal.Castagnoli))
		return p
	}
	for _, row := range []struct {
		name string
		b    []byte
	}{
		{"type 0", header(0, 0, 0)},
		{"unknown type", header(FrameType(len(frameKinds)), 0, 0)},
		{"flags", header(FrameAck, 24, 1)},
		{"Ack of 4 GiB", header(FrameAck, 1<<32-1, 0)},
		{"Hello past its limit", header(FrameHello, maxHello+1, 0)},
		{"Records past its limit", header(FrameRecords, maxRecordsBody+1, 0)},
		{"Records without its fixed part", header(FrameRecords, recordsFixed-1, 0)},
		{"ReadReply past its limit", header(FrameReadReply, readReplyFixed+MaxReadPayload+1, 0)},
		{"Block past its limit", header(FrameBlock, blockFixed+MaxBlockPayload+1, 0)},
	} {
		if _, _, err := reader(row.b).Next(); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// TestSentenceIsCut: a long sentence is no reason to fail.
func TestSentenceIsCut(t *testing.T) {
	frame := AppendFrame(nil, &Bye{Sentence: strings.Repeat("x", 5000)})
	var got Bye
	if _, body, err := reader(frame).Next(); err != nil || got.Decode(body) != nil || len(got.Sentence) != maxSentence {
		t.Errorf("%d bytes, %v", len(got.Sentence), err)
	}
}

// records makes n sealed records from LSN 1 on, of which every third has no
// payload, and returns the last one's CRC.
func records(rng *rand.Rand, n int) (recs []journal.Record, last uint32) {
	for i := range n {
		r := journal.Record{LSN: LSN(i + 1), Generation: 7, Kind: journal.KindWrite, Flags: journal.FlagLast}
		if i%3 == 2 {
			r.Kind, r.Length = journal.KindTrim, 4096
		} else {
			r.Payload = make([]byte, 1+rng.IntN(9000))
			for k := range r.Payload {
				r.Payload[k] = byte(rng.Uint32())
			}
			r.Length = int64(len(r.Payload))
			r.PayloadCRC = crc32.Checksum(r.Payload, journal.Castagnoli)
		}
		last = r.Seal(last)
		recs = append(recs, r)
	}
	return recs, last
}

var sampleNotes = Records{Epoch: 4, SetVersion: 9, Stable: 100, Committed: 110}

func recordsFrame(recs []journal.Record) []byte {
	var f RecordsFrame
	for i := range recs {
		f.Add(&recs[i])
	}
	return bytes.Join(f.EncodeRecordsHeader(sampleNotes), nil)
}

// readRecords reads one Records frame whole, all but what an error left.
func readRecords(r *FrameReader, prev uint32) (notes Records, recs []journal.Record, err error) {
	kind, body, err := r.Next()
	if err != nil || kind != FrameRecords {
		return notes, nil, err
	}
	if err := notes.Decode(body); err != nil {
		return notes, nil, err
	}
	for range notes.Count {
		var rec journal.Record
		if err := r.ReadRecord(&rec, prev); err != nil {
			return notes, recs, err
		}
		prev = rec.CRC
		recs = append(recs, rec)
	}
	return notes, recs, nil
}

// What is to be kept nowhere is said in a byte that is not there else.
func TestSplitFrameDiscard(t *testing.T) {
	m := SplitFrame{Keep: "a", Discard: true}
	body := m.Encode(nil)
	var got SplitFrame
	if err := got.Decode(body); err != nil || !got.Discard {
		t.Errorf("%+v, %v", got, err)
	}
	if err := got.Decode(body[:len(body)-1]); err != nil || got.Discard {
		t.Errorf("%+v, %v", got, err)
	}
	for _, last := range []byte{0, 2} {
		body[len(body)-1] = last
		if err := got.Decode(body); !errors.Is(err, ErrFrame) {
			t.Errorf("%d: %v", last, err)
		}
	}
}

func TestRecordsFrame(t *testing.T) {
	rng := seeded(t)
	var f RecordsFrame
	for range 50 {
		recs, _ := records(rng, 1+rng.IntN(40))
		f.Reset()
		for i := range recs {
			if !f.Add(&recs[i]) {
				t.Fatal("no room")
			}
		}
		size := f.Size()
		frame := bytes.Join(f.EncodeRecordsHeader(sampleNotes), nil)
		if len(frame) != size || f.Len() != len(recs) {
			t.Fatalf("%d bytes, Size says %d", len(frame), size)
		}
		r := reader(append(frame, AppendFrame(nil, &Ack{Received: 1})...))
		notes, got, err := readRecords(r, 0)
		want := sampleNotes
		want.Count = len(recs)
		if err != nil || notes != want {
			t.Fatalf("%+v, %v", notes, err)
		}
		for i := range got {
			if got[i].Buf != nil {
				if &got[i].Payload[0] != &got[i].Buf.Bytes()[0] {
					t.Fatal("the payload lies elsewhere")
				}
				defer got[i].Buf.Unref()
			}
			got[i].Buf = nil
		}
		if !reflect.DeepEqual(got, recs) {
			t.Fatal("not the records that were sent")
		}
		if kind, _, err := r.Next(); kind != FrameAck || err != nil {
			t.Fatalf("the frame behind it: %v, %v", kind, err)
		}
	}
}

// TestRecordsVector holds a Records frame and a generation record's payload to
// the byte.
func TestRecordsVector(t *testing.T) {
	g := sampleSuperblock().History[2]
	payload := golden(t, "generation-v1", EncodeGeneration(nil, &g))
	if got, err := DecodeGeneration(payload, g.First); err != nil || !reflect.DeepEqual(got, g) {
		t.Errorf("%+v, %v", got, err)
	}
	rolling := g
	rolling.RollingBack = RollbackTarget{"a", "monday"}
	if got, err := DecodeGeneration(golden(t, "generation-v2", EncodeGeneration(nil, &rolling)), g.First); err != nil || !reflect.DeepEqual(got, rolling) {
		t.Errorf("%+v, %v", got, err)
	}
	first := journal.Record{LSN: g.First, Generation: g.Tag(), Kind: journal.KindGeneration, Flags: journal.FlagLast, Payload: payload}
	first.PayloadCRC = crc32.Checksum(payload, journal.Castagnoli)
	second := journal.Record{LSN: g.First + 1, Generation: g.Tag(), Kind: journal.KindTrim, Flags: journal.FlagLast, Offset: 4096, Length: 8192}
	second.Seal(first.Seal(0x11223344))
	golden(t, "frame-v1-records", recordsFrame([]journal.Record{first, second}))
}

// TestRecordsFrameBounds: Add refuses at 1024 records and at 4 MiB of payload.
func TestRecordsFrameBounds(t *testing.T) {
	var f RecordsFrame
	trim := journal.Record{LSN: 1, Kind: journal.KindTrim, Length: 4096}
	for i := range MaxFrameRecords {
		if !f.Add(&trim) {
			t.Fatalf("record %d refused", i)
		}
	}
	if f.Add(&trim) {
		t.Error("record 1025 accepted")
	}
	if bufs := f.EncodeRecordsHeader(sampleNotes); len(bufs) != 1 {
		t.Errorf("records without payload make %d pieces", len(bufs))
	}
	f.Reset()
	big := journal.Record{LSN: 1, Kind: journal.KindWrite, Length: journal.MaxPayload, Payload: make([]byte, journal.MaxPayload)}
	for i := range 4 {
		if !f.Add(&big) {
			t.Fatalf("record %d refused", i)
		}
	}
	if f.Add(&big) || !f.Add(&trim) {
		t.Error("the limit is 4 MiB of payload, and a trim has none")
	}
	if f.Size() > FrameHeaderSize+maxRecordsBody {
		t.Error("larger than a frame may be")
	}
}

// TestRecordsFrameAllocatesNothing: a kept frame is filled without garbage.
func TestRecordsFrameAllocatesNothing(t *testing.T) {
	recs, _ := records(seeded(t), 20)
	var f RecordsFrame
	if n := testing.AllocsPerRun(100, func() {
		f.Reset()
		for i := range recs {
			f.Add(&recs[i])
		}
		f.EncodeRecordsHeader(sampleNotes)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestRecordsDamage: every byte of a Records frame is covered by some CRC, and
// what it announces is held against what it has.
func TestRecordsDamage(t *testing.T) {
	recs, _ := records(seeded(t), 3)
	for i := range recs { // short ones
		if p := recs[i].Payload; p != nil {
			recs[i].Payload, recs[i].Length = p[:1], 1
			recs[i].PayloadCRC = crc32.Checksum(p[:1], journal.Castagnoli)
		}
		var prev uint32
		if i > 0 {
			prev = recs[i-1].CRC
		}
		recs[i].Seal(prev)
	}
	frame := recordsFrame(recs)
	for at := range frame {
		bad := bytes.Clone(frame)
		bad[at] ^= 1
		if _, _, err := readRecords(reader(bad), 0); !errors.Is(err, ErrFrame) {
			t.Fatalf("byte %d flipped: %v", at, err)
		}
	}
	for n := 1; n < len(frame); n++ {
		if _, _, err := readRecords(reader(frame[:n]), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, _, err := readRecords(reader(frame), 1); !errors.Is(err, ErrFrame) {
		t.Errorf("another predecessor: %v", err)
	}
	for _, row := range []struct {
		name  string
		count uint32
		body  int // bytes
	}{
		{"none", 0, len(frame)},
		{"too many", MaxFrameRecords + 1, len(frame)},
		{"more than there are", 4, len(frame)},
		{"fewer than there are", 2, len(frame)},
		{"a payload past the frame's end", 2, FrameHeaderSize + recordsFixed + 49 + 48},
	} {
		bad := bytes.Clone(frame)
		le.PutUint32(bad[FrameHeaderSize:], row.count)
		fixed := bad[FrameHeaderSize:][:recordsFixed]
		putFrameHeader(bad, FrameRecords, row.body-FrameHeaderSize, fixed)
		r := reader(bad)
		_, _, err := readRecords(r, 0)
		if err == nil {
			_, _, err = r.Next()
		}
		if !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", row.name, err)
		}
		if row.count == 2 && row.body == len(frame) && !strings.Contains(err.Error(), "behind its last record") {
			t.Errorf("%s: what is left was taken for a frame: %v", row.name, err)
		}
	}
	r := reader(frame)
	if _, _, err := readRecords(r, 0); err != nil {
		t.Fatal(err)
	}
	var rec journal.Record
	if err := r.ReadRecord(&rec, recs[2].CRC); !errors.Is(err, ErrFrame) {
		t.Errorf("a record past the last: %v", err)
	}
}

func TestBlockFrame(t *testing.T) {
	payload := bytes.Repeat([]byte("lock"), 1024)
	data := Block{Offset: 1 << 20, Length: 4096, LSN: 77}
	zero := Block{Offset: 2 << 20, Length: journal.MaxZeroRange, Zero: true, LSN: 78}
	frame := append(AppendBlockHeader(nil, &data, payload), payload...)
	golden(t, "frame-v1-block", frame)
	r := reader(AppendBlockHeader(frame, &zero, nil))
	for _, want := range []Block{data, zero} {
		kind, body, err := r.Next()
		var got Block
		if err != nil || kind != FrameBlock || got.Decode(body) != nil || got != want {
			t.Fatalf("%v %+v, %v", kind, got, err)
		}
		buf, err := r.ReadBlock(&got)
		if err != nil || (buf == nil) != want.Zero {
			t.Fatal(buf, err)
		}
		if buf != nil {
			if !bytes.Equal(buf.Bytes(), payload) {
				t.Error("another payload")
			}
			buf.Unref()
		}
	}
	for at := range frame {
		bad := bytes.Clone(frame)
		bad[at] ^= 1
		if _, err := readBlock(reader(bad)); !errors.Is(err, ErrFrame) {
			t.Fatalf("byte %d flipped: %v", at, err)
		}
	}
	for _, bad := range []Block{{Length: 0}, {Length: MaxBlockPayload + 1}, {Length: journal.MaxZeroRange + 1, Zero: true}, {Length: 1, Zero: true, PayloadCRC: 1}, {Offset: -1, Length: 1}} {
		if err := new(Block).Decode(bad.Encode(nil)); !errors.Is(err, ErrFrame) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestReadReplyFrame(t *testing.T) {
	payload := bytes.Repeat([]byte("lock"), 1024)
	frame := append(AppendReadReplyHeader(nil, &ReadReply{ID: 3}, payload), payload...)
	golden(t, "frame-v1-readreply", frame)
	reply := func(b []byte) (ReadReply, []byte, error) {
		var m ReadReply
		r := reader(b)
		kind, body, err := r.Next()
		if err != nil || kind != FrameReadReply {
			return m, nil, err
		}
		if err := m.Decode(body); err != nil {
			return m, nil, err
		}
		buf, err := r.ReadReplied(&m)
		if buf == nil {
			return m, nil, err
		}
		defer buf.Unref()
		return m, bytes.Clone(buf.Bytes()), err
	}
	if m, got, err := reply(frame); err != nil || m.ID != 3 || !bytes.Equal(got, payload) {
		t.Errorf("%+v, %d bytes, %v", m, len(got), err)
	}
	if m, got, err := reply(AppendReadReplyHeader(nil, &ReadReply{ID: 4}, nil)); err != nil || m.ID != 4 || got != nil {
		t.Errorf("a read that failed: %+v, %d bytes, %v", m, len(got), err)
	}
	for at := range frame {
		bad := bytes.Clone(frame)
		bad[at] ^= 1
		if _, _, err := reply(bad); !errors.Is(err, ErrFrame) {
			t.Fatalf("byte %d flipped: %v", at, err)
		}
	}
	for _, bad := range []Message{
		&ReadReply{Length: MaxReadPayload + 1}, &ReadReply{PayloadCRC: 1},
		&Read{Length: 0}, &Read{Length: MaxReadPayload + 1}, &Read{Offset: -1, Length: 1},
	} {
		if err := blank(bad).Decode(bad.Encode(nil)); !errors.Is(err, ErrFrame) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func readBlock(r *FrameReader) (*block.Buffer, error) {
	kind, body, err := r.Next()
	if err != nil || kind != FrameBlock {
		return nil, err
	}
	var b Block
	if err := b.Decode(body); err != nil {
		return nil, err
	}
	return r.ReadBlock(&b)
}

func TestPreamble(t *testing.T) {
	want := Preamble{Min: 1, Max: 4, Nonce: ID{5}, Volume: "vol", Node: "a"}
	var b bytes.Buffer
	if err := WritePreamble(&b, want); err != nil {
		t.Fatal(err)
	}
	golden(t, "preamble-v4", b.Bytes())
	for older := uint16(1); older < 4; older++ {
		golden(t, fmt.Sprintf("preamble-v%d", older), (&Preamble{Min: 1, Max: older, Nonce: ID{5}, Volume: "vol", Node: "a"}).encode())
	}
	sent := b.Bytes()
	got, version, err := ReadPreamble(bytes.NewReader(sent))
	if err != nil || version != 4 || got != want {
		t.Fatalf("%+v, version %d, %v", got, version, err)
	}
	var wrong *VersionError
	for at := range sent {
		bad := bytes.Clone(sent)
		bad[at] ^= 4
		if _, _, err := ReadPreamble(bytes.NewReader(bad)); !errors.Is(err, ErrFrame) && !errors.As(err, &wrong) {
			t.Fatalf("byte %d flipped: %v", at, err)
		}
		if _, _, err := ReadPreamble(bytes.NewReader(sent[:at])); err == nil {
			t.Fatalf("cut to %d bytes: accepted", at)
		}
	}
	for _, row := range []struct {
		least, greatest, want uint16
		says                  string
	}{
		{1, 9, 4, ""},
		{1, 1, 1, ""},
		{2, 2, 2, ""},
		{5, 6, 0, "upgrade this node"},
		{0, 0, 0, "upgrade the peer"},
		{5, 1, 0, "versions 5 to 1"},
	} {
		p := Preamble{Min: row.least, Max: row.greatest}
		_, version, err := ReadPreamble(bytes.NewReader(p.encode()))
		if version != row.want || (err != nil) != (row.says != "") || err != nil && !(errors.As(err, &wrong) && strings.Contains(err.Error(), row.says)) {
			t.Errorf("%d to %d: version %d, %v", row.least, row.greatest, version, err)
		}
	}
	_, _, err = ReadPreamble(strings.NewReader("GET / HTTP/1.1\r\n\r\n"))
	if !errors.Is(err, ErrFrame) || !strings.Contains(err.Error(), "GET / HT") {
		t.Error(err)
	}
}
