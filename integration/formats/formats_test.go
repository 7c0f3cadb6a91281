package formats

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A field is one row of a table: where it is, how long, and what the table says.
type field struct {
	offset, size int // size is 0 for "-"
	text         string
}

func document(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// table reads the first table of offsets behind an anchor. Its fields must lie
// one behind the other, without a gap.
func table(t *testing.T, anchor string) (fields []field) {
	t.Helper()
	_, rest, ok := strings.Cut(document(t), anchor)
	if !ok {
		t.Fatalf("docs/formats.md does not have %q", anchor)
	}
	i := strings.Index(rest, "| offset | size |")
	if i < 0 {
		t.Fatalf("there is no table behind %q", anchor)
	}
	next := 0
	for line := range strings.Lines(rest[i:]) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 {
			break
		}
		offset, err := strconv.Atoi(strings.TrimSpace(cells[0]))
		if err != nil {
			continue // the table's head, or a field at no fixed place
		}
		size, err := strconv.Atoi(strings.TrimSpace(cells[1]))
		if err != nil {
			size = 0
		}
		text := strings.TrimSpace(cells[2])
		if offset != next {
			t.Errorf("%s: %q is at %d, and what is before it ends at %d", anchor, text, offset, next)
		}
		next = offset + size
		fields = append(fields, field{offset, size, text})
	}
	if len(fields) == 0 {
		t.Fatalf("the table behind %q has no rows", anchor)
	}
	return fields
}

var (
	quoted   = regexp.MustCompile("`([^`]+)`")
	crcRange = regexp.MustCompile(`CRC of bytes (\d+) to (\d+)`)
	isOne    = regexp.MustCompile(`\bversion, 1$`)
)

// decode reads a vector by a table. Magics, versions, CRCs and zeroes have to be
// as it says; seed is the CRC that one of them is chained to. It returns the
// numbers, by what the table calls them.
func decode(t *testing.T, anchor string, vector []byte, seed uint32) map[string]uint64 {
	t.Helper()
	found := map[string]uint64{}
	for _, f := range table(t, anchor) {
		if f.offset+f.size > len(vector) {
			t.Fatalf("%s: %q ends at %d, the vector at %d", anchor, f.text, f.offset+f.size, len(vector))
		}
		b := vector[f.offset : f.offset+f.size]
		n := number(b)
		found[f.text] = n
		switch {
		case f.size == 0:
		case strings.HasPrefix(f.text, "zero") && !strings.Contains(f.text, ":"):
			if bytes.ContainsFunc(b, func(r rune) bool { return r != 0 }) {
				t.Errorf("%s: %q at %d is %x", anchor, f.text, f.offset, b)
			}
		case isOne.MatchString(f.text):
			if n != 1 {
				t.Errorf("%s: %q is %d", anchor, f.text, n)
			}
		case strings.HasPrefix(f.text, "magic") || strings.HasPrefix(f.text, "`"):
			if !isMagic(f.text, string(b)) {
				t.Errorf("%s: %q is %q", anchor, f.text, b)
			}
		case crcRange.MatchString(f.text):
			if want := covered(f.text, vector, seed); want != uint32(n) {
				t.Errorf("%s: %q is %08x, computed %08x", anchor, f.text, n, want)
			}
		}
	}
	return found
}

func number(b []byte) uint64 {
	if len(b) > 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(append(bytes.Clone(b), make([]byte, 8)...))
}

func isMagic(text, got string) bool {
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		if m[1] == got {
			return true
		}
	}
	return false
}

// covered is the CRC of what a field of that text covers.
func covered(text string, vector []byte, seed uint32) uint32 {
	m := crcRange.FindStringSubmatch(text)
	from, _ := strconv.Atoi(m[1])
	last, _ := strconv.Atoi(m[2])
	crc := uint32(0)
	if strings.Contains(text, "seeded") {
		crc = seed
	}
	crc = crc32.Update(crc, castagnoli, vector[from:last+1])
	if strings.Contains(text, "and of the body") {
		crc = crc32.Update(crc, castagnoli, vector[32:32+binary.LittleEndian.Uint32(vector[24:])])
	}
	return crc
}

