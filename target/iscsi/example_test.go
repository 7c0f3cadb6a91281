package iscsi_test

import (
	"fmt"
	"log"
	"net"

	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/iscsi"
	"github.com/lockstep-storage/lockstep/target/memory"
)

// A device in memory, for one initiator that must prove itself.
func Example() {
	var exports target.Exports
	if err := exports.Add(target.Export{Name: "data", Device: memory.Sized(1 << 20)}); err != nil {
		log.Fatal(err)
	}
	s, err := iscsi.NewServer(&exports, iscsi.Options{})
	if err != nil {
		log.Fatal(err)
	}
	err = s.AddTarget(iscsi.Target{
		Export:   "data",
		VolumeID: [16]byte{1},
		Initiators: []iscsi.Initiator{{
			Name: "iqn.1993-08.org.debian:01:host",
			CHAP: &iscsi.Secret{Name: "host", Secret: "at least twelve bytes"},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go s.Serve(l)
	fmt.Println("serving", iscsi.NamePrefix+"data")
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}
	// Output: serving iqn.2026-11.io.lockstep:data
}
