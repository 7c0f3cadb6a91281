package mirror

import "time"

// ResyncAuto and ResyncUnlimited, as Options.ResyncRate.
const (
	ResyncAuto      = 0  // as fast as clients' writes bear
	ResyncUnlimited = -1 // as fast as it goes
)

// DefaultResyncRateMin is Options.ResyncRateMin unless it is set, bytes per second.
const DefaultResyncRateMin = 4 << 20

// How a resync of ResyncAuto gives way.
const (
	paceTick  = 100 * time.Millisecond // between two judgements of the latency
	paceIdle  = 500 * time.Millisecond // clients that wrote nothing for so long do not write
	paceProbe = 2 * paceTick           // at the least rate, to learn the latency without the resync
	paceAgain = 5 * time.Second        // between two of those
	paceHung  = 2 * time.Second
	paceBurst = 50 * time.Millisecond // what may go out at once, of a second's bytes
	// The latency is in bounds up to paceSlack times that without the resync, and
	// paceNoise more.
	paceSlack = 1.1
	paceNoise = 25 * time.Microsecond
)

// A pacer says when the bitmap resyncs of a volume may go on: those to all peers
// together keep to its rate. What counts are bytes of the volume, compared or
// copied; a range of zeroes counts as one block. Volume.mu guards it.
//
// With ResyncAuto the rate follows the latency of clients' writes and flushes.
// While there are none, it is the greatest. When they begin, and every few seconds
// from then on, the resync goes at its least for two ticks: the mean latency of
// the second one is what there is without it. From then on each tick in which the
// mean is out of bounds takes a quarter of the rate, down to the least, and each
// other one adds a tenth of it, if the resync was as fast as it might.
//
// A request that takes longer than paceHung waits for something else: for a peer to
// come into the in-sync set, perhaps, which the resync is about to bring.
type pacer struct {
	fixed, least, most int64 // bytes per second; fixed 0 is auto, else most 0 no limit
	now                func() time.Time

	users  int       // resyncs under way: without one nothing is measured
	tokens float64   // bytes that may go out now, less than 0 after a large one
	filled time.Time // when tokens were reckoned last

	writes, flushes latency
	lastWrite       time.Time // of a client
	rate            float64   // while clients write
	used            int64     // bytes that went out since the last judgement
	tick            time.Time // the next judgement
	probe           int       // ticks of it that are left
	again           time.Time // the next probe
}

// A latency is that of one kind of request. One is timed at a time.
type latency struct {
	lsn   LSN // of the one that is timed, 0 without
	began time.Time
	sum   time.Duration // of those since the last tick
	n     int
	base  time.Duration // the mean without the resync, 0 while unknown
}

func newPacer(o *Options) pacer {
	p := pacer{least: o.ResyncRateMin, most: o.ResyncRateMax, now: time.Now}
	switch {
	case o.ResyncRate > 0:
		p.fixed = o.ResyncRate
	case o.ResyncRate == ResyncUnlimited:
		p.fixed = ResyncUnlimited
	}
	if p.most > 0 {
		p.least = min(p.least, p.most)
	}
	return p
}

// enter and leave are called around a resync.
func (p *pacer) enter() {
	if p.users++; p.users == 1 {
		p.tokens, p.filled = 0, p.now()
	}
}

func (p *pacer) leave() {
	if p.users--; p.users == 0 {
		p.writes.lsn, p.flushes.lsn = 0, 0
	}
}

// limit is the rate now, bytes per second; 0 is none.
func (p *pacer) limit(now time.Time) float64 {
	switch {
	case p.fixed == ResyncUnlimited:
		return 0
	case p.fixed > 0:
		return float64(p.fixed)
	case p.idle(now):
		return float64(p.most)
	case p.probe > 0:
		return float64(p.least)
	}
	return p.rate
}

