package scsi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/lockstep-storage/lockstep/target/memory"
)

// keeper is a Keeper in memory.
type keeper struct {
	mu    sync.Mutex
	state []byte
	fails error
}

func (k *keeper) Load() ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state, k.fails
}

func (k *keeper) Save(state []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fails == nil {
		k.state = append([]byte(nil), state...)
	}
	return k.fails
}

// reserve sends a PERSISTENT RESERVE OUT.
func reserve(n *Nexus, action, kind byte, key, newKey uint64, flags byte) result {
	list := binary.BigEndian.AppendUint64(nil, key)
	list = binary.BigEndian.AppendUint64(list, newKey)
	list = append(list, 0, 0, 0, 0, flags, 0, 0, 0)
	return runCDB(n, [16]byte{0x5f, action, kind, 8: byte(len(list))}, list)
}

// With APTPL a reservation holds after a loss of power, and without it does not.
func TestReservationsThroughPowerLoss(t *testing.T) {
	for _, aptpl := range []byte{0, 1} {
		k := &keeper{}
		u, _ := newUnit(t, memory.Options{}, Config{Keeper: k})
		a := attach(t, u, alice)
		good(t, "register", reserve(a, actionRegister, 0, 0, 0xa11ce, aptpl))
		good(t, "reserve", reserve(a, actionReserve, exclusiveAccess, 0xa11ce, 0, 0))
		status := run(a, "5e 03 00 00 00 00 00 01 00 00").in

		u, _ = newUnit(t, memory.Options{}, Config{Keeper: k})
		a, b := attach(t, u, alice), attach(t, u, bob)
		after := run(a, "5e 03 00 00 00 00 00 01 00 00").in
		read := run(b, "28 00 00000000 00 0001 00")
		if aptpl == 0 {
			good(t, "read without APTPL", read)
			if want := make([]byte, 8); !bytes.Equal(after, want) {
				t.Errorf("full status without APTPL: %x", after)
			}
			continue
		}
		want(t, "read with APTPL", read, ReservationConflict, "")
		if !bytes.Equal(after, status) {
			t.Errorf("full status was %x, is %x", status, after)
		}
		good(t, "read of the holder", run(a, "28 00 00000000 00 0001 00"))
		// It may be given up for good as well.
		good(t, "without APTPL again", reserve(a, actionRegisterIgnore, 0, 0, 0xa11ce, 0))
		u, _ = newUnit(t, memory.Options{}, Config{Keeper: k})
		good(t, "read", run(attach(t, u, bob), "28 00 00000000 00 0001 00"))
	}
}

// What cannot be kept has not happened.
func TestKeeperFails(t *testing.T) {
	k := &keeper{fails: errors.New("no etcd")}
	if _, err := NewUnit(Config{Device: memory.Sized(testSize), Keeper: k}); !errors.Is(err, k.fails) {
		t.Errorf("NewUnit: %v", err)
	}
	k.fails = nil
	u, _ := newUnit(t, memory.Options{}, Config{Keeper: k})
	n := attach(t, u, alice)
	k.fails = errors.New("no etcd")
	want(t, "register", reserve(n, actionRegister, 0, 0, 1, 1), CheckCondition, "4/4400")
	if r := run(n, "5e 00 00 00 00 00 00 01 00 00"); fmt.Sprintf("%x", r.in) != "0000000000000000" {
		t.Errorf("keys: %x", r.in)
	}
	good(t, "RESERVE(6) of who registered in vain", run(n, "16 00 00 00 00 00"))
}

func TestAPTPLNeedsKeeper(t *testing.T) {
	n, _ := plain(t)
	want(t, "register", reserve(n, actionRegister, 0, 0, 1, 1), CheckCondition, "5/2600@list20.0")
}

// What was kept and makes no sense is an error, not a volume without its fence.
func TestDamagedRegistrations(t *testing.T) {
	for _, kept := range []string{
		`{`, `{"Version":2}`, `{"Version":1,"Type":1,"Holder":0}`,
		`{"Version":1,"Registered":[{"Initiator":"a","Port":1,"Key":0}]}`,
		`{"Version":1,"Registered":[{"Initiator":"","Port":1,"Key":1}]}`,
		`{"Version":1,"Registered":[{"Initiator":"a","Port":1,"Key":1},{"Initiator":"a","Port":1,"Key":2}]}`,
		`{"Version":1,"Type":2,"Registered":[{"Initiator":"a","Port":1,"Key":1}]}`,
		`{"Version":1,"Type":1,"Holder":1,"Registered":[{"Initiator":"a","Port":1,"Key":1}]}`,
		`{"Version":1,"Type":1,"Holder":-1,"Registered":[{"Initiator":"a","Port":1,"Key":1}]}`,
	} {
		if _, err := NewUnit(Config{Device: memory.Sized(testSize), Keeper: &keeper{state: []byte(kept)}}); err == nil {
			t.Errorf("%s was taken", kept)
		}
	}
}
