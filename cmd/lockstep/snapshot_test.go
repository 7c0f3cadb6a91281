package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/node"
)

func sampleSnapshots() []node.Snapshot {
	at := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	return []node.Snapshot{
		{SnapshotStatus: mirror.SnapshotStatus{Name: "monday", At: mirror.Position{LSN: 1319}, Created: at, Preserved: 3 << 20, Used: 2 << 20,
			Image: &mirror.ImageStatus{UpTo: 1319, Sessions: 1}}, Export: "data@alpha@monday"},
		{SnapshotStatus: mirror.SnapshotStatus{Name: "split-1500", At: mirror.Position{LSN: 1500}, Created: at, Peer: "beta"}},
		{SnapshotStatus: mirror.SnapshotStatus{Name: "tuesday", At: mirror.Position{LSN: 1600}, Created: at, Lost: "snapshot is full"}},
		{SnapshotStatus: mirror.SnapshotStatus{Name: "wednesday", At: mirror.Position{LSN: 1700}, Created: at, Preserved: 1 << 20, Rollback: &mirror.RollbackProgress{Done: 1 << 19, Total: 1 << 20}}},
		{SnapshotStatus: mirror.SnapshotStatus{Name: "thursday", At: mirror.Position{LSN: 1800}, Created: at, Rollback: &mirror.RollbackProgress{}}},
		{SnapshotStatus: mirror.SnapshotStatus{Name: "before-rollback", At: mirror.Position{LSN: 1900}, Created: at, Before: true}},
	}
}

func TestSnapshotTable(t *testing.T) {
	var b bytes.Buffer
	if err := writeSnapshots(&b, "data", sampleSnapshots()); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n--- none\n")
	if err := writeSnapshots(&b, "data", nil); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n--- what a rollback would do\n")
	plan := mirror.SnapshotRollbackPlan{Volume: "data", Node: "alpha", Size: 1 << 30, Snapshot: sampleSnapshots()[0].SnapshotStatus, Restores: 3 << 20, Writes: 12}
	printSnapshotRollback(&b, plan)
	plan.Writes, plan.Resumes, plan.Refused = -1, true, "clients are attached: disconnect them first"
	printSnapshotRollback(&b, plan)
	golden(t, "snapshot.txt", b.String())
}

// Each command asks for what it says, and a destructive one for nothing before it was
// confirmed.
func TestSnapshotCommands(t *testing.T) {
	const path = "/v1/volumes/data/snapshots"
	const list, plan = "GET " + path, "GET " + path + "/monday/rollback"
	for _, c := range []struct {
		in     string
		args   string
		status int
		asked  string
		says   string
	}{
		{"", "create data monday", exitOK, "POST " + path + ` {"name":"monday"}`, "snapshot monday of volume data: made, up to LSN 1319"},
		{"", "create data monday --json", exitOK, "POST " + path + ` {"name":"monday"}`, `"name": "monday"`},
		{"", "list data", exitOK, list, "the losing side of the split-brain with beta"},
		{"", "list data --json", exitOK, list, `"export": "data@alpha@monday"`},
		{"", "export data monday", exitUsage, "", "add --read-only"},
		{"", "export data monday --read-only", exitOK, "POST " + path + `/monday/export {"readOnly":true}`, "exported read-only as data@alpha@monday"},
		{"", "unexport data monday", exitOK, "POST " + path + "/monday/unexport null", "not exported any more"},
		{"", "delete data monday --dry-run", exitOK, list, "up to LSN 1319"},
		{"", "delete data monday --dry-run --json", exitOK, list, `"name": "monday"`},
		{"", "delete data monday", exitFailure, list, "was not deleted: its name was not typed in"},
		{"", "delete data none --yes", exitFailure, list, `has no snapshot "none"`},
		{"monday\n", "delete data monday", exitOK, list + "; DELETE " + path + "/monday null", "deleted"},
		{"", "rollback data monday --dry-run", exitOK, plan, "Lost: 12 writes since."},
		{"", "rollback data monday --dry-run --json", exitOK, plan, `"writes": 12`},
		{"data\n", "rollback data monday", exitFailure, plan, "the snapshot's name was not typed in"},
		{"", "rollback data monday --yes", exitOK, plan + "; POST " + path + "/monday/rollback null", "the volume is rolled back to it, LSN 1319"},
		{"", "give-up data --dry-run", exitOK, "GET /v1/volumes/data", "half old, half new"},
		{"", "give-up data --dry-run --json", exitOK, "GET /v1/volumes/data", "half old, half new"},
		{"no\n", "give-up data", exitFailure, "GET /v1/volumes/data", "was not given up"},
		{"data\n", "give-up data", exitOK, "GET /v1/volumes/data; POST /v1/volumes/data/rollback/give-up", "volume data"},
		{"", "create data", exitUsage, "", "needs VOLUME NAME"},
		{"", "mend data", exitUsage, "", "does not know what to do"},
	} {
		d := startDaemon(t)
		d.snapshots = sampleSnapshots()
		d.volume.Unfinished = "half old, half new"
		d.rollback = mirror.SnapshotRollbackPlan{Volume: "data", Snapshot: d.snapshots[0].SnapshotStatus, Restores: 4096, Writes: 12}
		args := append([]string{"snapshot"}, strings.Fields(c.args)...)
		status, out, errOut := lockstepIn(c.in, append(args, "--socket", d.socket)...)
		if asked := strings.ReplaceAll(d.take(), " null", ""); status != c.status || asked != strings.ReplaceAll(c.asked, " null", "") {
			t.Errorf("%s: status %d, asked %q, want %d and %q: %s", c.args, status, asked, c.status, c.asked, errOut)
		}
		if !strings.Contains(out+errOut, c.says) {
			t.Errorf("%s does not say %q:\n%s%s", c.args, c.says, out, errOut)
		}
		if strings.Contains(c.args, "--json") && !json.Valid([]byte(out)) {
			t.Errorf("%s: that is no JSON:\n%s", c.args, out)
		}
	}
	whole := startDaemon(t)
	if status, _, errOut := lockstep("snapshot", "give-up", "data", "--yes", "--socket", whole.socket); status != exitFailure || !strings.Contains(errOut, "nothing to give up") || strings.Contains(whole.take(), "POST") {
		t.Errorf("nothing to give up: status %d, %s", status, errOut)
	}
	d := startDaemon(t)
	d.rollback.Refused = "clients are attached"
	if status, _, errOut := lockstep("snapshot", "rollback", "data", "monday", "--yes", "--socket", d.socket); status != exitFailure || !strings.Contains(errOut, "clients are attached") || strings.Contains(d.take(), "POST") {
		t.Errorf("refused: status %d, %s", status, errOut)
	}
}