// wants compares what a vector was made of with what was found. A key is how the
// table's text begins.
func wants(t *testing.T, anchor string, found map[string]uint64, want map[string]uint64) {
	t.Helper()
	for prefix, n := range want {
		hit := false
		for text, got := range found {
			if strings.HasPrefix(text, prefix) {
				hit = true
				if got != n {
					t.Errorf("%s: %q is %d, not %d", anchor, text, got, n)
				}
			}
		}
		if !hit {
			t.Errorf("%s: the table has no %q", anchor, prefix)
		}
	}
}

func vector(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// dumps reads the vectors of a file of hex dumps, which empty lines part.
func dumps(t *testing.T, path string) (all [][]byte) {
	t.Helper()
	for text := range strings.SplitSeq(string(vector(t, path)), "\n\n") {
		var b []byte
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, "|")
			if words := strings.Fields(line); len(words) > 1 {
				part, err := hex.DecodeString(strings.Join(words[1:], ""))
				if err != nil {
					t.Fatal(err)
				}
				b = append(b, part...)
			}
		}
		all = append(all, b)
	}
	return all
}

func TestJournal(t *testing.T) {
	v := dumps(t, "journal/testdata/format2.hex")
	const segment, batch, record = "**A segment**", "**A batch**", "**A record**"
	head := decode(t, segment, v[0], 0)
	wants(t, segment, head, map[string]uint64{
		"journal id": 0x1122334455667788, "sequence number, rising": 9, "sequence number of the segment before": 8,
		"LSN of the first record": 102, "CRC of the record before": 0xdeadbeef, "segments that": 16, "size of a segment": 16 << 20,
		"sequence number of the oldest": 5,
	})
	b := decode(t, batch, v[1], 0)
	wants(t, batch, b, map[string]uint64{
		"number of records": 2, "journal id": 0x1122334455667788, "sequence number of the segment": 9,
		"LSN of the first record": 102, "CRC of the record before": 0xdeadbeef,
	})
	first := v[1][96:]
	r := decode(t, record, first, 0xdeadbeef)
	wants(t, record, r, map[string]uint64{"LSN": 102})
	n := binary.LittleEndian.Uint32(first[36:])
	if crc := crc32.Checksum(first[48:48+n], castagnoli); n > 0 && crc != binary.LittleEndian.Uint32(first[4:]) {
		t.Errorf("the payload's CRC is %08x", crc)
	}
	// The second one is chained to the first.
	decode(t, record, first[48+n:], binary.LittleEndian.Uint32(first))
}

func TestSuperblock(t *testing.T) {
	for version, name := range map[uint64]string{1: "mirror/testdata/superblock-v1.bin", 2: "mirror/testdata/superblock-v2.bin", 3: "mirror/testdata/superblock-v3.bin", 4: "mirror/testdata/superblock-v4.bin"} {
		v := vector(t, name)
		found := decode(t, "## Superblock", v, 0)
		wants(t, name, found, map[string]uint64{"format version": version, "slot number": 1, "sequence number": 41})
		if !bytes.HasPrefix(v[32+16:], []byte("\x03vol\x01a")) {
			t.Errorf("%s: the body begins %x", name, v[32:64])
		}
		end := 32 + binary.LittleEndian.Uint32(v[24:])
		if version == 2 && (v[end-17] != 2 || v[end-16] != 7) {
			t.Errorf("%s: the body ends %x", name, v[end-17:end])
		}
		if version == 3 && !bytes.HasSuffix(v[:end], []byte("\x00\x00\x10snapshot is full")) { // flags, peer, why it is lost
			t.Errorf("%s: the body ends %x", name, v[end-32:end])
		}
		if version == 4 && !bytes.HasSuffix(v[:end], []byte("\x04\x00\x00")) { // flags, peer, why it is lost
			t.Errorf("%s: the body ends %x", name, v[end-32:end])
		}
	}
}

