// Package diskfailure has the disk under a daemon fail, on real file systems and
// under load (invariant 9): the clients of a pair's Primary see no error, the
// peer has everything, and a backing store that is merely full loses nothing and
// goes on by itself. It consists of tests alone, which want root.
package diskfailure
