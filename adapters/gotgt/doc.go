// Package gotgt lets a program that serves iSCSI by github.com/gostor/gotgt serve a
// mirrored volume, or any other block.Device, in place of a file.
//
// # What gotgt does not do
//
// It (v0.2.2) answers GOOD where its backing store failed: a client is given zeroes for
// what could not be read, and takes for durable what could not be flushed. So what
// [Register] is given to call at the first failure is no decoration: it has to end the
// target before the client goes on. gotgt's tables belong to the whole process, and
// its service listens on every address of the host.
package gotgt
