package scsi

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Types of a persistent reservation (SPC-4, 6.15.3.4).
const (
	writeExclusive           = 1
	exclusiveAccess          = 3
	writeExclusiveRegistrant = 5
	exclusiveRegistrant      = 6
	writeExclusiveAll        = 7
	exclusiveAll             = 8
)

func validKind(k byte) bool {
	return k == writeExclusive || k == exclusiveAccess || k >= writeExclusiveRegistrant && k <= exclusiveAll
}

// forRegistrants reports whether a type lets all registrants in; forAll, whether
// all of them hold it.
func forRegistrants(k byte) bool { return k >= writeExclusiveRegistrant }
func forAll(k byte) bool         { return k >= writeExclusiveAll }

func excludesReads(k byte) bool {
	return k == exclusiveAccess || k == exclusiveRegistrant || k == exclusiveAll
}

type registration struct {
	nexusID
	key uint64
}

// registrations are who is registered for persistent reservations, and the
// reservation. It is a value: a change makes a new one, so that it can be kept
// before it is valid.
type registrations struct {
	generation uint32
	aptpl      bool // they are kept through a loss of power
	list       []registration
	kind       byte    // of the reservation; 0: there is none
	holder     nexusID // unless all registrants hold it
}

func (r *registrations) find(id nexusID) int {
	return slices.IndexFunc(r.list, func(g registration) bool { return g.nexusID == id })
}

// holds reports whether a nexus holds the reservation.
func (r *registrations) holds(id nexusID) bool {
	switch {
	case r.kind == 0:
		return false
	case forAll(r.kind):
		return r.find(id) >= 0
	}
	return r.holder == id
}

func (r *registrations) conflict(id nexusID, reads, writes bool) bool {
	switch {
	case r.kind == 0 || !reads && !writes || r.holds(id):
		return false
	case forRegistrants(r.kind) && r.find(id) >= 0:
		return false
	}
	return writes || excludesReads(r.kind)
}

// Service actions of PERSISTENT RESERVE OUT.
const (
	actionRegister = iota
	actionReserve
	actionRelease
	actionClear
	actionPreempt
	actionPreemptAbort
	actionRegisterIgnore
	actionRegisterMove
)

// A reserveRequest is a PERSISTENT RESERVE OUT, its parameter list decoded.
type reserveRequest struct {
	action byte
	kind   byte
	key    uint64 // RESERVATION KEY
	newKey uint64 // SERVICE ACTION RESERVATION KEY
	aptpl  bool
	unreg  bool
	others []nexusID // of SPEC_I_PT, or who REGISTER AND MOVE moves to
}

// An outcome is what a reserveRequest leads to beside new registrations.
type outcome struct {
	status Status // Good, ReservationConflict, or CheckCondition
	why    cause
	told   map[nexusID]uint16 // unit attentions
	ended  []nexusID          // whose commands PREEMPT AND ABORT ends
}

var refusedConflict = outcome{status: ReservationConflict}

func refusedFor(why cause) outcome { return outcome{status: CheckCondition, why: why} }

// apply carries a request of a nexus out (SPC-4, 5.12). If it is refused the
// registrations stay as they are.
func (r registrations) apply(id nexusID, q reserveRequest, limit int) (registrations, outcome) {
	next := r
	next.list = slices.Clone(r.list)
	out := next.change(id, q, limit)
	if out.status != Good {
		return r, out
	}
	delete(out.told, id)
	return next, out
}

func (r *registrations) change(id nexusID, q reserveRequest, limit int) outcome {
	out := outcome{status: Good, told: make(map[nexusID]uint16)}
	at := r.find(id)
	switch q.action {
	case actionRegister, actionRegisterIgnore:
		return r.register(id, at, q, limit, out)
	}
	if at < 0 || r.list[at].key != q.key {
		return refusedConflict
	}
	switch q.action {
	case actionReserve:
		switch {
		case r.kind == 0:
			r.kind, r.holder = q.kind, id
		case !r.holds(id) || r.kind != q.kind:
			return refusedConflict
		}
	case actionRelease:
		if !r.holds(id) {
			break
		}
		if r.kind != q.kind {
			return refusedFor(invalidRelease)
		}
		r.release(out)
	case actionClear:
		for _, g := range r.list {
			out.told[g.nexusID] = reservationsPreempted
		}
		r.generation++
		r.list, r.kind, r.holder = nil, 0, nexusID{}
	case actionPreempt, actionPreemptAbort:
		return r.preempt(id, q, out)
	case actionRegisterMove:
		return r.move(id, at, q, limit, out)
	}
	return out
}

// release ends the reservation; registrants are told if it let them in.
func (r *registrations) release(out outcome) {
	if forRegistrants(r.kind) {
		for _, g := range r.list {
			out.told[g.nexusID] = reservationsReleased
		}
	}
	r.kind, r.holder = 0, nexusID{}
}

func (r *registrations) register(id nexusID, at int, q reserveRequest, limit int, out outcome) outcome {
	if q.action == actionRegister {
		known := uint64(0) // what an unregistered nexus has to name
		if at >= 0 {
			known = r.list[at].key
			if len(q.others) > 0 {
				return refusedFor(invalidListField)
			}
		}
		if q.key != known {
			return refusedConflict
		}
	}
	switch {
	case q.newKey != 0:
		if at >= 0 {
			r.list[at].key = q.newKey
			break
		}
		for _, o := range append([]nexusID{id}, q.others...) {
			if r.find(o) >= 0 {
				return refusedConflict
			}
			if len(r.list) >= limit {
				return refusedFor(noRegistrationSpace)
			}
			r.list = append(r.list, registration{o, q.newKey})
		}
	case at >= 0:
		r.unregister(at, out)
	default: // of nobody, nothing
		return out
	}
	r.aptpl = q.aptpl
	r.generation++
	return out
}