// wait is how long a resync has to wait before it goes on.
func (p *pacer) wait() time.Duration {
	now := p.now()
	p.judge(now)
	rate := p.limit(now)
	if rate == 0 {
		p.tokens, p.filled = 0, now
		return 0
	}
	p.tokens = min(p.tokens+rate*now.Sub(p.filled).Seconds(), rate*paceBurst.Seconds())
	p.filled = now
	if p.tokens >= 0 {
		return 0
	}
	// Not longer than until the rate may be another.
	return min(time.Duration(-p.tokens/rate*float64(time.Second))+time.Microsecond, paceTick)
}

// take counts bytes that go out.
func (p *pacer) take(bytes int64) {
	p.tokens -= float64(bytes)
	p.used += bytes
}

// idle reports whether no client writes.
func (p *pacer) idle(now time.Time) bool {
	return now.Sub(p.lastWrite) > paceIdle && !p.writes.waits(now) && !p.flushes.waits(now)
}

// waits reports whether the request that is timed is under way, and not hung.
func (l *latency) waits(now time.Time) bool { return l.lsn != 0 && now.Sub(l.began) < paceHung }

// ordered, flushing: a client's write got its LSN, or a flush waits for one.
func (p *pacer) ordered(lsn LSN) {
	if p.users > 0 {
		p.begin(&p.writes, lsn)
	}
}

func (p *pacer) flushing(lsn LSN) {
	if p.users > 0 {
		p.begin(&p.flushes, lsn)
	}
}

func (p *pacer) begin(l *latency, lsn LSN) {
	now := p.now()
	if p.idle(now) {
		p.probe, p.tick = int(paceProbe/paceTick), now.Add(paceTick)
		p.forget()
	}
	p.lastWrite = now
	if l.lsn == 0 {
		l.lsn, l.began = lsn, now
	}
}

// committed, stable: everything up to lsn is.
func (p *pacer) committed(lsn LSN) { p.end(&p.writes, lsn) }
func (p *pacer) stable(lsn LSN)    { p.end(&p.flushes, lsn) }

func (p *pacer) end(l *latency, lsn LSN) {
	if l.lsn == 0 || lsn < l.lsn {
		return
	}
	l.sum += p.now().Sub(l.began)
	l.n++
	l.lsn = 0
}

// judge ends a tick.
func (p *pacer) judge(now time.Time) {
	if p.fixed != ResyncAuto || now.Before(p.tick) || p.idle(now) {
		return
	}
	p.tick = now.Add(paceTick)
	for _, l := range []*latency{&p.writes, &p.flushes} { // one that takes long counts before it ends
		if took := now.Sub(l.began); l.waits(now) && l.n == 0 && took > paceTick {
			l.sum, l.n = took, 1
		}
	}
	switch {
	case p.probe == 1:
		p.probe, p.again = 0, now.Add(paceAgain)
		p.writes.learn()
		p.flushes.learn()
		p.rate = max(p.rate, float64(p.least))
	case p.probe > 1:
		p.probe--
	case !now.Before(p.again):
		p.probe = int(paceProbe / paceTick)
	case p.writes.long() || p.flushes.long():
		p.rate *= 0.75
	case p.writes.n+p.flushes.n > 0 && float64(p.used) > 0.8*p.rate*paceTick.Seconds():
		p.rate *= 1.1
	}
	p.rate = max(p.rate, float64(p.least))
	if p.most > 0 {
		p.rate = min(p.rate, float64(p.most))
	}
	p.forget()
}

// forget begins a tick.
func (p *pacer) forget() {
	p.writes.sum, p.writes.n, p.flushes.sum, p.flushes.n, p.used = 0, 0, 0, 0, 0
}

// learn takes the tick's mean for that without the resync, half and half with what
// was known.
func (l *latency) learn() {
	if l.n == 0 {
		return
	}
	mean := l.sum / time.Duration(l.n)
	if l.base > 0 {
		mean = (mean + l.base) / 2
	}
	l.base = mean
}

// long reports whether the tick's mean is out of bounds.
func (l *latency) long() bool {
	if l.n == 0 || l.base == 0 {
		return false
	}
	mean := l.sum / time.Duration(l.n)
	return mean > time.Duration(float64(l.base)*paceSlack)+paceNoise
}
