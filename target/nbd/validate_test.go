package nbd

import (
	"math"
	"testing"

	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

func TestJudge(t *testing.T) {
	const size = 1 << 20
	rw := rules{size: size, sector: 512}
	ro := rules{size: size, sector: 512, readOnly: true}
	fast := rules{size: size, sector: 512, fastZero: true}
	huge := rules{size: 1 << 40, sector: 512}
	for _, tc := range []struct {
		name   string
		rules  rules
		req    wire.Request
		errno  uint32
		hangUp bool
	}{
		{name: "read", rules: rw, req: wire.Request{Type: wire.CmdRead, Len: 512}},
		{name: "read to the end", rules: rw, req: wire.Request{Type: wire.CmdRead, Off: size - 512, Len: 512}},
		{name: "read with FUA", rules: rw, req: wire.Request{Type: wire.CmdRead, Len: 512, Flags: wire.CmdFlagFUA}},
		{name: "write with FUA", rules: rw, req: wire.Request{Type: wire.CmdWrite, Len: 512, Flags: wire.CmdFlagFUA}},
		{name: "flush with FUA", rules: rw, req: wire.Request{Type: wire.CmdFlush, Flags: wire.CmdFlagFUA}},
		{name: "zeroes, no hole", rules: rw, req: wire.Request{Type: wire.CmdWriteZeroes, Len: 512, Flags: wire.CmdFlagNoHole | wire.CmdFlagFUA}},
		{name: "trim of 2 GiB", rules: huge, req: wire.Request{Type: wire.CmdTrim, Len: 1 << 31}},
		{name: "the largest write", rules: huge, req: wire.Request{Type: wire.CmdWrite, Len: wire.MaxPayload}},
		{name: "cache of all", rules: huge, req: wire.Request{Type: wire.CmdCache, Len: 1 << 40, Flags: wire.CmdFlagFUA}},
		{name: "cache, read-only", rules: ro, req: wire.Request{Type: wire.CmdCache, Len: size}},
		{name: "block status, read-only", rules: rules{size: size, sector: 512, readOnly: true, terms: terms{structured: true, status: true}}, req: wire.Request{Type: wire.CmdBlockStatus, Len: size}},
		{name: "fast zero", rules: fast, req: wire.Request{Type: wire.CmdWriteZeroes, Len: 512, Flags: wire.CmdFlagFastZero | wire.CmdFlagNoHole}},
		{name: "flush, read-only", rules: ro, req: wire.Request{Type: wire.CmdFlush}},

		{name: "unknown command", rules: rw, req: wire.Request{Type: 4711}, errno: wire.EINVAL},
		{name: "unknown flag", rules: rw, req: wire.Request{Type: wire.CmdRead, Len: 512, Flags: 1 << 9}, errno: wire.EINVAL},
		{name: "no hole on a write", rules: rw, req: wire.Request{Type: wire.CmdWrite, Len: 512, Flags: wire.CmdFlagNoHole}, errno: wire.EINVAL},
		{name: "zeroes that are not fast", rules: rw, req: wire.Request{Type: wire.CmdWriteZeroes, Len: 512, Flags: wire.CmdFlagFastZero}, errno: wire.ENOTSUP},
		{name: "zeroes that are not fast, beyond", rules: rw, req: wire.Request{Type: wire.CmdWriteZeroes, Off: size, Len: 512, Flags: wire.CmdFlagFastZero}, errno: wire.ENOSPC},
		{name: "fast zero, read-only", rules: ro, req: wire.Request{Type: wire.CmdWriteZeroes, Len: 512, Flags: wire.CmdFlagFastZero}, errno: wire.EPERM},
		{name: "fast zero on a trim", rules: rw, req: wire.Request{Type: wire.CmdTrim, Len: 512, Flags: wire.CmdFlagFastZero}, errno: wire.EINVAL},
		{name: "cache beyond", rules: rw, req: wire.Request{Type: wire.CmdCache, Off: size - 512, Len: 1024}, errno: wire.EINVAL},
		{name: "cache with a flag", rules: rw, req: wire.Request{Type: wire.CmdCache, Len: 512, Flags: wire.CmdFlagNoHole}, errno: wire.EINVAL},
		{name: "cache of nothing", rules: rw, req: wire.Request{Type: wire.CmdCache}, errno: wire.EINVAL},
		{name: "flush with a range", rules: rw, req: wire.Request{Type: wire.CmdFlush, Len: 512}, errno: wire.EINVAL},
		{name: "read beyond", rules: rw, req: wire.Request{Type: wire.CmdRead, Off: size - 512, Len: 1024}, errno: wire.EINVAL},
		{name: "trim beyond", rules: rw, req: wire.Request{Type: wire.CmdTrim, Off: size, Len: 512}, errno: wire.EINVAL},
		{name: "write beyond", rules: rw, req: wire.Request{Type: wire.CmdWrite, Off: size, Len: 512}, errno: wire.ENOSPC},
		{name: "zeroes beyond", rules: rw, req: wire.Request{Type: wire.CmdWriteZeroes, Off: size, Len: 512}, errno: wire.ENOSPC},
		{name: "offset 2^63-512", rules: rw, req: wire.Request{Type: wire.CmdRead, Off: math.MaxInt64 - 511, Len: 512}, errno: wire.EINVAL},
		{name: "offset 2^63", rules: rw, req: wire.Request{Type: wire.CmdWrite, Off: 1 << 63, Len: 512}, errno: wire.ENOSPC},
		{name: "sum overflows 2^64", rules: rw, req: wire.Request{Type: wire.CmdTrim, Off: math.MaxUint64 - 511, Len: 1024}, errno: wire.EINVAL},
		{name: "nothing", rules: rw, req: wire.Request{Type: wire.CmdRead}, errno: wire.EINVAL},
		{name: "crooked offset", rules: rw, req: wire.Request{Type: wire.CmdRead, Off: 1, Len: 512}, errno: wire.EINVAL},
		{name: "crooked length", rules: rw, req: wire.Request{Type: wire.CmdWrite, Len: 513}, errno: wire.EINVAL},
		{name: "read too long", rules: huge, req: wire.Request{Type: wire.CmdRead, Len: wire.MaxPayload + 512}, errno: wire.EINVAL},
		{name: "write too long", rules: huge, req: wire.Request{Type: wire.CmdWrite, Len: wire.MaxPayload + 512}, errno: wire.EINVAL, hangUp: true},
		{name: "write too long, read-only", rules: ro, req: wire.Request{Type: wire.CmdWrite, Len: math.MaxUint32}, errno: wire.EINVAL, hangUp: true},
		{name: "write, read-only", rules: ro, req: wire.Request{Type: wire.CmdWrite, Len: 512}, errno: wire.EPERM},
		{name: "trim, read-only", rules: ro, req: wire.Request{Type: wire.CmdTrim, Len: 512}, errno: wire.EPERM},
		{name: "zeroes, read-only", rules: ro, req: wire.Request{Type: wire.CmdWriteZeroes, Len: 512}, errno: wire.EPERM},
	} {
		no := tc.rules.judge(tc.req)
		switch {
		case no == nil && tc.errno != 0:
			t.Errorf("%s: accepted", tc.name)
		case no != nil && (no.errno != tc.errno || no.hangUp != tc.hangUp || no.why == ""):
			t.Errorf("%s: %+v, want %s", tc.name, *no, wire.ErrnoName(tc.errno))
		}
	}
}
