package main

import (
	"fmt"
	"strconv"
)

// A workload is what fio does to a server.
type workload struct {
	rw    string // fio's --rw
	bs    string // fio's --bs
	depth int
	fsync bool // a flush after every write
	// target is the least ratio that is aimed for beside nbdkit; 0 for none.
	target float64
}

func (w workload) String() string {
	s := fmt.Sprintf("%s-%s-qd%d", w.rw, w.bs, w.depth)
	if w.fsync {
		s += "-fsync"
	}
	return s
}

// args are the options that the workload gives to fio.
func (w workload) args() []string {
	a := []string{"--rw=" + w.rw, "--bs=" + w.bs, "--iodepth=" + strconv.Itoa(w.depth)}
	if w.fsync {
		a = append(a, "--fsync=1")
	}
	return a
}

// single is run on one copy, ours and theirs.
var single = []workload{
	{rw: "randwrite", bs: "4k", depth: 1, target: 1},
	{rw: "randwrite", bs: "4k", depth: 32, target: 1},
	{rw: "randread", bs: "4k", depth: 1, target: 1},
	{rw: "randread", bs: "4k", depth: 32, target: 1},
	{rw: "write", bs: "128k", depth: 1},
	{rw: "write", bs: "128k", depth: 32},
	{rw: "randwrite", bs: "4k", depth: 1, fsync: true},
	{rw: "randwrite", bs: "4k", depth: 32, fsync: true},
}

// onMirror is run on two copies of ours, on one machine, beside one of theirs.
var onMirror = []workload{
	{rw: "randwrite", bs: "4k", depth: 1},
	{rw: "randwrite", bs: "4k", depth: 32},
	{rw: "randread", bs: "4k", depth: 32},
	{rw: "randwrite", bs: "4k", depth: 32, fsync: true},
}

// mirrored is run on a pair whose peer is one round trip away: what waits for
// the peer one by one, and what many wait for together.
var mirrored = [2]workload{
	{rw: "randwrite", bs: "4k", depth: 1},
	{rw: "randwrite", bs: "4k", depth: 32},
}
