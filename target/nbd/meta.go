package nbd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// The one metadata context that there is ("base:allocation metadata context"),
// and the id under which it is selected.
const (
	allocationName        = "base:allocation"
	allocationID   uint32 = 1
)

// maxQueries is how many queries one option may have.
const maxQueries = 64

// metaSelection is what NBD_OPT_SET_META_CONTEXT selected last.
type metaSelection struct {
	export     string // its own name, also if it was asked for as the default
	allocation bool
}

// listMeta is NBD_OPT_LIST_META_CONTEXT: without queries it lists all contexts,
// and "base:" stands for all of that namespace.
func (h *handshake) listMeta(data []byte) {
	_, queries, ok := h.parseMeta(wire.OptListMetaContext, data)
	if !ok {
		return
	}
	found := len(queries) == 0
	for _, q := range queries {
		found = found || string(q) == "base:" || string(q) == allocationName
	}
	if found {
		h.metaContext(wire.OptListMetaContext, 0)
	}
	h.reply(wire.OptListMetaContext, wire.RepAck, nil)
}

// setMeta is NBD_OPT_SET_META_CONTEXT. Whatever was selected before is no more,
// also if it fails. A wildcard selects nothing.
func (h *handshake) setMeta(data []byte) {
	h.meta = metaSelection{}
	export, queries, ok := h.parseMeta(wire.OptSetMetaContext, data)
	if !ok {
		return
	}
	h.meta.export = export
	for _, q := range queries {
		h.meta.allocation = h.meta.allocation || string(q) == allocationName
	}
	if h.meta.allocation {
		h.metaContext(wire.OptSetMetaContext, allocationID)
	}
	h.reply(wire.OptSetMetaContext, wire.RepAck, nil)
}

// metaContext is "NBD_REP_META_CONTEXT".
func (h *handshake) metaContext(opt, id uint32) {
	h.reply(opt, wire.RepMeta, append(binary.BigEndian.AppendUint32(nil, id), allocationName...))
}

// parseMeta judges what both options have in common, and refuses it if need be.
// Queries of namespaces that are not known, and unknown names of those that are,
// stay in: they find nothing.
func (h *handshake) parseMeta(opt uint32, data []byte) (export string, queries [][]byte, ok bool) {
	no := func(kind uint32, format string, args ...any) (string, [][]byte, bool) {
		h.refuse(opt, kind, fmt.Sprintf(format, args...))
		return "", nil, false
	}
	if !h.terms.structured {
		return no(wire.RepErrInvalid, "structured replies have to be negotiated first")
	}
	name, n, rest, ok := wire.ParseMetaData(data)
	if !ok || uint64(n)*4 > uint64(len(rest)) {
		return no(wire.RepErrInvalid, "the lengths within the option do not add up")
	}
	if n > maxQueries {
		return no(wire.RepErrTooBig, "%d queries, at most %d are taken", n, maxQueries)
	}
	for range n {
		var q []byte
		if q, rest, ok = wire.NextString(rest); !ok {
			return no(wire.RepErrInvalid, "the lengths within the option do not add up")
		}
		if len(q) > wire.MaxString {
			return no(wire.RepErrTooBig, "a query of %d bytes, at most %d are taken", len(q), wire.MaxString)
		}
		if bytes.IndexByte(q, ':') < 1 || bytes.IndexByte(q, 0) >= 0 || !utf8.Valid(q) {
			return no(wire.RepErrInvalid, "query %q does not begin with a namespace and a colon, or is no text", q)
		}
		queries = append(queries, q)
	}
	if len(rest) > 0 {
		return no(wire.RepErrInvalid, "%d bytes follow the queries", len(rest))
	}
	e, err := h.lookup(string(name))
	if err != nil {
		return no(refusalOf(err), "%v", err)
	}
	return e.Name, queries, true
}
