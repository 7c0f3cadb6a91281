package node

import (
	"testing"

	"github.com/lockstep-storage/lockstep/mirror"
)

// A volume with resync-after waits for the resync of the volume that it names,
// however that is, and those behind it for its own.
func TestResyncAfter(t *testing.T) {
	c := testConfig(t)
	c.Volumes = map[string]Overrides{
		"first": {}, "second": {Resync: ResyncOverrides{After: "first"}}, "third": {Resync: ResyncOverrides{After: "second"}},
	}
	_, f, cl := startFakes(t, c)
	for _, name := range []string{"third", "second", "first"} {
		made(t, cl, name, Peer{Name: "beta", Address: "127.0.0.1:1"})
	}
	is := func(name string, state mirror.ReplState) {
		v := f.open[name]
		v.mu.Lock()
		v.st.Peers[0].Replication = state
		v.mu.Unlock()
		v.o.Hooks.Event(mirror.Event{Kind: mirror.EventResync, Volume: name})
	}
	waits := func(second, third string) {
		t.Helper()
		for name, want := range map[string]string{"first": "", "second": second, "third": third} {
			if got := f.open[name].Status().ResyncAfter; got != want {
				t.Errorf("%s waits for %q, want %q", name, got, want)
			}
		}
	}
	waits("", "")
	is("first", mirror.SyncTarget)
	waits("first", "")
	is("second", mirror.SyncSource)
	waits("first", "second")
	is("first", mirror.PausedSyncT)
	waits("first", "second")
	is("first", mirror.Established)
	waits("", "second")
	is("second", mirror.PausedSyncS)
	waits("", "second")
	is("second", mirror.CatchUp)
	waits("", "")
}
