package journal

import (
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/lockstep-storage/lockstep/disk"
)

// BenchmarkAppend appends batches of 4 KiB writes to files, with and without a
// sync after each.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 32} {
		for _, synced := range []bool{false, true} {
			b.Run(fmt.Sprintf("records=%d/sync=%v", n, synced), func(b *testing.B) { benchAppend(b, n, synced) })
		}
	}
}

func benchAppend(b *testing.B, n int, synced bool) {
	d, err := disk.OS(b.TempDir())
	ok(b, err)
	o := Options{Size: 64 << 20}
	ok(b, Create(d, o))
	j, _, err := Open(d, o)
	ok(b, err)
	defer j.Close()
	p := payload(1, 1, 4096)
	recs := make([]*Record, n)
	for i := range recs {
		recs[i] = &Record{Kind: KindWrite, Length: 4096, Payload: p, PayloadCRC: crc32.Checksum(p, Castagnoli), Flags: FlagLast}
	}
	b.SetBytes(int64(n) * 4096)
	b.ReportAllocs()
	for b.Loop() {
		end, crc := j.End(), j.EndCRC()
		for i, r := range recs {
			r.LSN = end + LSN(i) + 1
			crc = r.Seal(crc)
		}
		ok(b, j.Append(recs, Notes{}, true))
		if synced {
			_, err := j.Sync()
			ok(b, err)
		}
		if j.Used() > j.Size()/2 {
			ok(b, j.Trim(j.End()))
		}
	}
}
