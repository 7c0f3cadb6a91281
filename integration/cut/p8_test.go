package cut

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/integration/daemon"
	"github.com/lockstep-storage/lockstep/integration/harness"
	"github.com/lockstep-storage/lockstep/integration/load"
)

// p8Length is how long TestP8 goes on for: LOCKSTEP_P8, such as 10m; 0, without it,
// is the short form, in which an outage of a sixth of the length comes in every sixth
// of a minute.
func p8Length(t *testing.T) time.Duration {
	text := os.Getenv("LOCKSTEP_P8")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Minute {
		t.Fatalf("LOCKSTEP_P8=%q: at least 1m is wanted", text)
	}
	return d
}

// settings puts a volume's settings into a node's config file.
func settings(t *testing.T, n *daemon.Node, text string) {
	f, err := os.OpenFile(n.ConfigFile(), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(f, "volumes: {%s: {%s}}\n", harness.Volume, text)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// background loads the volume until stop is called, which returns what the client met.
func background(t *testing.T, p *harness.Pair, m *load.Model, o load.Options) (stop func()) {
	c := p.Dial(p.Alpha)
	before := p.Status(p.Alpha)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	type outcome struct {
		stats load.Stats
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		stats, err := load.Run(ctx, c, m, o)
		done <- outcome{stats, err}
	}()
	p.Await(p.Alpha, "the load is on its way", func(s *daemon.Status) bool { return s.Committed > before.Committed+100 })
	return func() {
		cancel()
		out := <-done
		if out.err != nil {
			t.Errorf("the client met: %v", out.err)
		}
		t.Logf("%v", out.stats)
	}
}

// TestP8OutageEveryMinute: 10 s of outage every minute, in which every packet between
// the nodes vanishes, resend at most 1.1 times what was written meanwhile, and cost no
// resync. What counts is what goes over the cable from an outage's end until the node
// that was cut off has received everything, against what it lacked when the outage began
// and what was written since.
func TestP8OutageEveryMinute(t *testing.T) {
	period, outage, timeout, rounds := time.Minute, 10*time.Second, 3*time.Second, 0
	rate := int64(6 << 20) // an outage fills a quarter of the journal
	if length := p8Length(t); length > 0 {
		rounds = int(length / period)
	} else {
		period, outage, timeout, rounds = period/6, outage/6, timeout/3, 2
		rate *= 2 // so that a blip is not all there is
	}
	w := harness.NewNetwork(t)
	p := harness.NewPair(t, harness.Options{PairOptions: daemon.PairOptions{Places: w.Places()}, Prepare: func(d *daemon.Pair) {
		for _, n := range d.Nodes() {
			settings(t, n, fmt.Sprintf("peer-timeout: %v", timeout))
		}
	}})
	m := load.NewModel(p.Size)
	var written atomic.Int64
	stop := background(t, p, m, load.Options{Seed: harness.Seed(t), Rate: rate, Written: &written})
	before := p.Status(p.Alpha).Peer("beta")

	for round := range rounds {
		lacked := p.Status(p.Alpha).Peer("beta").Behind
		start := time.Now()
		w.Drop()
		wrote := written.Load() - lacked
		p.Await(p.Alpha, "the Primary gives its peer up", func(s *daemon.Status) bool {
			return s.Peer("beta").Connection != "Connected" && !s.Peer("beta").Member
		})
		time.Sleep(outage - time.Since(start)) // its length is what is tested
		sent := w.Sent("alpha")
		w.Restore()
		p.Await(p.Alpha, "the peer has received everything", func(s *daemon.Status) bool {
			b := s.Peer("beta")
			return b.Connection == "Connected" && b.Received+64 > s.End
		})
		took := time.Since(start)
		sent, wrote = w.Sent("alpha")-sent, written.Load()-wrote
		factor := float64(sent) / float64(wrote)
		t.Logf("outage %d: %.1f MiB were written in %.1f s (and %.1f MiB lacking before), and %.1f MiB sent after it: %.3f times as much",
			round+1, float64(wrote-lacked)/(1<<20), took.Seconds(), float64(lacked)/(1<<20), float64(sent)/(1<<20), factor)
		if factor > 1.1 {
			t.Errorf("outage %d: more than 1.1 times what was written was sent", round+1)
		}
		if factor < 0.8 {
			t.Errorf("outage %d: less was sent than was written: it is not measured", round+1)
		}
		if round < rounds-1 {
			time.Sleep(period - time.Since(start))
		}
	}
	stop()
	// Each outage doubled its pause before the next try.
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	if err := p.Pair.AwaitInSync(ctx, harness.Volume); err != nil {
		t.Fatal(err)
	}
	after := p.Status(p.Alpha).Peer("beta")
	if after.Resyncs != before.Resyncs || after.CatchUps <= before.CatchUps {
		t.Errorf("resyncs %d, catch-ups %d; before %d, %d", after.Resyncs, after.CatchUps, before.Resyncs, before.CatchUps)
	}
	p.Verify(p.Alpha, m)
	p.VerifyReplicas(m)
}

// TestP8SlowNode: a node that answers only now and then leaves the in-sync set once,
// and not again before it keeps up; what it lacks it gets from the journal.
func TestP8SlowNode(t *testing.T) {
	const budget = 200 * time.Millisecond
	slowFor := 6 * time.Second // it has to keep up for 4 s
	if length := p8Length(t); length > 0 {
		slowFor = length / 10
	}
	w := harness.NewNetwork(t)
	flags := []string{"--peer-latency-budget", budget.String()}
	p := harness.NewPair(t, harness.Options{PairOptions: daemon.PairOptions{Places: w.Places(),
		CreateFlags: map[string][]string{"alpha": flags, "beta": flags}}})
	m := load.NewModel(p.Size)
	stop := background(t, p, m, load.Options{Seed: harness.Seed(t), Workers: 4, Rate: 4 << 20})
	before := p.Status(p.Alpha).Peer("beta")

	// Of each half second beta runs for a tenth.
	ctx, fast := context.WithCancel(t.Context())
	slow := make(chan struct{})
	pid := p.Beta.PID()
	go func() {
		defer close(slow)
		for ctx.Err() == nil {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // it lives as long as the test
			time.Sleep(400 * time.Millisecond)
			_ = syscall.Kill(pid, syscall.SIGCONT)
			time.Sleep(100 * time.Millisecond)
		}
	}()
	defer func() { fast(); <-slow }()
	left := p.Await(p.Alpha, "beta leaves for being slow", func(s *daemon.Status) bool { return s.Peer("beta").Slow != nil })
	t.Logf("beta: %s", left.Peer("beta").Slow.Reason)
	for start := time.Now(); time.Since(start) < slowFor; time.Sleep(100 * time.Millisecond) {
		if s := p.Status(p.Alpha).Peer("beta"); s.Member || s.Slow == nil || !s.Slow.Since.Equal(left.Peer("beta").Slow.Since) {
			t.Fatalf("slow as it is it came back: %+v", s)
		}
	}
	p.Await(p.Alpha, "writes go on without it", func(s *daemon.Status) bool { return s.Committed > left.Committed+100 })
	fast()
	<-slow
	stop() // or else how fast this machine is would tell when beta keeps up
	p.Await(p.Alpha, "beta is back", func(s *daemon.Status) bool { return s.Peer("beta").Member && s.Peer("beta").Slow == nil })
	p.AwaitInSync()
	after := p.Status(p.Alpha).Peer("beta")
	if after.Resyncs != before.Resyncs || after.CatchUps <= before.CatchUps {
		t.Errorf("resyncs %d, catch-ups %d; before %d, %d", after.Resyncs, after.CatchUps, before.Resyncs, before.CatchUps)
	}
	log, err := os.ReadFile(p.Alpha.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(log, []byte("peer is slow")); n != 1 {
		t.Errorf("it left %d times", n)
	}
	p.Verify(p.Alpha, m)
	p.VerifyReplicas(m)
}
