package main

import (
	"strings"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
	"github.com/lockstep-storage/lockstep/node"
)

func TestStatusTable(t *testing.T) {
	secondary, primary, upToDate, outdated := mirror.Secondary, mirror.Primary, mirror.UpToDate, mirror.Outdated
	st := startDaemon(t).status
	st.Volumes = []node.VolumeStatus{
		{Name: "alone", Status: &mirror.Status{Node: "alpha", Size: 10 << 30, Role: mirror.Primary, Serving: true, Disk: mirror.UpToDate, Sessions: 2}},
		{Name: "broken", Problem: `volume "broken" is not open: the superblock is unreadable`},
		{Name: "data", Status: &mirror.Status{
			Node: "alpha", Size: 1 << 30, Role: mirror.Primary, Disk: mirror.UpToDate, End: 12345, Waiting: "waits for beta",
			Peers: []mirror.PeerStatus{
				{Node: "beta", Connection: mirror.Connected, Replication: mirror.CatchUp, Role: &secondary, Disk: &outdated, Received: 45, Behind: 41 << 20,
					Slow:     &mirror.SlowStatus{Reason: "slow: writes waited for it"},
					Progress: &mirror.Progress{Done: 30 << 20, Total: 120 << 20, Speed: 10 << 20, Left: 9 * time.Second}},
				{Node: "gamma", Connection: mirror.Connecting, OutOfSync: 5 << 20, Behind: 5 << 20, Problem: "cannot connect: connection refused"},
				{Node: "delta", Connection: mirror.StandAlone, Role: &primary, Disk: &upToDate,
					SplitBrain: &mirror.SplitBrainStatus{Common: 100, Ours: 7, Theirs: 3, Reason: "split-brain: after LSN 100 alpha wrote 7 records and delta wrote 3 records"}, Problem: "the same"},
			},
		}},
		{Name: "apart", ReadOnlyExport: "apart@alpha", Status: &mirror.Status{Node: "alpha", Size: 4096, Disk: mirror.Consistent, Image: &mirror.ImageStatus{UpTo: 12, Sessions: 2}}},
		{Name: "second", Status: &mirror.Status{Node: "alpha", Size: 4096, Disk: mirror.Consistent, Failure: "fsync: input/output error",
			Peers: []mirror.PeerStatus{{Node: "beta", Connection: mirror.Connected, Replication: mirror.SyncTarget,
				Progress: &mirror.Progress{Total: 4096, Left: -1}}}}},
		{Name: "third", Status: &mirror.Status{Node: "alpha", Size: 4096, Role: mirror.Primary, Serving: true, Disk: mirror.UpToDate, ResyncAfter: "second",
			Peers: []mirror.PeerStatus{{Node: "beta", Connection: mirror.Connected, Replication: mirror.PausedSyncS, Paused: "the resync waits for that of volume \"second\"",
				Progress: &mirror.Progress{Done: 3 << 20, Total: 8 << 20, Left: -1, Compared: 4 << 20, Equal: 2 << 20, Copied: 1 << 20}}}}},
		{Name: "fourth", Status: &mirror.Status{Node: "alpha", Size: 4096, Disk: mirror.UpToDate, ResyncPaused: true}},
		{Name: "target", Status: &mirror.Status{Node: "alpha", Size: 1 << 30, Disk: mirror.Inconsistent,
			Undo: &mirror.UndoStatus{Base: mirror.Position{LSN: 777}, Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Preserved: 3 << 20, Used: 2 << 20, Limit: 64 << 20}}},
	}
	var b strings.Builder
	if err := writeStatus(&b, st); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n--- no volumes\n")
	st.Volumes = nil
	if err := writeStatus(&b, st); err != nil {
		t.Fatal(err)
	}
	golden(t, "status.txt", b.String())
}

func TestStatusJSON(t *testing.T) {
	d := startDaemon(t)
	status, out, _ := lockstep("status", "--json", "data", "--socket", d.socket)
	for _, want := range []string{`"node": "alpha"`, `"volumes": [`, `"role": "Secondary"`, `"disk": "UpToDate"`, `"size": 1073741824`} {
		if status != exitOK || !strings.Contains(out, want) {
			t.Errorf("status %d, lacks %s:\n%s", status, want, out)
		}
	}
}
