package scsi

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target/memory"
)

// Names of the initiator ports that the tests use.
const (
	alice = "iqn.2026-01.test:alice,i,0x00023d000001"
	bob   = "iqn.2026-01.test:bob,i,0x00023d000002"
	carol = "iqn.2026-01.test:carol,i,0x00023d000003"
)

const testSize = 1 << 20

// plainInfo is the device of most tests: 2048 blocks of 512 bytes.
var plainInfo = block.Info{Size: testSize, SectorSize: 512, PreferredSize: 4096, WriteCache: true, MultiConn: true, FastZero: true, AtomicWrite: 64 << 10}

func newUnit(tb testing.TB, opt memory.Options, cfg Config) (*Unit, *memory.Device) {
	tb.Helper()
	if opt.Info.SectorSize == 0 {
		opt.Info = plainInfo
	}
	dev := memory.New(opt)
	cfg.Device = dev
	cfg.VolumeID = [16]byte{1, 2, 3, 4}
	u, err := NewUnit(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return u, dev
}

func attach(tb testing.TB, u *Unit, initiator string) *Nexus {
	tb.Helper()
	n := attachNew(tb, u, initiator)
	if st := run(n, "00 00 00 00 00 00"); st.sense != "6/2900" {
		tb.Fatalf("the first command of a nexus: %v, not the unit attention of a power on", st)
	}
	return n
}

// attachNew leaves the unit attention of the new nexus pending.
func attachNew(tb testing.TB, u *Unit, initiator string) *Nexus {
	tb.Helper()
	n, err := u.Attach(tb.Context(), initiator, Port{Name: "iqn.2026-01.test:target,t,0x0001", RelativeID: 1, Group: 1}, Events{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		n.Close()
		n.Wait()
	})
	return n
}

func plain(tb testing.TB) (*Nexus, *memory.Device) {
	tb.Helper()
	u, dev := newUnit(tb, memory.Options{}, Config{})
	return attach(tb, u, alice), dev
}

// signal tells a test that a command has ended.
type signal chan *Command

func (s signal) CommandDone(c *Command) { s <- c }

// result is how a command ended, to be compared and printed.
type result struct {
	status Status
	sense  string // key/code, with @byte.bit of a field pointer and =information
	in     []byte
}

func (r result) String() string {
	s := fmt.Sprintf("status %02xh", uint8(r.status))
	if r.sense != "" {
		s += ", sense " + r.sense
	}
	if len(r.in) > 0 {
		s += fmt.Sprintf(", %d bytes %x", len(r.in), r.in[:min(len(r.in), 64)])
	}
	return s
}

func resultOf(c *Command) result {
	r := result{status: c.Status}
	if s := c.Sense(); len(s) > 0 {
		r.sense = senseText(s)
	}
	if c.In != nil {
		r.in = append([]byte(nil), c.In.Bytes()...)
		c.In.Unref()
		c.In = nil
	}
	return r
}

// senseText reads sense data of either format, by a decoder of its own.
func senseText(b []byte) string {
	var text string
	pointer := func(f []byte) string {
		where := "list"
		if f[0]&0x40 != 0 {
			where = "cdb"
		}
		s := fmt.Sprintf("@%s%d", where, binary.BigEndian.Uint16(f[1:]))
		if f[0]&0x08 != 0 {
			s += fmt.Sprintf(".%d", f[0]&7)
		}
		return s
	}
	switch b[0] & 0x7f {
	case 0x70:
		text = fmt.Sprintf("%x/%02x%02x", b[2], b[12], b[13])
		if b[0]&0x80 != 0 {
			text += fmt.Sprintf("=%d", binary.BigEndian.Uint32(b[3:]))
		}
		if b[15]&0x80 != 0 {
			text += pointer(b[15:])
		}
		if int(b[7]) != len(b)-8 {
			text += " bad length"
		}
	case 0x72:
		text = fmt.Sprintf("d%x/%02x%02x", b[1], b[2], b[3])
		if int(b[7]) != len(b)-8 {
			text += " bad length"
		}
		for d := b[8:]; len(d) > 0; d = d[2+d[1]:] {
			switch d[0] {
			case 0:
				text += fmt.Sprintf("=%d", binary.BigEndian.Uint64(d[4:]))
			case 2:
				text += pointer(d[4:])
			default:
				text += " unknown descriptor"
			}
		}
	default:
		text = fmt.Sprintf("no sense data: %x", b)
	}
	return text
}

func cdbOf(text string) (cdb [16]byte) {
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil || len(b) > 16 {
		panic("CDB " + text)
	}
	copy(cdb[:], b)
	return cdb
}

// command makes a command with its data, as a transport would that expects what
// the CDB asks for.
func command(n *Nexus, cdb [16]byte, out []byte) *Command {
	c := &Command{CDB: cdb}
	c.Expected = int64(len(out))
	if t := n.unit.Describe(&cdb); t.Direction == DataIn {
		c.Expected = int64(t.Length)
	}
	if out != nil {
		c.Out = copyOf(out)
	}
	return c
}

func runCDB(n *Nexus, cdb [16]byte, out []byte) result {
	c := command(n, cdb, out)
	done := make(signal, 1)
	c.Done = done
	n.Execute([]*Command{c})
	return resultOf(<-done)
}

func run(n *Nexus, cdb string, out ...byte) result { return runCDB(n, cdbOf(cdb), out) }

func filled(b byte, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = b
	}
	return p
}

func want(tb testing.TB, what string, got result, status Status, sense string) {
	tb.Helper()
	if got.status != status || got.sense != sense {
		tb.Errorf("%s: %v; want status %02xh, sense %q", what, got, uint8(status), sense)
	}
}

func good(tb testing.TB, what string, got result) {
	tb.Helper()
	want(tb, what, got, Good, "")
}
