// Package world is a simulated world for package mirror: a few nodes with disks that
// lose what was not synced, a network that delays, blocks, cuts and corrupts, clients,
// an operator, a nemesis who makes the faults, and what judges all of it from outside.
// The code in it is production's, whole: Volume, journal, bitmaps, store, links and
// goroutines. Only what is below (disk, network, clock, chance) is simulated.
//
// A run is two phases: faults under load, then all is mended and the replicas have to
// converge. A seed draws a plan for it (plan.go), sizes, speeds, policies and its own
// mix of faults. A third of the runs begin before the volume's first promotion; half of
// them have a journal so small that it is full again and again. What was reached is
// counted (count.go), and a campaign says what never was.
//
// # Fault model
//
// By the file that injects it; how many at once does not matter, all must be survived
// in any number and order:
//
//	process   faults.go, node.go: killed where it waits (its page cache stays), also in
//	          the middle of its start; stands still, shorter or longer than peers wait
//	disk      node.go, fakedisk: what was not synced is lost, kept or torn, of one node
//	          or of all at once; slow
//	network   net.go: delay, ways blocked both ways or one, connections cut, half-open
//	          ones of a host without power, a bit that turns, little room
//	operators faults.go, operator.go: hand over, disconnect, connect, pause a resync, all
//	          at bad moments; promotions, by force only of a node that has everything
//	          that was acknowledged, while nobody leads
//
// Not there yet: failed and lying syncs, corrupt sectors, full and lost disks, copies
// of old disks, clocks that jump, split-brain (whoever forces without need), snapshots,
// rollbacks, a Coordinator.
//
// # What is judged
//
//	history.go  a read returns no block that was replaced before it began, none that an
//	            earlier read showed to be gone, none that nobody wrote, none torn; what a
//	            flush covers stays; what no flush covers stays as long as one member
//	            remembers; after a loss a prefix of the order is left
//	check.go    of two Primaries one acknowledges; once the faults are over all are
//	            in sync within two minutes of virtual time, every request is answered, the
//	            stores are the same byte for byte, everything closes, and mirror.Check
//	            finds nothing
//	node.go     every start succeeds, and mirror.Check finds nothing before it
package world
