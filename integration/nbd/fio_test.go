package nbd_test

import (
	"strings"
	"testing"
)

// fio writes, reads back and checks every block's checksum.
func TestFioVerify(t *testing.T) {
	overAll(t, "fio", "fio", func(t *testing.T, e export) {
		if out := run(t, "fio", "--enghelp"); !strings.Contains(out, "nbd") {
			t.Fatalf("this fio has no nbd engine:\n%s", out)
		}
		for _, how := range [][]string{
			{"--name=random-small", "--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=16m"},
			{"--name=random-mixed", "--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned=0", "--iodepth=16", "--size=32m"},
			{"--name=large", "--rw=write", "--bs=1m", "--iodepth=8", "--size=64m"},
			{"--name=synced", "--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=16", "--size=2m"},
		} {
			args := append([]string{"--ioengine=nbd", "--uri=" + e.uri(), "--verify=crc32c", "--verify_fatal=1", "--randseed=1"}, how...)
			if out := run(t, "fio", args...); !strings.Contains(out, "err= 0") {
				t.Errorf("fio %v:\n%s", how, out)
			}
		}
	})
}
