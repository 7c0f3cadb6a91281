package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

const (
	// maxOptionData is the longest option data that is looked at: the longest
	// name, and more queries of metadata contexts, or more information requests,
	// than there are to be made.
	maxOptionData = 16 << 10
	// maxSkip is the longest option data that is skipped. Who sends more has
	// not understood the protocol, and is hung up on.
	maxSkip = 64 << 10
)

// errGoodbye ends a handshake that the client gave up (NBD_OPT_ABORT).
var errGoodbye = errors.New("the client ended the handshake")

// A handshake is the first phase of a connection ("Handshake", in its fixed
// newstyle form). It reads no byte beyond what it needs: what arrives in plain
// text behind NBD_OPT_STARTTLS is TLS, or nothing.
type handshake struct {
	nc       net.Conn // what options are read from: the socket, then TLS over it
	exports  *target.Exports
	tls      TLS
	secure   *secureConn // nc, once TLS is there
	log      *slog.Logger
	revoked  func(error) // handed to the export that is chosen
	fixed    bool
	warned   bool // of an export that it may not open; once is enough
	noZeroes bool
	terms    terms
	meta     metaSelection
	session  *target.Session // set when transmission begins
	in       []byte          // data of the present option
	out      []byte          // answers to it that are not yet sent
}

// terms are what a client negotiated beside its export.
type terms struct {
	// structured: replies come in chunks (NBD_OPT_STRUCTURED_REPLY, or what
	// extended says).
	structured bool
	// extended: headers have the long form (NBD_OPT_EXTENDED_HEADERS).
	extended bool
	// status: NBD_CMD_BLOCK_STATUS is answered, with base:allocation, which was
	// selected for the export.
	status bool
}

// run haggles until an export is chosen. On error h.session is closed.
func (h *handshake) run(ctx context.Context) error {
	err := h.greet()
	for err == nil && h.session == nil {
		err = h.option(ctx)
		if err == nil || errors.Is(err, errGoodbye) {
			err = errors.Join(err, h.send())
		}
	}
	if err != nil && h.session != nil {
		h.session.Close()
		h.session = nil
	}
	return err
}

func (h *handshake) send() error {
	_, err := h.nc.Write(h.out)
	h.out = h.out[:0]
	if err != nil {
		return fmt.Errorf("nbd: send an answer in the handshake: %w", err)
	}
	return nil
}

func (h *handshake) read(n int) ([]byte, error) {
	if cap(h.in) < n {
		h.in = make([]byte, n, maxOptionData)
	}
	h.in = h.in[:n]
	if _, err := io.ReadFull(h.nc, h.in); err != nil {
		return nil, fmt.Errorf("nbd: read in the handshake: %w", err)
	}
	return h.in, nil
}

// greet is "Newstyle negotiation" up to the client's flags.
func (h *handshake) greet() error {
	b := binary.BigEndian.AppendUint64(h.out, wire.Magic)
	b = binary.BigEndian.AppendUint64(b, wire.OptMagic)
	h.out = binary.BigEndian.AppendUint16(b, wire.FlagFixedNewstyle|wire.FlagNoZeroes)
	if err := h.send(); err != nil {
		return err
	}
	in, err := h.read(4)
	if err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(in)
	if unknown := flags &^ (wire.FlagFixedNewstyle | wire.FlagNoZeroes); unknown != 0 {
		return fmt.Errorf("nbd: client flags %#x, of which %#x are unknown", flags, unknown)
	}
	h.noZeroes = flags&wire.FlagNoZeroes != 0
	h.fixed = flags&wire.FlagFixedNewstyle != 0
	return nil
}

// option reads one option and prepares its answers.
func (h *handshake) option(ctx context.Context) error {
	head, err := h.read(wire.OptHeaderSize)
	if err != nil {
		return err
	}
	magic := binary.BigEndian.Uint64(head)
	opt := binary.BigEndian.Uint32(head[8:])
	n := binary.BigEndian.Uint32(head[12:])
	switch {
	case magic != wire.OptMagic:
		return fmt.Errorf("nbd: option with magic %#x instead of %#x", magic, wire.OptMagic)
	case opt == wire.OptExportName && h.needsTLS(opt):
		return errors.New("nbd: NBD_OPT_EXPORT_NAME of a client without TLS, which is required")
	case n > maxSkip, n > maxOptionData && opt == wire.OptExportName:
		return fmt.Errorf("nbd: option %d with %d bytes of data, more than any option has", opt, n)
	case n > maxOptionData:
		if _, err := io.CopyN(io.Discard, h.nc, int64(n)); err != nil {
			return fmt.Errorf("nbd: skip %d bytes of option %d: %w", n, opt, err)
		}
		if h.known(opt) && !h.needsTLS(opt) {
			h.refuse(opt, wire.RepErrTooBig, fmt.Sprintf("%d bytes of data, at most %d are taken", n, maxOptionData))
			return nil
		}
		n = 0
	}
	data, err := h.read(int(n))
	if err != nil {
		return err
	}
	return h.answer(ctx, opt, data)
}

func (h *handshake) known(opt uint32) bool {
	switch opt {
	case wire.OptStartTLS:
		return h.tls.Mode != TLSOff
	case wire.OptExportName, wire.OptAbort, wire.OptList, wire.OptInfo, wire.OptGo, wire.OptStructuredReply,
		wire.OptListMetaContext, wire.OptSetMetaContext, wire.OptExtendedHeaders:
		return true
	}
	return false
}

// answer is "Option types".
func (h *handshake) answer(ctx context.Context, opt uint32, data []byte) error {
	if h.needsTLS(opt) {
		h.refuse(opt, wire.RepErrTLSReqd, "this server wants TLS: ask for it with NBD_OPT_STARTTLS")
		return nil
	}
	switch opt {
	case wire.OptStartTLS:
		return h.startTLS(ctx, data)
	case wire.OptExportName:
		return h.exportName(ctx, string(data))
	case wire.OptAbort:
		h.reply(opt, wire.RepAck, nil)
		return errGoodbye
	case wire.OptList:
		h.list(data)
	case wire.OptInfo, wire.OptGo:
		h.choose(ctx, opt, data)
	case wire.OptListMetaContext:
		h.listMeta(data)
	case wire.OptSetMetaContext:
		h.setMeta(data)
	case wire.OptStructuredReply:
		if h.terms.extended {
			h.refuse(opt, wire.RepErrExtHeader, "extended headers are negotiated, which go beyond that")
			return nil
		}
		h.terms.structured = h.agree(opt, data) || h.terms.structured
	case wire.OptExtendedHeaders:
		h.terms.extended = h.agree(opt, data) || h.terms.extended
		h.terms.structured = h.terms.structured || h.terms.extended
	default:
		h.refuse(opt, wire.RepErrUnsup, fmt.Sprintf("option %d is not supported", opt))
	}
	return nil
}

// agree is an option that turns something on, and has no data.
func (h *handshake) agree(opt uint32, data []byte) bool {
	if len(data) != 0 {
		h.refuse(opt, wire.RepErrInvalid, "the option takes no data")
		return false
	}
	h.reply(opt, wire.RepAck, nil)
	return true
}

func (h *handshake) reply(opt, kind uint32, data []byte) {
	h.out = wire.OptionReply(h.out, opt, kind, data)
}

func (h *handshake) refuse(opt, kind uint32, why string) { h.reply(opt, kind, []byte(why)) }
