package main

import "github.com/lockstep-storage/lockstep/benchmarks/fio"

// A workload is what fio does to a server.
type workload struct {
	fio.Workload
	// target is the least ratio that is aimed for beside nbdkit; 0 for none.
	target float64
}

// single is run on one copy, ours and theirs.
var single = []workload{
	{fio.Workload{RW: "randwrite", BS: "4k", Depth: 1}, 1},
	{fio.Workload{RW: "randwrite", BS: "4k", Depth: 32}, 1},
	{fio.Workload{RW: "randread", BS: "4k", Depth: 1}, 1},
	{fio.Workload{RW: "randread", BS: "4k", Depth: 32}, 1},
	{fio.Workload{RW: "write", BS: "128k", Depth: 1}, 0},
	{fio.Workload{RW: "write", BS: "128k", Depth: 32}, 0},
	{fio.Workload{RW: "randwrite", BS: "4k", Depth: 1, Fsync: true}, 0},
	{fio.Workload{RW: "randwrite", BS: "4k", Depth: 32, Fsync: true}, 0},
}

// onMirror is run on two copies of ours, on one machine, beside one of theirs.
var onMirror = []workload{
	{fio.Workload{RW: "randwrite", BS: "4k", Depth: 1}, 0},
	{fio.Workload{RW: "randwrite", BS: "4k", Depth: 32}, 0},
	{fio.Workload{RW: "randread", BS: "4k", Depth: 32}, 0},
	{fio.Workload{RW: "randwrite", BS: "4k", Depth: 32, Fsync: true}, 0},
}

// mirrored is run on a pair whose peer is one round trip away: what waits for
// the peer one by one, and what many wait for together.
var mirrored = [2]workload{
	{fio.Workload{RW: "randwrite", BS: "4k", Depth: 1}, 0},
	{fio.Workload{RW: "randwrite", BS: "4k", Depth: 32}, 0},
}
