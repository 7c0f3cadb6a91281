package iscsi

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
	device "github.com/lockstep-storage/lockstep/target/memory"
)

// loginPDU logs in at once: from the operational stage to the full feature phase.
func loginPDU(text string) []byte {
	var h wire.Header
	h.SetOpcode(wire.OpLogin | 0x40)
	h[1] = wire.Transit | wire.Operational<<2 | wire.FullFeature
	h.SetDataLen(len(text))
	h.Put32(wire.ITT, 1)
	h.Put32(wire.CmdSN, 1)
	return append(append(h[:], text...), make([]byte, wire.Pad(len(text)))...)
}

const normal = "InitiatorName=iqn.2026-11.example:fuzz\x00TargetName=" + NamePrefix + "data\x00ImmediateData=Yes\x00InitialR2T=No\x00"

// FuzzConnection: whatever an initiator sends before and after a login, the server neither
// crashes nor keeps anything of it.
func FuzzConnection(f *testing.F) {
	command := func(cdb []byte, flags byte, edtl uint32, data []byte) []byte {
		var h wire.Header
		h.SetOpcode(wire.OpCommand | 0x40)
		h[1] = flags
		h.SetDataLen(len(data))
		h.Put32(wire.ITT, 7)
		h.Put32(wire.EDTL, edtl)
		copy(h[wire.CDB:], cdb)
		return append(append(h[:], data...), make([]byte, wire.Pad(len(data)))...)
	}
	f.Add(loginPDU(normal), command([]byte{0x12, 0, 0, 0, 255}, wire.Final|wire.Read, 255, nil))
	f.Add(loginPDU(normal), command([]byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, wire.Final|wire.Write, 512, make([]byte, 512)))
	f.Add(loginPDU(normal), command([]byte{0x2a, 0, 0, 0, 0, 0, 0, 1, 0}, wire.Final|wire.Write, 131072, make([]byte, 512)))
	f.Add(loginPDU("InitiatorName=a\x00SessionType=Discovery\x00"), []byte("\x44\x80"))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"), []byte{})
	f.Fuzz(func(t *testing.T, first, rest []byte) {
		var exports target.Exports
		if err := exports.Add(target.Export{Name: "data", Device: device.Sized(1 << 20)}); err != nil {
			t.Fatal(err)
		}
		s, err := NewServer(&exports, Options{LoginTimeout: 2 * time.Second, ProgressTimeout: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.AddTarget(Target{Export: "data"}); err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			s.ServeConn(theirs)
		}()
		go io.Copy(io.Discard, ours)
		if _, err := io.Copy(ours, io.MultiReader(bytes.NewReader(first), bytes.NewReader(rest))); err == nil {
			ours.Close()
		}
		<-served
		if st := s.Stats(); st != (Stats{}) {
			t.Errorf("left behind: %+v", st)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
