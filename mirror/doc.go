// Package mirror keeps a volume identical on several nodes: a replicated block
// device as a library. It orders writes, journals them, sends them to the peers,
// answers when the in-sync set has them, and finds out what happened when
// replicas meet again. It knows nothing of NBD, iSCSI, configuration or the
// command line.
//
// # The types
//
// [Create] makes an empty replica in a directory, [Open] recovers one and
// returns its [Volume]. A Volume is a block.Device: sessions attach to it once
// it is Primary ([Volume.Promote]); to read, write and flush it as a file is, use
// block.Open. It reaches its peers through a [Dialer] and takes their connections through [ReadPreamble] and [Volume.Accept]. [Compare]
// judges two histories, and is of use without a volume. [Check] reads a replica
// that nobody has open and says what is damaged.
//
// # A write, step by step
//
// The files follow it: session.go → sequencer.go (admission, LSNs, CRCs) →
// queue.go → journal and source.go (to the peers) → commit.go (acknowledged,
// visible, stable) → applier.go (to the backing store) → retention.go (out of
// the journal). On the other side: follow.go → journal → queue → applier.
// Peers meet in peer.go, link.go, handshake.go and compare.go. What is decided there, who
// leaves the in-sync set and joins it, who may lead, and what becomes of a failed disk,
// is one deterministic step function: core.go and core_*.go, on what lag.go says of who
// is slow. drive.go tells it what happens and does what follows (with promote.go,
// membership.go, and quorum.go for a set that is too small for clients), and coordinator.go
// is with whom a change is agreed. A replica that cannot be caught up from the journal goes through
// resync_feed.go (what differs, at the pace of pace.go), resync_source.go,
// resync_compare.go, resync_target.go and resync_write.go, can be held back
// (resync_pause.go), and can be taken back (rollback.go) by what undo.go keeps. When the replica's own disk fails: fault.go, and detach.go
// with remote.go. One that lost its journal is repaired (repair.go), for intent.go
// marked what that leaves in doubt. A replica that is not Primary is read through
// image.go. Clients hear of holes through allocation.go. Of two that were written to apart split.go tells. Images of before are
// kept by snapshots.go; keepers.go has what is overwritten preserved for them, and
// snapshot_rollback.go goes back to one, all or nothing. Of all
// that, an embedding program hears through events.go.
//
// # Invariants
//
// By the number of docs/architecture.md, section 4, and where each is upheld:
//
//	 1 WAL rule                     syncer.go (write-intent before sync), applier.go (limit)
//	 2 Apply when stable            applier.go
//	 3 A read returns committed     session.go, pending.go, commit.go, remote.go
//	 4 One order                    sequencer.go, follow.go
//	 5 Retention or bitmap          retention.go
//	 6 Membership before ack        core_set.go, drive.go
//	 7 Fencing by epoch             core_meet.go, follow.go
//	 8 Only a member may lead       core_promote.go
//	 9 A failed fsync is final      fault.go, core_disk.go, detach.go
//	10 The superblock first         Volume.begin, superblock.go
//	11 History tells all            compare.go
//
// # Who owns what
//
//	goroutine                owns                                 others reach it by
//	sequencer (a submitter)  next LSN, order, the journal's end   the inbox; Volume.seq
//	syncLoop                 fdatasync of the journal             syncKick
//	applyLoop                backing writes                       applyKick; Volume.apply
//	checkpointLoop           sync of the store, trimming          checkpointKick
//	watchLoop                removal of lost and slow members     watchKick
//	dialLoop, one a peer     connecting, and then the link        peer.wake
//	link: sender             records, blocks, heartbeats          link.kick
//	link: receiver           what comes in                        the connection
//	link: joiner             making the peer a member, and        Volume.changed
//	                         watching whether it keeps up (lag.go)
//	link: feeder             what a resync's source has to send   resyncSource.feedKick, sums
//	link: comparer           checksums for a resync's source      targetState.compares
//	link: answerer, one a    reading for a diskless Primary       link.server
//	  read
//	link: measurer, once     what we have in a split-brain        its end is waited for
//	endUndo's, once          the removal of an undo's file        Volume.undoFile
//	eventLoop                Hooks.Event, in order                emit
//	a turn's own, once       the diskless Primary's generation,   Volume.change
//	                         or that of a newer epoch (drive.go)
//
// Every one ends before Close returns. Locks are taken in this order:
//
//	Volume.change              changes of role and in-sync set
//	  Volume.undoFile          the file of an undo (undo.go)
//	  Volume.imageEnd          the end of an image (image.go)
//	  Volume.tail              the checkpoint and the journal's tail
//	    Volume.apply           records on their way to the store
//	      Volume.seq           the journal's end
//	        Volume.superMu     a superblock commit
//	          Volume.mu        everything in Volume.state
//	            pending.mu     the index that reads look into
//	            the snapshots' what is preserved
//	        Volume.keepMu      what keeps an image (keepers.go)
//
// # What is bounded
//
// Payload in memory by Options.PendingLimit (one request may pass it), and what a
// round of the applier reads back by a quarter of that, records
// between journal and store by maxQueue, what a peer owes by sendWindow and
// resyncWindow, what the target of a resync holds by twice resyncSyncBytes, its undo on
// disk by Options.ResyncUndo (32 bytes of memory for each range in it, and 8 MiB),
// its snapshots by MaxSnapshots and each by Options.SnapshotLimit (the same memory),
// reads for a diskless Primary by maxReads a connection, the journal by its size, a
// history by MaxGenerations. Whatever is at its limit slows the clients down; a
// resync whose undo is full pauses, and a snapshot that is full is lost.
//
// # What is not promised
//
// Without a Coordinator roles are set by hand, and two nodes may both be forced
// to be Primary: that is detected and refused, not prevented. A read on a
// Primary that was cut off and replaced by force may be old. Peers are believed
// to be who they say. The [Dialer], and whoever calls [Volume.Accept], have them
// prove it (with crypto/tls, say: Preamble.Node is the name to be proved), or the
// network is one that nobody else is on.
package mirror
