package interop

import "testing"

// fio writes, reads back and checks every block's checksum.
func fio(t *testing.T, e export) {
	for _, how := range [][]string{
		{"--name=random-small", "--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=16m"},
		{"--name=random-mixed", "--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned=0", "--iodepth=16", "--size=32m", "--fsync=32"},
		{"--name=mixed", "--rw=randrw", "--bs=64k", "--iodepth=16", "--size=64m"},
		{"--name=large", "--rw=write", "--bs=1m", "--iodepth=8", "--size=64m"},
		{"--name=synced", "--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1", "--size=1m"},
	} {
		// fio ends with status 1 at a block that is not what it wrote.
		run(t, "fio", append([]string{"--ioengine=nbd", "--uri=" + e.uri(), "--thread", "--randseed=1",
			"--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0"}, how...)...)
	}
}
