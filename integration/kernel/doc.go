// Package kernel attaches the Linux kernel's own NBD client, in a guest of
// integration/lab, to Lockstep: a file system is made, filled and checked, and
// survives the death of the Primary. It consists of tests alone.
//
// The guest's packages are some 110 MB to download, once; so the tests run only
// with LOCKSTEP_LAB=1, as in `make lab` and `make test`.
package kernel
