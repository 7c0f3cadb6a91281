// Package crashtest looks at what power losses and kills leave of a workload on
// a fake disk: at every operation of the workload, in many ways each. Journal,
// bitmaps, superblock and whole volumes are tested with it.
//
// A test gives [Run] a function that makes a [Workload] out of a random source.
// Run works it off and, before each operation that changes the disk and at the
// end, takes the states that a crash could leave then, and has each checked:
//
//   - all combinations of lost and kept sectors and names, where these are few;
//   - else none, all, the newest operation torn at each of its sectors, with
//     what came before it lost or kept, and samples by seed;
//   - what a kill of the process leaves.
//
// All moments of a workload are looked at when 20000 states or more are asked
// for, every n-th else. A crash state is counted once: if neither the disk nor what was promised has
// changed since, the same state is not checked again. When all of a workload is
// through, another one follows, until as many states were checked as were asked
// for. Fewer is a failure.
//
// # Repeating a failure
//
// A state that fails is named by seed, script (the number of the workload),
// moment (of the disk's operations) and way (of crashing then). With LOCKSTEP_SEED
// and LOCKSTEP_CRASH=script/moment/way the test runs that one alone: the workload
// must do the same in every run, which it does if it works in one goroutine.
//
// LOCKSTEP_CRASH_STATES is how many states all users of the package check
// together; each has its share.
package crashtest
