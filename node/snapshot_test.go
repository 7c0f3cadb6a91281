package node

import (
	"bytes"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

// A snapshot is made, read beside the volume, gone back to and deleted.
func TestSnapshots(t *testing.T) {
	n, cl := startReal(t, testConfig(t))
	makeReal(t, cl, "data")
	serving(t, cl, "data")
	ctx := t.Context()
	w := attach(t, n, "data")
	write := func(text string) {
		t.Helper()
		if _, err := w.WriteAt([]byte(text), 4096); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(export, want string) {
		t.Helper()
		r := attach(t, n, export)
		defer r.Close()
		p := make([]byte, len(want))
		if _, err := r.ReadAt(p, 4096); err != nil || !bytes.Equal(p, []byte(want)) {
			t.Fatalf("%s reads %q, %v", export, p, err)
		}
	}
	write("before")
	s, err := cl.CreateSnapshot(ctx, "data", SnapshotRequest{Name: "monday"})
	if err != nil || s.Name != "monday" || s.At.LSN == 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	_, err = cl.CreateSnapshot(ctx, "data", SnapshotRequest{Name: "monday"})
	wantError(t, err, CodeExists, "there is a snapshot of that name")
	_, err = cl.CreateSnapshot(ctx, "data", SnapshotRequest{Name: "a/b"})
	wantError(t, err, CodeRefused, "can't name a snapshot")
	write("after.")

	_, err = cl.ExportSnapshot(ctx, "data", "monday", ExportRequest{})
	wantError(t, err, CodeBadRequest, "read-only")
	for range 2 {
		s, err = cl.ExportSnapshot(ctx, "data", "monday", ExportRequest{ReadOnly: true})
		if err != nil || s.Export != "data@alpha@monday" || s.Image == nil {
			t.Fatalf("%+v, %v", s, err)
		}
		read("data@alpha@monday", "before")
		read("data", "after.")
		_, err = cl.ExportSnapshot(ctx, "data", "monday", ExportRequest{ReadOnly: true})
		wantError(t, err, CodeRefused, "exported already")
		if s, err = cl.UnexportSnapshot(ctx, "data", "monday"); err != nil || s.Export != "" {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	_, err = cl.UnexportSnapshot(ctx, "data", "monday")
	wantError(t, err, CodeRefused, "is not exported read-only")

	plan, err := cl.PlanSnapshotRollback(ctx, "data", "monday")
	if err != nil || plan.Writes != 1 || plan.Refused == "" {
		t.Fatalf("%+v, %v", plan, err)
	}
	_, err = cl.RollbackToSnapshot(ctx, "data", "monday")
	wantError(t, err, CodeRefused, "clients are attached")
	w.Close()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if s, err = cl.RollbackToSnapshot(ctx, "data", "monday"); err == nil || asError(err).Code != CodeRefused {
			break // the server takes notice that its client is gone
		}
	}
	if err != nil || s.Rollback != nil {
		t.Fatalf("%+v, %v", s, err)
	}
	read("data", "before")

	// The volume's end, and the daemon's, end its export; a deletion does, too.
	if _, err := cl.ExportSnapshot(ctx, "data", "monday", ExportRequest{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	list, err := cl.Snapshots(ctx, "data")
	if err != nil || len(list) != 1 || list[0].Export == "" || list[0].Preserved == 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	st, err := cl.Volume(ctx, "data")
	if err != nil || len(st.Snapshots) != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	if err := cl.DeleteSnapshot(ctx, "data", "monday"); err != nil {
		t.Fatal(err)
	}
	wantError(t, cl.DeleteSnapshot(ctx, "data", "monday"), CodeNotFound, `has no snapshot "monday"`)
	_, err = cl.RollbackToSnapshot(ctx, "data", "monda")
	wantError(t, err, CodeNotFound, "has no snapshot")
	_, err = cl.PlanSnapshotRollback(ctx, "none", "monday")
	wantError(t, err, CodeNotFound, "has no volume")
	for range 2 { // one is open when the daemon stops
		if _, err := cl.CreateSnapshot(ctx, "data", SnapshotRequest{Name: "last"}); err != nil && asError(err).Code != CodeExists {
			t.Fatal(err)
		}
	}
	if _, err := cl.ExportSnapshot(ctx, "data", "last", ExportRequest{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	if st.Role != mirror.Primary {
		t.Errorf("%+v", st)
	}
}
