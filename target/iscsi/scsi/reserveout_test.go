package scsi

import (
	"fmt"
	"testing"

	"github.com/lockstep-storage/lockstep/target/memory"
)

// specList is a parameter list of REGISTER with SPEC_I_PT.
func specList(newKey byte, initiators ...string) []byte {
	var ids []byte
	for _, i := range initiators {
		ids = append(ids, transportID(i)...)
	}
	b := make([]byte, 28)
	b[15], b[20] = newKey, 0x08
	b[26], b[27] = byte(len(ids)>>8), byte(len(ids))
	return append(b, ids...)
}

// moveList is one of REGISTER AND MOVE.
func moveList(key, newKey, flags, port byte, initiator string) []byte {
	id := transportID(initiator)
	b := make([]byte, 24)
	b[7], b[15], b[17], b[19], b[23] = key, newKey, flags, port, byte(len(id))
	return append(b, id...)
}

func prOut(n *Nexus, action byte, list []byte) result {
	return runCDB(n, [16]byte{0x5f, action, 7: byte(len(list) >> 8), 8: byte(len(list))}, list)
}

func keysOf(n *Nexus) string {
	return fmt.Sprintf("%x", run(n, "5e 00 00 00 00 00 00 01 00 00").in)
}

func TestRegisterForOthers(t *testing.T) {
	u, _ := newUnit(t, memory.Options{}, Config{Limits: Limits{Registrants: 2}})
	a, b := attach(t, u, alice), attach(t, u, bob)
	want(t, "too many", prOut(a, actionRegister, specList(5, bob, carol)), CheckCondition, "5/5504")
	want(t, "no ISID", prOut(a, actionRegister, specList(5, "iqn.2026-01.test:bob")), CheckCondition, "5/2600@list24")
	want(t, "not UTF-8", prOut(a, actionRegister, specList(5, "\xff"+bob)), CheckCondition, "5/2600@list24")
	list := specList(5, bob)
	want(t, "cut short", prOut(a, actionRegister, list[:len(list)-4]), CheckCondition, "5/1a00")
	want(t, "ignoring keys", prOut(a, actionRegisterIgnore, list), CheckCondition, "5/2600@list20.3")
	list[20] = 0x04
	want(t, "ALL_TG_PT", prOut(a, actionRegister, list), CheckCondition, "5/2600@list20.2")
	if keys := keysOf(a); keys != "0000000000000000" {
		t.Errorf("what was refused has left %s", keys)
	}
	// Names are compared without regard to case; oneself counts once.
	good(t, "bob", prOut(a, actionRegister, specList(5, "iqn.2026-01.test:BOB,i,0x00023D000002", alice, bob)))
	if keys := keysOf(a); keys != "0000000100000010"+"0000000000000005"+"0000000000000005" {
		t.Errorf("keys %s", keys)
	}
	good(t, "bob reserves", reserve(b, actionReserve, exclusiveRegistrant, 5, 0, 0))
	r := run(b, "5e 03 00 00 00 00 00 02 00 00")
	id := func(s string) string { return fmt.Sprintf("%x", transportID(s)) }
	wantBytes(t, "full status", r, "00000001 00000088"+
		"0000000000000005 00000000 00 00 00000000 0001 0000002c"+id(alice)+
		"0000000000000005 00000000 01 06 00000000 0001 0000002c"+id(bob))
}

func TestRegisterAndMove(t *testing.T) {
	u, _ := newUnit(t, memory.Options{}, Config{})
	a, b := attach(t, u, alice), attach(t, u, bob)
	good(t, "register", reserve(a, actionRegister, 0, 0, 1, 0))
	want(t, "without a reservation", prOut(a, actionRegisterMove, moveList(1, 2, 0, 1, bob)), ReservationConflict, "")
	good(t, "reserve", reserve(a, actionReserve, exclusiveAccess, 1, 0, 0))
	want(t, "wrong key", prOut(a, actionRegisterMove, moveList(9, 2, 0, 1, bob)), ReservationConflict, "")
	want(t, "no new key", prOut(a, actionRegisterMove, moveList(1, 0, 0, 1, bob)), CheckCondition, "5/2600")
	want(t, "to oneself", prOut(a, actionRegisterMove, moveList(1, 2, 0, 1, alice)), CheckCondition, "5/2600")
	want(t, "APTPL without a Keeper", prOut(a, actionRegisterMove, moveList(1, 2, 1, 1, bob)), CheckCondition, "5/2600@list17.0")
	good(t, "still the holder's", run(a, write0, filled(1, 512)...))
	good(t, "move, and unregister", prOut(a, actionRegisterMove, moveList(1, 2, 2, 1, bob)))
	want(t, "no longer", run(a, write0, filled(1, 512)...), ReservationConflict, "")
	good(t, "bob's now", run(b, write0, filled(1, 512)...))
	if keys := keysOf(b); keys != "0000000200000008"+"0000000000000002" {
		t.Errorf("keys %s", keys)
	}
}

// RESERVE(6) that comes while a PERSISTENT RESERVE OUT is being kept conflicts:
// both kinds never hold at once.
func TestReserve6WhileRegistering(t *testing.T) {
	k := &slowKeeper{saving: make(chan struct{}), goOn: make(chan struct{})}
	u, _ := newUnit(t, memory.Options{}, Config{Keeper: k})
	a, b := attach(t, u, alice), attach(t, u, bob)
	list := make([]byte, 24)
	list[15], list[20] = 1, 1
	c := begin(a, 1, Simple, "5f 00 00 00 00 00 00 00 18 00", list)
	<-k.saving
	want(t, "RESERVE(6)", run(b, "16 00 00 00 00 00"), ReservationConflict, "")
	close(k.goOn)
	good(t, "register", end(c))
}

type slowKeeper struct{ saving, goOn chan struct{} }

func (k *slowKeeper) Load() ([]byte, error) { return nil, nil }

func (k *slowKeeper) Save([]byte) error {
	k.saving <- struct{}{}
	<-k.goOn
	return nil
}

func TestReserveOutIsRefused(t *testing.T) {
	n, _ := plain(t)
	good(t, "register", reserve(n, actionRegister, 0, 0, 1, 0))
	for _, tc := range []struct {
		name         string
		action, kind byte
		size         int
		sense        string
	}{
		{"type 2", actionReserve, 2, 24, "5/2400@cdb2.3"},
		{"type 0", actionPreempt, 0, 24, "5/2400@cdb2.3"},
		{"type 9", actionRelease, 9, 24, "5/2400@cdb2.3"},
		{"scope of an element", actionReserve, 0x21, 24, "5/2400@cdb2.7"},
		{"short list", actionReserve, 1, 23, "5/1a00"},
		{"long list", actionReserve, 1, 28, "5/1a00"},
		{"no list", actionRegister, 0, 0, "5/1a00"},
		{"REPLACE LOST RESERVATION", 8, 1, 24, "5/2400@cdb1.4"},
	} {
		list := make([]byte, tc.size)
		if tc.size > 8 {
			list[7] = 1
		}
		want(t, tc.name, runCDB(n, [16]byte{0x5f, tc.action, tc.kind, 8: byte(tc.size)}, list), CheckCondition, tc.sense)
	}
}
