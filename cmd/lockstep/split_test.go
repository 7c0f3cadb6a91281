package main

import (
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

// sampleSplit is a split-brain of which everything is known of one side, and
// little of the other.
func sampleSplit() mirror.SplitReport {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.Local)
	forced := true
	r := mirror.SplitReport{
		Volume: "data", Peer: "beta", Common: mirror.Position{Generation: mirror.ID{0xab, 0xcd, 0xef, 0x01}, LSN: 1317},
		Parted: at, Met: at.Add(time.Hour),
		Ours: mirror.SplitSide{
			Node: "alpha", Role: mirror.Primary, Disk: mirror.UpToDate, End: 3000, Stable: 2990, Writes: 1682, Trimmed: 1000,
			Bytes: 5 << 20, Accuracy: mirror.RangesBlocks,
			Generations: []mirror.SplitGeneration{{First: 1318, Last: 3000, Epoch: 3, Without: []string{"beta"}, Began: at}},
		},
		Theirs: mirror.SplitSide{
			Node: "beta", Role: mirror.Secondary, Disk: mirror.UpToDate, End: 1319, Stable: 1319, Writes: 1, Bytes: 4096,
			Ranges:      []mirror.Range{{Offset: 8192, Length: 4096}},
			Generations: []mirror.SplitGeneration{{First: 1318, Last: 1319, Epoch: 4, Promotion: true, Forced: &forced, Without: []string{"alpha"}}},
		},
		Both: []mirror.Range{{Offset: 8192, Length: 4096}}, Reason: "split-brain",
	}
	for i := range int64(13) {
		r.Ours.Ranges = append(r.Ours.Ranges, mirror.Range{Offset: 8192 + i<<20, Length: 8192})
	}
	return r
}

func TestSplitShow(t *testing.T) {
	var b strings.Builder
	r := sampleSplit()
	printSplit(&b, r)
	b.WriteString("\n--- little is known, and both sides wrote elsewhere\n")
	r.Parted, r.Both, r.BothExact = time.Time{}, nil, true
	r.Theirs.Ranges, r.Theirs.Bytes, r.Theirs.Accuracy = nil, 0, mirror.RangesUnknown
	r.Theirs.Generations[0].Forced = nil
	r.Ours.Ranges, r.Ours.Trimmed, r.Ours.Accuracy = r.Ours.Ranges[:1], 0, mirror.RangesExact
	r.Ours.Generations[0] = mirror.SplitGeneration{First: 1318, Last: 3000, Epoch: 3, Continued: true}
	printSplit(&b, r)
	golden(t, "split.txt", b.String())
}

func TestSplitResolve(t *testing.T) {
	d := startDaemon(t)
	r := sampleSplit()
	plan := mirror.SplitPlan{Volume: "data", Keep: "alpha", Peer: "beta", Lost: r.Theirs, Since: r.Parted,
		Next: []mirror.SplitStep{{Node: "beta", Command: "lockstep connect data"}}}
	d.plan = &plan
	resolve := func(flags ...string) (status int, out, errOut string) {
		return lockstep(append([]string{"split", "resolve", "data", "--keep", "alpha", "--socket", d.socket}, flags...)...)
	}
	const asks = `POST /v1/volumes/data/split/resolve {"keep":"alpha"`
	status, out, errOut := resolve("--dry-run", "--discard-losing-writes")
	if got := d.take(); status != exitOK || got != asks+`,"dryRun":true,"discardLosingWrites":true}` || !strings.Contains(out, "NOT kept") || !strings.Contains(out, "Nothing was changed.") {
		t.Errorf("%d, asked %s: %s%s", status, got, out, errOut)
	}
	status, out, errOut = resolve("--discard-losing-writes")
	if got := d.take(); status != exitOK || got != asks+`,"dryRun":true,"discardLosingWrites":true}; `+asks+`,"discardLosingWrites":true}` {
		t.Errorf("%d, asked %s: %s%s", status, got, out, errOut)
	}
	plan.Preserved = "split-1319"
	status, out, errOut = resolve()
	if got := d.take(); status != exitOK || got != asks+`,"dryRun":true}; `+asks+`}` || !strings.Contains(out, "snapshot split-1319") {
		t.Errorf("%d, asked %s: %s%s", status, got, out, errOut)
	}
	plan.Demotes = true
	_, demoting, _ := lockstep("split", "resolve", "data", "--keep", "alpha", "--dry-run", "--socket", d.socket)
	golden(t, "resolve.txt", out+"\n--- a dry run that would demote\n"+demoting)
	if status, out, _ = lockstep("split", "resolve", "data", "--keep", "alpha", "--dry-run", "--json", "--socket", d.socket); status != exitOK || !strings.HasPrefix(out, "{") || !strings.Contains(out, `"lost": {`) {
		t.Errorf("%d: %s", status, out)
	}
	if status, _, errOut = lockstep("split", "resolve", "data", "--socket", d.socket); status != exitUsage || !strings.Contains(errOut, "--keep NODE") {
		t.Errorf("%d: %s", status, errOut)
	}
}
