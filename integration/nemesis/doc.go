// Package nemesis sets real daemons against faults that are drawn by seed, and
// judges what their clients saw.
//
// Three nodes mirror one volume, every pair of them through relays of its own. A
// few clients write, read and flush the same blocks at the same time, on whatever
// node is Primary. A round draws some faults from a weighted list and runs them one
// after another under that load; then everything is healed, the replicas have to
// converge by themselves, and the round is judged.
//
// # Faults
//
// A process is killed (SIGKILL) and comes back at once, later, or not before the
// heal; all three are killed, in any order. A process is stopped (SIGSTOP) for
// longer than peer-timeout, and goes on as if nothing had happened. What one node
// sends to another is held back in silence, or what both send, or a node is held
// off from both others; the held bytes and the ends of connections arrive when the
// network is healed, as from a switch that slept. Connections are closed. A link
// becomes slow. Operators promote, demote, connect and disconnect in the middle of
// all this; most of it ought to be refused. And they fail over by force.
//
// Processes die here, machines do not: what a process has written to its files is
// still there when it comes back. Power, and disks that lie, are
// [github.com/lockstep-storage/lockstep/integration/powercut] and the simulator's;
// disks that fail are those of
// [github.com/lockstep-storage/lockstep/integration/diskfailure].
//
// # Failing over by force
//
// docs/operations.md asks the operator to keep clients off the old Primary first,
// and the nemesis does: it closes their connections and lets none back until the
// heal. After that nothing more is acknowledged there, so the old Primary's in-sync
// set, asked of its status or, if it is dead, of its files, tells whether the node
// that is forced has everything that was acknowledged. If it has, the round is
// judged as strictly as any. If it has not, or that cannot be told because the old
// Primary is stopped, the force is an operator's word that what only others hold
// may go: every block may then become any content that it had in this round, at the
// force and at no other time.
//
// # What is judged
//
//   - Each block's history, the final reads of all blocks among it, is linearizable
//     as a register. A request whose answer never came, or was an error, may take
//     effect at any later time, or never. Flushed or not makes no difference, as no
//     machine dies; a message says of a lost write whether a flush had covered it.
//   - Whoever acknowledged in an epoch was its only Primary, unless a force that was
//     known to lose something came between.
//   - All nodes are in sync within a minute, and no operator was needed beyond those
//     whose undoing the round's own operators call for: a volume without a Primary is
//     promoted, without force; what was disconnected, or met as two Primaries after a
//     force, is connected; a split-brain after a force is resolved in favour of whom
//     the clients are on; a second Primary that cannot be demoted because of writes that
//     min-in-sync holds back is restarted (integration/BUGS.md). A split-brain in a round without force is a failure.
//   - The three replicas are equal, byte for byte, and each holds what was read.
//   - No daemon ended by itself, or printed a panic; in the end `lockstep check` finds
//     every replica sound.
//
// # Running it
//
// TestNemesis goes on for half a minute, or as long as LOCKSTEP_NEMESIS says
// (`make nemesis TIME=1h SEED=42`). The seed draws the faults, the nodes that they
// meet, and the pauses; the timing of processes is the machine's own, so a seed
// repeats a plan, and a failure often, not always. A failure prints the seed, the
// round's events with their times, and the directory in which the logs and the files
// of all nodes are kept. docs/nemesis.md says how to read that. It does not run under
// the race detector, which slows the daemons beyond the timeouts it sets.
package nemesis
