// Package iscsi runs the iSCSI target against the initiators that people have: libiscsi,
// with its conformance suite of 230 tests, and qemu. It consists of tests alone.
//
// testdata/skipped.txt has every test of the suite that finds something it needs
// missing, and what that is.
package iscsi
