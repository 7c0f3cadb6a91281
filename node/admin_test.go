package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/mirror"
)

func TestAdminWholeLife(t *testing.T) {
	_, f, cl := startFakes(t, testConfig(t))
	ctx := t.Context()
	v, err := cl.Version(ctx)
	if err != nil || v.Version != "test" || v.Node != "alpha" || v.API != 1 {
		t.Fatal(v, err)
	}
	st := made(t, cl, "data", Peer{Name: "beta"})
	if st.Size != 1<<20 || st.Role != mirror.Secondary || st.Peers[0].Node != "beta" {
		t.Fatalf("%+v", st)
	}
	all, err := cl.Status(ctx)
	if err != nil || all.Node != "alpha" || len(all.Volumes) != 1 || all.Volumes[0].Name != "data" || len(all.NBD) != 1 || strings.HasSuffix(all.NBD[0].Addr, ":0") {
		t.Fatalf("%+v, %v", all, err)
	}
	if st, err = cl.Promote(ctx, "data", PromoteRequest{}); err != nil || st.Role != mirror.Primary {
		t.Fatal(st, err)
	}
	wantError(t, cl.Delete(ctx, "data"), CodeRefused, "lockstep demote data")
	if st, err = cl.Demote(ctx, "data"); err != nil || st.Role != mirror.Secondary {
		t.Fatal(st, err)
	}
	if _, err = cl.Connect(ctx, "data", PeerRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err = cl.Disconnect(ctx, "data", PeerRequest{Peer: "beta"}); err != nil {
		t.Fatal(err)
	}
	if _, err = cl.PauseResync(ctx, "data"); err != nil {
		t.Fatal(err)
	}
	if _, err = cl.ResumeResync(ctx, "data"); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(f.open["data"].calls); got != `[connect "" disconnect "beta" pause resume]` {
		t.Error(got)
	}
	if list, err := cl.SplitBrains(ctx, "data"); err != nil || list == nil || len(list) > 0 {
		t.Error(list, err)
	}
	if plan, err := cl.Resolve(ctx, "data", ResolveRequest{Keep: "beta", DryRun: true}); err != nil || plan.Keep != "beta" {
		t.Error(plan, err)
	}
	_, err = cl.Resolve(ctx, "data", ResolveRequest{Keep: "nobody"})
	wantError(t, err, CodeRefused, "has no part in it")
	if _, err = cl.Resolve(ctx, "data", ResolveRequest{Keep: "beta", DiscardLosingWrites: true}); err != nil {
		t.Error(err)
	}
	_, err = cl.Connect(ctx, "data", PeerRequest{Peer: "bet"})
	wantError(t, err, CodeNotFound, `has no peer "bet" (did you mean "beta"?); its peers: beta`)
	if err := cl.Delete(ctx, "data"); err != nil {
		t.Fatal(err)
	}
	_, err = cl.Volume(ctx, "data")
	wantError(t, err, CodeNotFound, `node "alpha" has no volume "data"`)
}

func TestAdminRollback(t *testing.T) {
	_, f, cl := startFakes(t, testConfig(t))
	ctx := t.Context()
	made(t, cl, "data", Peer{Name: "beta"})
	_, err := cl.PlanRollback(ctx, "data")
	wantError(t, err, CodeRefused, "is not rolled back: no resync is under way")
	_, err = cl.Rollback(ctx, "data")
	wantError(t, err, CodeRefused, "is not rolled back: no resync is under way")
	v := f.open["data"]
	v.mu.Lock()
	v.st.Disk = mirror.Inconsistent
	v.mu.Unlock()
	if plan, err := cl.PlanRollback(ctx, "data"); err != nil || plan.Restores != 4096 || v.Status().Disk != mirror.Inconsistent {
		t.Errorf("%+v, %v", plan, err)
	}
	if st, err := cl.Rollback(ctx, "data"); err != nil || st.Disk != mirror.Outdated {
		t.Errorf("%+v, %v", st, err)
	}
	_, err = cl.Rollback(ctx, "dat")
	wantError(t, err, CodeNotFound, `did you mean "data"?`)
}

func wantError(t *testing.T, err error, code Code, sentence string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != code || !strings.Contains(e.Text, sentence) {
		t.Errorf("got %v; want %s: %s", err, code, sentence)
	}
}

func TestAdminUnsafePromotionListsWhatIsUnknown(t *testing.T) {
	_, f, cl := startFakes(t, testConfig(t))
	made(t, cl, "data", Peer{Name: "beta"})
	f.open["data"].promote = &mirror.UnsafePromotionError{Volume: "data", Unknown: []string{"one", "two"}}
	_, err := cl.Promote(t.Context(), "data", PromoteRequest{})
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeUnsafe || fmt.Sprint(e.Unknown) != "[one two]" {
		t.Errorf("%#v", err)
	}
	if _, err := cl.Promote(t.Context(), "data", PromoteRequest{Force: true}); err != nil {
		t.Error(err)
	}
	f.open["data"].promote = &mirror.UnsafePromotionError{Volume: "data", Unknown: []string{"one"}, Hopeless: true}
	_, err = cl.Promote(t.Context(), "data", PromoteRequest{})
	wantError(t, err, CodeRefused, "one")
}

func TestAdminOneChangeAtATime(t *testing.T) {
	_, f, cl := startFakes(t, testConfig(t))
	made(t, cl, "data")
	v := f.open["data"]
	v.enter, v.leave = make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := cl.Demote(context.Background(), "data")
		first <- err
	}()
	<-v.enter
	_, err := cl.Promote(t.Context(), "data", PromoteRequest{})
	wantError(t, err, CodeBusy, "another change")
	wantError(t, cl.Delete(t.Context(), "data"), CodeBusy, "another change")
	close(v.leave)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestAdminClientGoesAway: what a client asked for ends with it.
func TestAdminClientGoesAway(t *testing.T) {
	_, f, cl := startFakes(t, testConfig(t))
	made(t, cl, "data")
	v := f.open["data"]
	v.enter, v.leave = make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := cl.Demote(ctx, "data")
		first <- err
	}()
	<-v.enter
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// The volume is free again once the daemon has noticed.
	for {
		if _, err := cl.Promote(t.Context(), "data", PromoteRequest{}); err == nil {
			return
		} else if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeBusy {
			t.Fatal(err)
		}
	}
}

