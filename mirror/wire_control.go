package mirror

// Ack is cumulative: "received through X, durable through Y".
//
//	8 received, 8 durable, 8 session
type Ack struct {
	Received, Durable LSN
	// Session is that of the receiver's Hello: an ack of another session is not
	// counted (replication.md 2).
	Session uint64
}

func (*Ack) FrameType() FrameType { return FrameAck }

func (m *Ack) Encode(dst []byte) []byte {
	dst = le.AppendUint64(dst, uint64(m.Received))
	dst = le.AppendUint64(dst, uint64(m.Durable))
	return le.AppendUint64(dst, m.Session)
}

func (m *Ack) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = Ack{Received: r.lsn(), Durable: r.lsn(), Session: r.u64()}
	return r.finish(FrameAck)
}

// SyncRequest asks a peer to make everything up to LSN durable and to say so.
//
//	8 LSN
type SyncRequest struct{ LSN LSN }

func (*SyncRequest) FrameType() FrameType { return FrameSyncRequest }

func (m *SyncRequest) Encode(dst []byte) []byte { return le.AppendUint64(dst, uint64(m.LSN)) }

func (m *SyncRequest) Decode(body []byte) error {
	r := fieldReader{b: body}
	m.LSN = r.lsn()
	return r.finish(FrameSyncRequest)
}

// Heartbeat says what the sender knows when it has nothing else to send.
//
//	8 stable, 8 committed, 8 epoch, 8 end, 8 time sent
type Heartbeat struct {
	Stable, Committed LSN
	Epoch             uint64
	End               LSN
	Sent              int64 // nanoseconds by the sender's clock, which only he can read
}

func (*Heartbeat) FrameType() FrameType { return FrameHeartbeat }

func (m *Heartbeat) Encode(dst []byte) []byte {
	dst = le.AppendUint64(dst, uint64(m.Stable))
	dst = le.AppendUint64(dst, uint64(m.Committed))
	dst = le.AppendUint64(dst, m.Epoch)
	dst = le.AppendUint64(dst, uint64(m.End))
	return le.AppendUint64(dst, uint64(m.Sent))
}

func (m *Heartbeat) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = Heartbeat{Stable: r.lsn(), Committed: r.lsn(), Epoch: r.u64(), End: r.lsn(), Sent: int64(r.u64())}
	return r.finish(FrameHeartbeat)
}

// JoinReady is the newcomer's word that it is durable through LSN, has
// everything committed, and has recorded UpToDate (replication.md 2, growth).
//
//	8 LSN
type JoinReady struct{ LSN LSN }

func (*JoinReady) FrameType() FrameType { return FrameJoinReady }

func (m *JoinReady) Encode(dst []byte) []byte { return le.AppendUint64(dst, uint64(m.LSN)) }

func (m *JoinReady) Decode(body []byte) error {
	r := fieldReader{b: body}
	m.LSN = r.lsn()
	return r.finish(FrameJoinReady)
}

// SetUpdate tells a replica the in-sync set. One that is not confirmed may yet
// be withdrawn: whoever it adds may not lead (replication.md 2).
//
//	8 set version, 8 epoch, 1 confirmed, set
type SetUpdate struct {
	SetVersion uint64
	Epoch      uint64
	Confirmed  bool
	Set        []Member
}

const maxSetUpdate = 17 + maxSet

func (*SetUpdate) FrameType() FrameType { return FrameSetUpdate }

func (m *SetUpdate) Encode(dst []byte) []byte {
	dst = le.AppendUint64(dst, m.SetVersion)
	dst = le.AppendUint64(dst, m.Epoch)
	dst = appendBool(dst, m.Confirmed)
	return appendMembers(dst, m.Set)
}

func (m *SetUpdate) Decode(body []byte) error {
	r := fieldReader{b: body}
	*m = SetUpdate{SetVersion: r.u64(), Epoch: r.u64(), Confirmed: r.bool("confirmed"), Set: r.members()}
	return r.finish(FrameSetUpdate)
}
