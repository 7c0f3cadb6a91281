package scsi

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
)

// mayChange is which bytes a CDB and its parameter list name, by a reader of its
// own: SBC-3's tables. Whatever is not in it is to stay as it is.
func mayChange(cdb [16]byte, out []byte) (ranges [][2]int64) {
	be := binary.BigEndian
	var lba, blocks uint64
	switch cdb[0] {
	case 0x0a:
		lba, blocks = uint64(cdb[1]&0x1f)<<16|uint64(be.Uint16(cdb[2:])), uint64(cdb[4])
		if blocks == 0 {
			blocks = 256
		}
	case 0x2a, 0x2e, 0x41:
		lba, blocks = uint64(be.Uint32(cdb[2:])), uint64(be.Uint16(cdb[7:]))
	case 0xaa, 0xae:
		lba, blocks = uint64(be.Uint32(cdb[2:])), uint64(be.Uint32(cdb[6:]))
	case 0x8a, 0x8b, 0x8e, 0x93:
		lba, blocks = be.Uint64(cdb[2:]), uint64(be.Uint32(cdb[10:]))
	case 0x89:
		lba, blocks = be.Uint64(cdb[2:]), uint64(cdb[13])
	case 0x9c:
		lba, blocks = be.Uint64(cdb[2:]), uint64(be.Uint16(cdb[12:]))
	case 0x42:
		if len(out) >= 8 {
			for d := out[8:]; len(d) >= 16; d = d[16:] {
				ranges = append(ranges, inBytes(be.Uint64(d), uint64(be.Uint32(d[8:])))...)
			}
		}
		return ranges
	default:
		return nil
	}
	return inBytes(lba, blocks)
}

// inBytes is a range of blocks in bytes, none if it does not fit.
func inBytes(lba, blocks uint64) [][2]int64 {
	const all = testSize / 512
	if lba > all || blocks > all-lba {
		return nil
	}
	return [][2]int64{{int64(lba) * 512, int64(lba+blocks) * 512}}
}

// Any CDB with any data ends exactly once, changes nothing that it does not name,
// and nothing at all if it fails for what it says; and yields no more than it was
// described to.
func FuzzCommand(f *testing.F) {
	list := make([]byte, 24)
	for i := range table {
		o := &table[i]
		cdb := make([]byte, 16)
		cdb[0] = o.code
		if o.action != noAction {
			cdb[1] = byte(o.action)
		}
		cdb[4], cdb[8], cdb[13] = 1, 24, 1
		f.Add(cdb, list, uint8(0))
		f.Add(cdb, bytes.Repeat([]byte{0xa5}, 1024), uint8(1))
	}
	f.Add([]byte{0x5f, 0, 0, 0, 0, 0, 0, 0, 56}, append(append(make([]byte, 20), 8, 0, 0, 0, 0, 0, 0, 28), transportID(bob)...), uint8(2))
	f.Add([]byte{0x15, 0x10, 0, 0, 16}, []byte{0, 0, 0, 0, 0x0a, 10, 4, 0x10, 8, 0, 0, 0, 0xff, 0xff, 0, 0}, uint8(3))
	f.Add([]byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24}, []byte{0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, 0}, uint8(0))

	// One device for all: to fill one takes longer than a command.
	before := bytes.Repeat([]byte{0x5a}, testSize)
	u, dev := newUnit(f, memory.Options{}, Config{Keeper: &keeper{}, Limits: Limits{MaxTransfer: 128 << 10}})
	n, other := attach(f, u, alice), attach(f, u, bob)
	device, err := block.Open(f.Context(), dev, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { device.Close() })
	if _, err := device.WriteAt(before, 0); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw, out []byte, how uint8) {
		if len(out) > 256<<10 {
			return
		}
		var cdb [16]byte
		copy(cdb[:], raw)
		tr := u.Describe(&cdb)
		if tr.Length < 0 || tr.Length > 128<<10 {
			t.Fatalf("described as %+v", tr)
		}
		c := &Command{CDB: cdb, Done: make(signal, 2), Attribute: Attribute(how & 3), Expected: int64(len(out))}
		if tr.Direction == DataOut && how&4 == 0 {
			// As a transport does: exactly what is described, if that much came.
			if out = out[:min(len(out), tr.Length)]; len(out) < tr.Length && how&8 == 0 {
				out = append(slices.Clone(out), make([]byte, tr.Length-len(out))...)
			}
			c.Expected = int64(len(out))
		}
		if len(out) > 0 {
			c.Out = copyOf(out)
		}
		n.Execute([]*Command{c})
		done := <-c.Done.(signal)
		if len(c.Done.(signal)) > 0 {
			t.Error("Done was told twice")
		}
		if done.Out != nil {
			t.Error("Out was not given back")
		}
		r := resultOf(done)
		if (r.status == CheckCondition) != (r.sense != "") || r.status != Good && r.in != nil {
			t.Errorf("%v", r)
		}
		if len(r.in) > 0 && (tr.Direction != DataIn || len(r.in) > tr.Length) {
			t.Errorf("described as %+v: %v", tr, r)
		}

		now := dev.Snapshot(0, testSize)
		named := mayChange(cdb, out)
		if strings.HasPrefix(r.sense, "5") {
			named = nil
		}
		for _, x := range named {
			copy(now[x[0]:x[1]], before[x[0]:x[1]])
			if _, err := device.WriteAt(before[x[0]:x[1]], x[0]); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(now, before) {
			t.Errorf("byte %d was changed, of which the command says nothing: %v", mismatch(now, before), r)
		}

		// What others wait for is over; and nothing is left for the next one.
		over := make(chan bool, 1)
		n.Manage(ResetUnit, 0, func(bool) { over <- true })
		<-over
		u.mu.Lock()
		u.reservations = reservations{}
		n.attentions, other.attentions = attentions{}, attentions{}
		left := u.tasks
		u.mu.Unlock()
		if left != (taskSet{}) {
			t.Errorf("the task set is not empty: %+v", left)
		}
	})
}

