package nbdclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// maxAnswer is the longest answer to an option that is read: a name and a
// description of the greatest length.
const maxAnswer = 4 + 2*wire.MaxString

// maxListed bounds what a server can make List remember.
const maxListed = 64 << 10

// Info is what a server says of an export.
type Info struct {
	Name           string // the server's own name for it, if it told
	Description    string
	Size           int64 // bytes
	ReadOnly       bool
	Flush          bool // NBD_CMD_FLUSH is offered
	FUA            bool
	Trim           bool
	WriteZeroes    bool
	MultiConn      bool // a flush covers the writes of every connection
	Rotational     bool
	MinBlock       int64 // offsets and lengths are multiples of it, bytes
	PreferredBlock int64
	MaxPayload     int64 // of a read or write, bytes
}

// Export is an entry of a server's list.
type Export struct {
	Name        string
	Description string
}

// session is a connection during option haggling.
type session struct{ nc net.Conn }

// connect dials, and goes through the handshake's first phase.
func connect(ctx context.Context, network, addr string) (*session, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("nbdclient: %w", err)
	}
	return &session{nc}, nil
}

// during makes ctx's end fail what f does with the connection.
func (s *session) during(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, func() { s.nc.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

func (s *session) read(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.nc, b); err != nil {
		return nil, fmt.Errorf("nbdclient: handshake: %w", err)
	}
	return b, nil
}

func (s *session) write(b []byte) error {
	if _, err := s.nc.Write(b); err != nil {
		return fmt.Errorf("nbdclient: handshake: %w", err)
	}
	return nil
}

func (s *session) greet() error {
	b, err := s.read(wire.GreetingSize)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint64(b) != wire.Magic || binary.BigEndian.Uint64(b[8:]) != wire.OptMagic {
		return fmt.Errorf("nbdclient: handshake: % x is not the greeting of a newstyle NBD server", b[:16])
	}
	flags := binary.BigEndian.Uint16(b[16:])
	if flags&wire.FlagFixedNewstyle == 0 {
		return errors.New("nbdclient: handshake: the server does not know the fixed newstyle")
	}
	return s.write(binary.BigEndian.AppendUint32(nil, uint32(flags&(wire.FlagFixedNewstyle|wire.FlagNoZeroes))))
}

// ask sends an option and hands every answer before the last to each.
func (s *session) ask(opt uint32, data []byte, each func(kind uint32, data []byte) error) error {
	if err := s.write(wire.Option(nil, opt, data)); err != nil {
		return err
	}
	for {
		head, err := s.read(wire.OptReplySize)
		if err != nil {
			return err
		}
		kind, n := binary.BigEndian.Uint32(head[12:]), binary.BigEndian.Uint32(head[16:])
		if binary.BigEndian.Uint64(head) != wire.ReplyMagic || binary.BigEndian.Uint32(head[8:]) != opt {
			return fmt.Errorf("nbdclient: handshake: % x is no answer to option %d", head, opt)
		}
		if n > maxAnswer {
			return fmt.Errorf("nbdclient: handshake: an answer of %d bytes, at most %d are read", n, maxAnswer)
		}
		body, err := s.read(int(n))
		switch {
		case err != nil:
			return err
		case kind == wire.RepAck:
			return nil
		case kind&wire.RepErr != 0:
			return fmt.Errorf("nbdclient: option %d: %w (%#x): %s", opt, ErrRefused, kind, body)
		}
		if err := each(kind, body); err != nil {
			return err
		}
	}
}

// describe asks for an export with NBD_OPT_INFO or NBD_OPT_GO.
func (s *session) describe(opt uint32, export string) (Info, error) {
	if len(export) > wire.MaxString {
		return Info{}, fmt.Errorf("nbdclient: an export's name has at most %d bytes, not %d", wire.MaxString, len(export))
	}
	info := Info{Name: export, MinBlock: 1, PreferredBlock: 4096, MaxPayload: wire.MaxPayload}
	told := false
	data := wire.GoData(export, wire.InfoName, wire.InfoDescription, wire.InfoBlockSize)
	err := s.ask(opt, data, func(kind uint32, b []byte) error {
		if kind != wire.RepInfo || len(b) < 2 {
			return fmt.Errorf("nbdclient: handshake: answer %d with %d bytes instead of information", kind, len(b))
		}
		told = told || binary.BigEndian.Uint16(b) == wire.InfoExport
		return info.learn(binary.BigEndian.Uint16(b), b[2:])
	})
	if err == nil && !told {
		err = errors.New("nbdclient: handshake: the server did not tell the export's size")
	}
	return info, err
}

// learn takes one NBD_REP_INFO in. Unknown ones are ignored, as they must be.
func (i *Info) learn(kind uint16, b []byte) error {
	switch {
	case kind == wire.InfoExport && len(b) == 10:
		size := binary.BigEndian.Uint64(b)
		if size > 1<<63-1 {
			return fmt.Errorf("nbdclient: an export of %d bytes is more than can be addressed", size)
		}
		i.Size = int64(size)
		i.setFlags(binary.BigEndian.Uint16(b[8:]))
	case kind == wire.InfoName:
		i.Name = string(b)
	case kind == wire.InfoDescription:
		i.Description = string(b)
	case kind == wire.InfoBlockSize && len(b) == 12:
		i.MinBlock = int64(binary.BigEndian.Uint32(b))
		i.PreferredBlock = int64(binary.BigEndian.Uint32(b[4:]))
		i.MaxPayload = min(int64(binary.BigEndian.Uint32(b[8:])), wire.MaxPayload)
		if i.MinBlock < 1 || i.MaxPayload < i.MinBlock {
			return fmt.Errorf("nbdclient: the server's block sizes, %d to %d bytes, make no sense", i.MinBlock, i.MaxPayload)
		}
	case kind == wire.InfoExport, kind == wire.InfoBlockSize:
		return fmt.Errorf("nbdclient: information %d with %d bytes", kind, len(b))
	}
	return nil
}

func (i *Info) setFlags(f uint16) {
	i.ReadOnly = f&wire.FlagReadOnly != 0
	i.Flush = f&wire.FlagSendFlush != 0
	i.FUA = f&wire.FlagSendFUA != 0
	i.Trim = f&wire.FlagSendTrim != 0
	i.WriteZeroes = f&wire.FlagSendWriteZeroes != 0
	i.MultiConn = f&wire.FlagCanMultiConn != 0
	i.Rotational = f&wire.FlagRotational != 0
}

// List asks a server what it exports.
func List(ctx context.Context, network, addr string) ([]Export, error) {
	var list []Export
	err := haggle(ctx, network, addr, func(s *session) error {
		return s.ask(wire.OptList, nil, func(kind uint32, b []byte) error {
			if kind != wire.RepServer || len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
				return fmt.Errorf("nbdclient: handshake: answer %d with %d bytes instead of an export", kind, len(b))
			}
			if len(list) == maxListed {
				return fmt.Errorf("nbdclient: the server lists more than %d exports", maxListed)
			}
			n := 4 + binary.BigEndian.Uint32(b)
			list = append(list, Export{Name: string(b[4:n]), Description: string(b[n:])})
			return nil
		})
	})
	return list, err
}

// Query asks a server about one export, "" being its default one, without
// attaching to it.
func Query(ctx context.Context, network, addr, export string) (Info, error) {
	var info Info
	err := haggle(ctx, network, addr, func(s *session) (err error) {
		info, err = s.describe(wire.OptInfo, export)
		return err
	})
	return info, err
}

// haggle connects, lets f ask, and takes its leave.
func haggle(ctx context.Context, network, addr string, f func(*session) error) error {
	s, err := connect(ctx, network, addr)
	if err != nil {
		return err
	}
	defer s.nc.Close()
	return s.during(ctx, func() error {
		if err := s.greet(); err != nil {
			return err
		}
		if err := f(s); err != nil {
			return err
		}
		return s.ask(wire.OptAbort, nil, func(uint32, []byte) error { return nil })
	})
}
