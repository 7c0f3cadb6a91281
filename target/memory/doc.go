// Package memory is a block device in memory, for tests and for measuring an
// export without a disk behind it. It does exactly what package block promises
// and no more: it can also be slow, answer in another order than it was asked,
// fail requests, stop serving, and hold requests back until a test lets them
// go. It keeps nothing.
//
// A request takes effect at the moment at which it completes, so one that is
// submitted after another completed takes effect after it. That is all the
// order that a device owes its clients.
package memory