// Whatever a Keeper kept is refused or makes sense, and what makes sense is kept
// the same again.
func FuzzDecodeRegistrations(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Generation":7,"Type":5,"Holder":1,"Registered":[{"Initiator":"a","Port":1,"Key":1},{"Initiator":"b","Port":1,"Key":1}]}`))
	f.Add([]byte(`{"Version":1,"Generation":0,"Holder":0}`))
	f.Add([]byte(`{"Version":2}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRegistrations(b, 8)
		if err != nil {
			return
		}
		if len(r.list) > 8 {
			t.Errorf("%d registrations", len(r.list))
		}
		r.holderKey()
		kept, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeRegistrations(kept, 8)
		if err != nil {
			t.Fatalf("%s was kept, and read as %v", kept, err)
		}
		if len(r.list) == 0 {
			r.generation = 0
		}
		if forAll(r.kind) {
			r.holder, again.holder = nexusID{}, nexusID{}
		}
		if !reflect.DeepEqual(r, again) {
			t.Errorf("%+v was kept, %+v read", r, again)
		}
	})
}

// A TransportID is refused or names a port; a port that it names can be kept, and
// is given out as it was taken.
func FuzzParseTransportID(f *testing.F) {
	f.Add(transportID(alice))
	f.Add(transportID("iqn.2026-01.test:alice"))
	f.Add(append(transportID(alice), transportID(bob)...))
	f.Add(transportID("\xff" + alice))
	f.Add(transportID("Ⱥ" + alice))
	f.Fuzz(func(t *testing.T, b []byte) {
		initiator, rest, ok := parseTransportID(b)
		if !ok {
			return
		}
		if len(rest) >= len(b) || !bytes.HasSuffix(b, rest) {
			t.Errorf("%d bytes are left of %d", len(rest), len(b))
		}
		again, rest, ok := parseTransportID(transportID(initiator))
		if !ok || again != initiator || len(rest) > 0 {
			t.Errorf("%q comes back as %q, %v, with %d bytes more", initiator, again, ok, len(rest))
		}
		r := registrations{aptpl: true, list: []registration{{nexusID{initiator, 1}, 1}}}
		kept, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeRegistrations(kept, 1); err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%q is kept as %s, and read as %+v, %v", initiator, kept, again, err)
		}
	})
}
