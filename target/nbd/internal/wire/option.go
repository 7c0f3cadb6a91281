package wire

// Option appends an option as the client sends it.
func Option(b []byte, option uint32, data []byte) []byte {
	b = be.AppendUint64(b, OptMagic)
	b = be.AppendUint32(b, option)
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// OptionReply appends the answer to an option as the server sends it.
func OptionReply(b []byte, option, reply uint32, data []byte) []byte {
	b = be.AppendUint64(b, ReplyMagic)
	b = be.AppendUint32(b, option)
	b = be.AppendUint32(b, reply)
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// GoData is the data of NBD_OPT_INFO and NBD_OPT_GO.
func GoData(name string, infos ...uint16) []byte {
	b := be.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = be.AppendUint16(b, uint16(len(infos)))
	for _, i := range infos {
		b = be.AppendUint16(b, i)
	}
	return b
}

// MetaData is the data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
func MetaData(export string, queries ...string) []byte {
	b := be.AppendUint32(nil, uint32(len(export)))
	b = append(b, export...)
	b = be.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = be.AppendUint32(b, uint32(len(q)))
		b = append(b, q...)
	}
	return b
}

// ParseMetaData takes the data of NBD_OPT_LIST_META_CONTEXT and
// NBD_OPT_SET_META_CONTEXT apart, up to the queries, which NextString gives.
func ParseMetaData(b []byte) (export []byte, n uint32, queries []byte, ok bool) {
	export, b, ok = NextString(b)
	if !ok || len(b) < 4 {
		return nil, 0, nil, false
	}
	return export, be.Uint32(b), b[4:], true
}

// NextString takes a string off b, which its length precedes.
func NextString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := uint64(be.Uint32(b))
	if n > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}

// ParseGoData takes the data of NBD_OPT_INFO and NBD_OPT_GO apart. infos is the
// list of information requests as it stands in b, two bytes each.
func ParseGoData(b []byte) (name, infos []byte, ok bool) {
	if len(b) < 6 {
		return nil, nil, false
	}
	n := be.Uint32(b)
	if uint64(n) > uint64(len(b)-6) {
		return nil, nil, false
	}
	name, rest := b[4:4+n], b[4+n:]
	infos = rest[2:]
	return name, infos, len(infos) == 2*int(be.Uint16(rest))
}
