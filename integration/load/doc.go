// Package load writes to an NBD export while something terrible happens to it,
// and knows afterwards what must still be there.
//
// A [Client] is a small NBD client of its own, so that a misunderstanding in
// Lockstep's packages cannot hide in the test of it. A [Model] knows for each
// block which contents are possible: exactly one for a block whose last write
// was answered, the old or the new for one whose answer never came, and all old
// or all new for all blocks of one write. [Run] keeps both busy with writes,
// reads, zeroes, trims and flushes; [Model.Verify] reads everything back.
//
// What is checked is more than what a flush promises: a process that is killed
// loses none of the acknowledged writes, flushed or not. A message says of a
// lost write whether a flush had covered it.
package load