func TestGeneration(t *testing.T) {
	for version := range uint64(2) {
		name := fmt.Sprintf("mirror/testdata/generation-v%d.bin", version+1)
		wants(t, name, decode(t, "### Generation record", vector(t, name), 0), map[string]uint64{"version": version + 1})
	}
	if v := vector(t, "mirror/testdata/generation-v2.bin"); !bytes.HasSuffix(v, []byte("\x01a\x06monday")) {
		t.Errorf("version 2 ends %x", v)
	}
}

// A history that tells of rollbacks says so beside its length, and each entry after
// its set.
func TestHistory(t *testing.T) {
	v := vector(t, "mirror/testdata/history-v3.bin")
	names := v[1:]
	for range v[0] {
		names = names[1+names[0]:]
	}
	if n := binary.LittleEndian.Uint16(names); n != 1<<15|6 {
		t.Errorf("its length is %#x", n)
	}
	if !bytes.HasSuffix(v, []byte("\x02\x02\x07tuesday")) { // the third name
		t.Errorf("it ends %x", v)
	}
}

func TestBitmaps(t *testing.T) {
	for name, want := range map[string]map[string]uint64{
		"bitmap/testdata/out-of-sync-v1.bin":  {"unit": 4096, "base: LSN": 0x1234, "fill": 1, "era": 2, "sequence number": 3, "volume size": 1 << 30},
		"bitmap/testdata/write-intent-v1.bin": {"unit": 16 << 20, "base: LSN": 0, "fill": 0, "era": 0, "sequence number": 1, "volume size": 1 << 30},
	} {
		wants(t, name, decode(t, "Header:", vector(t, name), 0), want)
	}
	page := vector(t, "bitmap/testdata/page-v1.bin")
	wants(t, "page", decode(t, "Page of bits:", page, 0), map[string]uint64{"page number": 7, "era": 2})
	if page[16] != 1 || page[16+15] != 0x80 {
		t.Errorf("the bits begin %x", page[16:32])
	}
}

func TestSnapshot(t *testing.T) {
	v := vector(t, "snapshot/testdata/snapshot-v1.bin")
	const header, batch, entry = "Snapshot header", "Snapshot batch:", "Snapshot entry:"
	for _, copy := range [][]byte{v, v[4096:]} {
		wants(t, header, decode(t, header, copy, 0), map[string]uint64{
			"volume size": 1 << 20, "when it was created": 1700000000e9 + 5, "length of the note": 6,
		})
	}
	for at, want := range map[int]map[string]uint64{
		8192:              {"number of entries": 1, "sequence number": 1, "length of the batch": 3 * 4096},
		8192 + 3*4096:     {"number of entries": 1, "sequence number": 2, "length of the batch": 4096},
		8192 + (3+1)*4096: {"number of entries": 1, "sequence number": 3, "length of the batch": 2 * 4096},
	} {
		b := v[at:]
		found := decode(t, batch, b, 0)
		wants(t, batch, found, want)
		if crc := crc32.Checksum(b[12:4096], castagnoli); crc != binary.LittleEndian.Uint32(b[8:]) {
			t.Errorf("the CRC of the batch at %d is %08x", at, crc)
		}
	}
	first := decode(t, entry, v[8192+64:], 0)
	wants(t, entry, first, map[string]uint64{"offset in": 0, "length": 2 * 4096, "kind": 0})
	if crc := crc32.Checksum(v[8192+4096:8192+3*4096], castagnoli); uint64(crc) != first["CRC of the data, 0 without"] {
		t.Errorf("the data's CRC is %08x", crc)
	}
	wants(t, entry, decode(t, entry, v[8192+3*4096+64:], 0), map[string]uint64{"offset in": 2 * 4096, "length": 4096, "kind": 1})
}