// unregister removes a registration, and the reservation that stands on it.
func (r *registrations) unregister(at int, out outcome) {
	id := r.list[at].nexusID
	held := r.holds(id)
	r.list = slices.Delete(r.list, at, at+1)
	if held && (!forAll(r.kind) || len(r.list) == 0) {
		r.release(out)
	}
}

func (r *registrations) preempt(id nexusID, q reserveRequest, out outcome) outcome {
	holderKey, held := r.holderKey()
	takes := held && q.newKey == holderKey // the reservation is preempted too
	if q.newKey == 0 && !takes {
		return refusedFor(invalidListField)
	}
	var left []registration
	for _, g := range r.list {
		hit := g.key == q.newKey || takes && forAll(r.kind)
		if hit && takes && g.nexusID == id {
			hit = false // who preempts stays registered
		}
		if !hit {
			left = append(left, g)
			continue
		}
		out.told[g.nexusID] = registrationsPreempted
		out.ended = append(out.ended, g.nexusID)
	}
	if !takes && len(left) == len(r.list) {
		return refusedConflict
	}
	r.list = left
	switch {
	case takes:
		if r.kind != q.kind {
			for _, g := range left {
				out.told[g.nexusID] = reservationsReleased
			}
		}
		r.kind, r.holder = q.kind, id
	case len(left) == 0:
		r.kind = 0
	}
	r.generation++
	return out
}

// holderKey is the key by which the reservation is preempted: 0 if all
// registrants hold it.
func (r *registrations) holderKey() (key uint64, held bool) {
	switch {
	case r.kind == 0:
		return 0, false
	case forAll(r.kind):
		return 0, true
	}
	return r.list[r.find(r.holder)].key, true
}

func (r *registrations) move(id nexusID, at int, q reserveRequest, limit int, out outcome) outcome {
	switch {
	case forAll(r.kind) || !r.holds(id):
		return refusedConflict
	case q.newKey == 0 || q.others[0] == id:
		return refusedFor(invalidListField)
	}
	to := q.others[0]
	if i := r.find(to); i >= 0 {
		r.list[i].key = q.newKey
	} else if len(r.list) >= limit {
		return refusedFor(noRegistrationSpace)
	} else {
		r.list = append(r.list, registration{to, q.newKey})
	}
	r.holder = to
	if q.unreg {
		r.list = slices.Delete(r.list, at, at+1)
	}
	r.aptpl = q.aptpl
	r.generation++
	return out
}

// keptRegistrations is what a Keeper keeps, as JSON: docs/scsi.md.
type keptRegistrations struct {
	Version    int
	Generation uint32
	Type       byte             `json:",omitempty"`
	Holder     int              // index into Registered, if Type is not 0
	Registered []keptRegistrant `json:",omitempty"`
}

type keptRegistrant struct {
	Initiator string
	Port      uint16
	Key       uint64
}

const keptVersion = 1

// encode is what is to be kept: nothing of registrations that are not to outlive
// a loss of power.
func (r *registrations) encode() ([]byte, error) {
	k := keptRegistrations{Version: keptVersion}
	if r.aptpl {
		k.Generation, k.Type = r.generation, r.kind
		for _, g := range r.list {
			if g.nexusID == r.holder {
				k.Holder = len(k.Registered)
			}
			k.Registered = append(k.Registered, keptRegistrant{g.initiator, g.port, g.key})
		}
	}
	return json.Marshal(k)
}

// decodeRegistrations reads what was kept; nothing is no registrations.
func decodeRegistrations(b []byte, limit int) (registrations, error) {
	var r registrations
	if len(b) == 0 {
		return r, nil
	}
	bad := func(format string, args ...any) (registrations, error) {
		return registrations{}, fmt.Errorf("scsi: the persistent reservations that were kept are damaged: "+format, args...)
	}
	var k keptRegistrations
	if err := json.Unmarshal(b, &k); err != nil {
		return bad("%w", err)
	}
	if k.Version != keptVersion {
		return registrations{}, fmt.Errorf("scsi: the persistent reservations that were kept have version %d, this program reads %d", k.Version, keptVersion)
	}
	if len(k.Registered) > limit {
		return bad("%d registrations, at most %d are allowed (Limits.Registrants)", len(k.Registered), limit)
	}
	r.generation, r.kind, r.aptpl = k.Generation, k.Type, len(k.Registered) > 0
	for i, g := range k.Registered {
		id := nexusID{g.Initiator, g.Port}
		if id.initiator == "" || len(id.initiator) > maxPortName || g.Key == 0 || r.find(id) >= 0 {
			return bad("registration %d makes no sense", i)
		}
		r.list = append(r.list, registration{id, g.Key})
	}
	if r.kind != 0 {
		if !validKind(r.kind) || k.Holder < 0 || k.Holder >= len(r.list) {
			return bad("a reservation of type %d, held by registration %d of %d", r.kind, k.Holder, len(r.list))
		}
		r.holder = r.list[k.Holder].nexusID
	}
	return r, nil
}
