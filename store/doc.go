// Package store holds what a replica's bytes live on: a sparse file or a block
// device ([File]), memory ([Memory]), or any disk.File ([Disk], for tests on a
// disk that lies). All have the same methods and pass the same suite,
// store/storetest.
//
// A store makes no promise about an unsynced write and none about the order of
// writes: package mirror writes only what its journal holds durably (invariant
// 1, WAL rule), and reads nothing from a store that it did not write or find as
// zeroes. The first failed Sync is final (invariant 9): see [ErrFailed].
package store
