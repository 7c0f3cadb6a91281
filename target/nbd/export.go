package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// exportName is NBD_OPT_EXPORT_NAME: it cannot be refused but by hanging up.
func (h *handshake) exportName(ctx context.Context, name string) error {
	if h.terms.extended {
		return errors.New("nbd: NBD_OPT_EXPORT_NAME of a client that negotiated extended headers")
	}
	session, err := h.open(ctx, name)
	if err != nil {
		return err
	}
	h.begin(session)
	h.out = binary.BigEndian.AppendUint64(h.out, uint64(session.Info.Size))
	h.out = binary.BigEndian.AppendUint16(h.out, transmissionFlags(session.Info, h.terms))
	if !h.noZeroes {
		h.out = append(h.out, make([]byte, wire.ExportNamePad)...)
	}
	return nil
}

// lookup finds an export that this client may open. Of another it says what it
// says of one that is not there.
func (h *handshake) lookup(name string) (target.Export, error) {
	e, err := h.exports.Lookup(name)
	if err == nil && h.admitted(e.Name) {
		return e, nil
	}
	if err == nil && !h.warned {
		h.warned = true
		h.log.Warn("a client asked for an export that it may not open", "client", h.secure.client(), "export", e.Name)
	}
	return target.Export{}, fmt.Errorf("nbd: export %q: %w", name, target.ErrUnknownExport)
}

// open attaches to an export that this client may open.
func (h *handshake) open(ctx context.Context, name string) (*target.Session, error) {
	e, err := h.lookup(name)
	if err != nil {
		return nil, err
	}
	return h.exports.Open(ctx, e.Name, h.revoked)
}

// begin ends the handshake with an export.
func (h *handshake) begin(s *target.Session) {
	h.session = s
	h.terms = h.termsFor(s.Export.Name)
}

// termsFor is what was negotiated if that export is chosen.
func (h *handshake) termsFor(export string) terms {
	t := h.terms
	t.status = h.meta.allocation && h.meta.export == export
	return t
}

// list is NBD_OPT_LIST: one answer for each export that is listed now.
func (h *handshake) list(data []byte) {
	if len(data) != 0 {
		h.refuse(wire.OptList, wire.RepErrInvalid, "the option takes no data")
		return
	}
	for _, e := range h.exports.List() {
		if e.Listed != nil && !e.Listed() || !h.admitted(e.Name) {
			continue
		}
		b := binary.BigEndian.AppendUint32(nil, uint32(len(e.Name)))
		b = append(b, e.Name...)
		h.reply(wire.OptList, wire.RepServer, append(b, e.Description...))
	}
	h.reply(wire.OptList, wire.RepAck, nil)
}

// choose is NBD_OPT_INFO and NBD_OPT_GO. GO attaches before it answers
// anything, so that what it tells is what the session has.
func (h *handshake) choose(ctx context.Context, opt uint32, data []byte) {
	name, infos, ok := wire.ParseGoData(data)
	if !ok {
		h.refuse(opt, wire.RepErrInvalid, "the lengths within the option do not add up")
		return
	}
	var (
		export target.Export
		info   block.Info
		err    error
	)
	if opt == wire.OptGo {
		var s *target.Session
		if s, err = h.open(ctx, string(name)); err == nil {
			export, info = s.Export, s.Info
			h.begin(s)
		}
	} else if export, err = h.lookup(string(name)); err == nil {
		info = export.Device.Info()
	}
	if err != nil {
		h.refuse(opt, refusalOf(err), err.Error())
		return
	}
	h.describe(opt, export, info, infos)
	h.reply(opt, wire.RepAck, nil)
}

// refusalOf says which of "Option reply types" an error to attach is.
func refusalOf(err error) uint32 {
	switch {
	case errors.Is(err, target.ErrTooManySessions):
		return wire.RepErrPolicy
	case errors.Is(err, target.ErrUnknownExport), errors.Is(err, target.ErrRemoved), errors.Is(err, block.ErrNotServing):
		return wire.RepErrUnknown
	}
	return wire.RepErrShutdown
}

// describe is "NBD_REP_INFO": the export's size and flags and its block sizes
// always, its name and description if they were asked for.
func (h *handshake) describe(opt uint32, e target.Export, info block.Info, asked []byte) {
	b := binary.BigEndian.AppendUint16(nil, wire.InfoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(info.Size))
	h.reply(opt, wire.RepInfo, binary.BigEndian.AppendUint16(b, transmissionFlags(info, h.termsFor(e.Name))))

	least, preferred, payload := blockSizes(info)
	b = binary.BigEndian.AppendUint16(b[:0], wire.InfoBlockSize)
	b = binary.BigEndian.AppendUint32(b, least)
	b = binary.BigEndian.AppendUint32(b, preferred)
	h.reply(opt, wire.RepInfo, binary.BigEndian.AppendUint32(b, payload))

	name, description := false, false
	for ; len(asked) > 0; asked = asked[2:] {
		switch binary.BigEndian.Uint16(asked) {
		case wire.InfoName:
			name = true
		case wire.InfoDescription:
			description = e.Description != ""
		}
	}
	if name {
		b = binary.BigEndian.AppendUint16(b[:0], wire.InfoName)
		h.reply(opt, wire.RepInfo, append(b, e.Name...))
	}
	if description {
		b = binary.BigEndian.AppendUint16(b[:0], wire.InfoDescription)
		h.reply(opt, wire.RepInfo, append(b, e.Description...))
	}
}