// The file of a split-brain is a head, and two frames.
func TestSplitBrain(t *testing.T) {
	v := vector(t, "mirror/testdata/split-brain-v1.bin")
	found := decode(t, "## A split-brain", v, 0)
	wants(t, "split-brain", found, map[string]uint64{"when they met": 1_700_000_000_123_456_789})
	if crc := crc32.Checksum(v[16:], castagnoli); crc != binary.LittleEndian.Uint32(v[12:]) {
		t.Errorf("the CRC is %08x", crc)
	}
	hello := vector(t, "mirror/testdata/frame-v1-hello.bin")
	split := vector(t, "mirror/testdata/frame-v1-split.bin")
	if !bytes.Equal(v[24:], append(hello, split...)) {
		t.Error("the head is not followed by a Hello frame and a Split frame")
	}
}

// Every example that the document names is there, and every one that is there is
// named.
func TestExamplesAreNamed(t *testing.T) {
	_, rest, _ := strings.Cut(document(t), "## Versions")
	rest, _, _ = strings.Cut(rest, "\n## ")
	named := map[string]bool{}
	for _, m := range quoted.FindAllStringSubmatch(rest, -1) {
		pattern := m[1]
		if strings.HasPrefix(pattern, "frame-") {
			pattern = "mirror/testdata/" + pattern
		}
		if !strings.Contains(pattern, "/testdata/") {
			continue
		}
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: there is no such example", m[1])
		}
		for _, f := range files {
			named[f] = true
		}
	}
	for _, pattern := range []string{"journal", "bitmap", "snapshot", "mirror"} {
		files, err := filepath.Glob(filepath.Join("../..", pattern, "testdata", "*.*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !named[f] {
				t.Errorf("docs/formats.md does not name %s", f)
			}
		}
	}
}

// row finds the numbers of the frames' types.
var row = regexp.MustCompile(`(?m)^\| (\d+) \| (\w+) \| `)

func TestFrames(t *testing.T) {
	_, rest, _ := strings.Cut(document(t), "| type | name | body |")
	rest, _, _ = strings.Cut(rest, "\n\n")
	types := row.FindAllStringSubmatch(rest, -1)
	examples, err := filepath.Glob("../../mirror/testdata/frame-v*.bin")
	if err != nil || len(types) != len(examples) || len(types) == 0 {
		t.Fatalf("the table has %d types of frames, and there are %d examples, %v", len(types), len(examples), err)
	}
	for _, m := range types {
		number, _ := strconv.ParseUint(m[1], 10, 8)
		version := 1
		switch {
		case number >= 23:
			version = 4
		case number >= 20:
			version = 2
		}
		name := fmt.Sprintf("mirror/testdata/frame-v%d-%s.bin", version, strings.ToLower(m[2]))
		v := vector(t, name)
		found := decode(t, "### Frames", v, 0)
		wants(t, name, found, map[string]uint64{"type": number, "length of the body": uint64(len(v) - 16)})
		fixed := len(v)
		switch m[2] {
		case "Records":
			fixed = 16 + 40
			decode(t, "**Records** has", v[16:], 0)
		case "Block":
			fixed = 16 + 28
			decode(t, "**Block** has", v[16:], 0)
		case "ReadReply":
			fixed = 16 + 16
			decode(t, "**ReadReply** has", v[16:], 0)
		}
		if crc := crc32.Checksum(v[16:fixed], castagnoli); crc != binary.LittleEndian.Uint32(v[8:]) {
			t.Errorf("%s: the body's CRC is %08x", name, crc)
		}
	}
}

func TestPreamble(t *testing.T) {
	for version := uint64(1); version <= 4; version++ {
		name := fmt.Sprintf("mirror/testdata/preamble-v%d.bin", version)
		v := vector(t, name)
		found := decode(t, "### Preamble", v, 0)
		wants(t, name, found, map[string]uint64{"least protocol version": 1, "greatest": version, "length of what follows": uint64(len(v) - 16)})
		if crc := crc32.Checksum(v[:len(v)-4], castagnoli); crc != binary.LittleEndian.Uint32(v[len(v)-4:]) {
			t.Errorf("%s: the CRC is %08x", name, crc)
		}
	}
}