func TestAdminRefusesBadRequests(t *testing.T) {
	c := testConfig(t)
	_, _, _ = startFakes(t, c)
	hc := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Admin)
	}}}
	defer hc.CloseIdleConnections()
	for _, tc := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/nothing", "", 404, `knows no request`},
		{"GET", "/", "", 404, `knows no request`},
		{"PUT", "/v1/volumes", "", 404, `knows no request \"PUT\"`},
		{"GET", "/v1/volumes/data", "", 404, `has no volume`},
		{"POST", "/v1/volumes/data/promote", "{}", 404, `has no volume`},
		{"POST", "/v1/volumes", "{", 400, `not the JSON`},
		{"POST", "/v1/volumes", "", 400, `has no name`},
		{"POST", "/v1/volumes", `{"name":"x","size":4096,"sise":1}`, 400, `unknown field \"sise\"`},
		{"POST", "/v1/volumes", `{"name":"x","size":4097}`, 400, `multiple of 4096`},
		{"POST", "/v1/volumes", `{"name":"../x","size":4096}`, 400, `can't name a volume`},
		{"POST", "/v1/volumes", `{"name":"x","size":4096,"peers":[{"name":"alpha"}]}`, 400, `this node itself`},
		{"POST", "/v1/volumes", `{"name":"x","size":4096,"peers":[{"name":"gamma"}]}`, 400, `the address of peer \"gamma\" is unknown`},
		{"POST", "/v1/volumes", `{"name":"x","size":4096,"store":"rel"}`, 400, `no absolute path`},
		{"POST", "/v1/volumes", `{"name":"x","size":4096,"store":"/etc/passwd"}`, 409, `nothing is overwritten`},
		{"POST", "/v1/volumes", `{"name":"x","protocol":"Q"}`, 400, `no protocol`},
		{"POST", "/v1/volumes", strings.Repeat(" ", maxRequestBody+1), 413, `larger than 65536 bytes`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, "http://x"+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tc.status || !bytes.Contains(text, []byte(tc.want)) || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %.40s: %d %s, %v; want %d %s", tc.method, tc.path, tc.body, resp.StatusCode, text, err, tc.status, tc.want)
		}
	}
}

func TestAdminSocketIsOwnersAlone(t *testing.T) {
	c := testConfig(t)
	startFakes(t, c)
	st, err := os.Stat(c.Admin)
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Error(st.Mode(), err)
	}
}

func TestClientSaysThatNoDaemonAnswers(t *testing.T) {
	cl := NewClient(t.TempDir() + "/no.sock")
	if _, err := cl.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no daemon answers at ") || !strings.Contains(err.Error(), "lockstep serve") {
		t.Error(err)
	}
}

// FuzzAdmin: no request body makes the daemon panic, answer something else than
// JSON, or put anything outside its data directory.
func FuzzAdmin(f *testing.F) {
	c := testConfig(f)
	n, _, cl := startFakes(f, c)
	made(f, cl, "data", Peer{Name: "beta"})
	h := adminHandler(n)
	for _, body := range []string{
		`{"name":"x","size":4096,"peers":[{"name":"beta","address":"h:1"}],"peerTimeout":"3s"}`,
		`{"name":"../../x","size":4096}`, `{"force":true}`, `{"peer":"beta"}`, `{`, `null`, `[]`, "",
	} {
		for i := range fuzzPaths {
			f.Add(i, body)
		}
	}
	f.Fuzz(func(t *testing.T, path int, body string) {
		if strings.Contains(body, "store") {
			return // it may name any file that does not exist, as an administrator may
		}
		if uint(path) >= uint(len(fuzzPaths)) {
			return
		}
		method, url, _ := strings.Cut(fuzzPaths[path], " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, url, strings.NewReader(body)))
		if !bytes.HasPrefix(w.Body.Bytes(), []byte("{")) || w.Code < 200 || w.Code == 500 && !strings.Contains(w.Body.String(), "create") {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if w.Code == http.StatusCreated {
			for _, h := range n.volumes.list() {
				if h.name != "data" {
					if err := n.delete(t.Context(), h.name); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

var fuzzPaths = []string{
	"POST /v1/volumes", "POST /v1/volumes/data/promote", "POST /v1/volumes/data/demote", "POST /v1/volumes/data/connect",
	"POST /v1/volumes/data/disconnect", "POST /v1/volumes/data/resync/pause", "GET /v1/volumes/data", "GET /v1/status", "DELETE /v1/volumes/nothing",
}
