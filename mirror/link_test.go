package mirror

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/lockstep-storage/lockstep/journal"
)

// countingConn keeps what is written, and how often.
type countingConn struct {
	net.Conn
	writes int
	bytes.Buffer
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes++
	return c.Buffer.Write(p)
}

func (c *countingConn) Read(p []byte) (int, error)       { return c.Buffer.Read(p) }
func (c *countingConn) SetWriteDeadline(time.Time) error { return nil }

// TestWrappedConnectionGetsWholeFrames: on a connection that has no vectored write the
// pieces of a frame go out together, and no bytes are lost or held back.
func TestWrappedConnectionGetsWholeFrames(t *testing.T) {
	for _, tc := range []struct{ records, payload, writes int }{
		{1, 4096, 1}, {15, 4096, 1}, {64, 4096, 5}, {1, 1 << 20, 2}, {1000, 0, 1},
	} {
		conn := &countingConn{}
		l := newLink(&peer{v: &Volume{opts: Options{PeerTimeout: time.Second}}, peerState: &peerState{node: "beta"}}, conn, ProtocolVersionMax, true)
		var f RecordsFrame
		for i := range tc.records {
			r := journal.Record{LSN: LSN(i + 1), Kind: journal.KindWrite, Length: int64(tc.payload), Payload: bytes.Repeat([]byte{byte(i)}, tc.payload)}
			if !f.Add(&r) {
				t.Fatal("the frame is full")
			}
		}
		bufs := f.EncodeRecordsHeader(Records{Stable: 7})
		want := bytes.Join(bufs, nil)
		if err := l.writeBuffers(bufs); err != nil {
			t.Fatal(err)
		}
		if conn.writes != tc.writes || !bytes.Equal(conn.Bytes(), want) {
			t.Errorf("%d records of %d bytes: %d writes, %d wanted; %d bytes of %d, equal: %v", tc.records, tc.payload,
				conn.writes, tc.writes, conn.Len(), len(want), bytes.Equal(conn.Bytes(), want))
		}
	}
}
