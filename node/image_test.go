package node

import (
	"bytes"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/mirror"
)

// A Secondary that follows nobody is read under a name of its own, until it is
// not to be any more; and again.
func TestExportReadOnly(t *testing.T) {
	c := testConfig(t)
	n, cl := startReal(t, c)
	makeReal(t, cl, "data", Peer{Name: "beta"})
	if _, err := cl.Promote(t.Context(), "data", PromoteRequest{Force: true}); err != nil {
		t.Fatal(err)
	}
	w := attach(t, n, "data")
	if _, err := w.WriteAt([]byte("beside"), 4096); err != nil {
		t.Fatal(err)
	}
	w.Close()
	_, err := cl.Export(t.Context(), "data", ExportRequest{ReadOnly: true})
	wantError(t, err, CodeRefused, "it is Primary")
	_, err = cl.Unexport(t.Context(), "data")
	wantError(t, err, CodeRefused, "is not exported read-only")
	if _, err := cl.Demote(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	_, err = cl.Export(t.Context(), "data", ExportRequest{})
	wantError(t, err, CodeBadRequest, "lockstep promote data")
	for range 3 {
		st, err := cl.Export(t.Context(), "data", ExportRequest{ReadOnly: true})
		if err != nil || st.ReadOnlyExport != "data@alpha" || st.Image == nil || st.Role != mirror.Secondary {
			t.Fatalf("%+v, %v", st, err)
		}
		r := attach(t, n, "data@alpha")
		p := make([]byte, 6)
		if _, err := r.ReadAt(p, 4096); err != nil || !bytes.Equal(p, []byte("beside")) {
			t.Fatalf("%q, %v", p, err)
		}
		if _, err := r.WriteAt([]byte("no"), 4096); err == nil {
			t.Fatal("a write was taken")
		}
		r.Close()
		if _, err := cl.Unexport(t.Context(), "data"); err != nil {
			t.Fatal(err)
		}
	}
	// A promotion ends it, and its export is gone.
	if _, err := cl.Export(t.Context(), "data", ExportRequest{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	r := attach(t, n, "data@alpha")
	defer r.Close()
	if _, err := cl.Promote(t.Context(), "data", PromoteRequest{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(make([]byte, 6), 4096); err == nil {
		t.Fatal("a read-only export outlived the promotion")
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := n.exports.Lookup("data@alpha"); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the export is still there")
		}
	}
	// The daemon's end ends one, too.
	if _, err := cl.Demote(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Export(t.Context(), "data", ExportRequest{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
}
