// Package node is one Lockstep daemon: it reads the configuration, opens every
// volume below the data directory, serves them over NBD, lets the peers in, and
// answers the admin API. It is the only package that knows both sides, the
// exports (package target) and the volumes (package mirror).
//
// # Use
//
// [LoadConfig] or [DefaultConfig] give a [Config]; [Start] runs a daemon on it;
// [Node.Stop] ends it gracefully. [Client] speaks the admin API of a running
// daemon: the command line is nothing but this client and a printer, save for
// what it reads of a daemon that is stopped ([Offline]).
//
// # On disk
//
//	DATA-DIR/lock                       held by the one daemon that may use it
//	DATA-DIR/admin.sock                 the admin API, mode 0600
//	DATA-DIR/volumes/NAME/volume.json   peers and settings, see Settings
//	DATA-DIR/volumes/NAME/superblock, journal/, *.bitmap    package mirror's
//	DATA-DIR/volumes/NAME/data          the store, unless settings name another
//	DATA-DIR/volumes/NAME/journal.link  if settings name another journal
//	DATA-DIR/volumes/.NAME.creating     a create that has not finished
//	DATA-DIR/volumes/.NAME.deleting     a delete that has not finished
//
// A volume appears under its name by one rename, whole and synced, and vanishes
// by one rename. What a crash leaves under the two dotted names is removed at
// the next start.
//
// # What it upholds
//
//   - Invariant 10, the superblock commits first: a volume that can't be opened
//     is shown with the reason and what to do, and nothing of it is written. It
//     never keeps the others from serving.
//   - One data directory has one daemon, by a lock that ends with the process.
//   - With peer.tls ([TLSFiles], made by [MakeKeys]) nothing is said to a peer, and
//     nothing of it believed, before it has proved to be the node that it is taken
//     for. Without, no other host is spoken to unless the configuration says so.
//   - Everything that comes in from outside (configuration, admin requests,
//     preambles of peers) has a size limit and a time limit before it is looked
//     at, and is refused with a sentence.
//
// # Who owns what
//
//	goroutine                    owns
//	Start's caller               listeners and volumes until Start returns
//	one per NBD listener         its accept loop (package nbd)
//	the peer listener            its accept loop, the slots of greeting peers
//	one per greeting peer        that connection until a volume accepts it
//	the admin server             its connections (package net/http)
//	one per volume, at times     its handlers, one after another (handlers.go)
//	Stop's caller                the order in which all of it ends
//
// A volume's entry is guarded by the table's lock; changes of one volume
// (promote, demote, delete) exclude each other, and a second one is refused, not
// queued. Lock order: Node.making, hosted.change,
// Node.resyncs, table.mu. Handlers run without any.
package node
