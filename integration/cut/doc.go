// Package cut takes the network between two nodes away, under load, and gives
// it back (promise P8): no client sees an error, and the node that was cut off
// catches up from the journal. A node that is merely slow leaves the in-sync set on its
// latency budget, once. It consists of tests alone.
package cut
