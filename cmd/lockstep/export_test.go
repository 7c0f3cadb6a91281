package main

import (
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/mirror"
)

func TestExport(t *testing.T) {
	d := startDaemon(t)
	d.volume.ReadOnlyExport, d.volume.Image = "data@alpha", &mirror.ImageStatus{UpTo: 1319}
	status, out, errOut := lockstep("export", "data", "--read-only", "--socket", d.socket)
	if status != exitOK || out != "volume data: exported read-only as data@alpha, up to LSN 1319\n" {
		t.Errorf("%d: %s%s", status, out, errOut)
	}
	if got := d.take(); got != `POST /v1/volumes/data/export {"readOnly":true}` {
		t.Errorf("asked %s", got)
	}
	status, _, errOut = lockstep("export", "data", "--socket", d.socket)
	if status != exitUsage || !strings.Contains(errOut, "--read-only") || d.take() != "" {
		t.Errorf("%d: %s", status, errOut)
	}
	status, out, errOut = lockstep("unexport", "data", "--socket", d.socket)
	if status != exitOK || !strings.HasPrefix(out, "volume data: Secondary, UpToDate") || d.take() != `POST /v1/volumes/data/unexport` {
		t.Errorf("%d: %s%s", status, out, errOut)
	}
	if status, out, _ = lockstep("export", "data", "--read-only", "--json", "--socket", d.socket); status != exitOK || !strings.Contains(out, `"readOnlyExport": "data@alpha"`) {
		t.Errorf("%d: %s", status, out)
	}
}
