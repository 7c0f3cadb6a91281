package iscsi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/lockstep-storage/lockstep/block"
	"github.com/lockstep-storage/lockstep/target"
	"github.com/lockstep-storage/lockstep/target/iscsi/internal/wire"
)

// A login is the first phase of a connection (6.3). It reads no byte beyond what
// it needs.
type login struct {
	c  *conn
	nc net.Conn

	led       bool // the first PDU has been read
	begun     bool // the leading request has been, in whole
	stage     byte
	isid      [6]byte
	cid       uint16
	itt       uint32
	initiator string
	discovery bool
	target    *tgt
	who       *Initiator // what is asked of it; nil in discovery
	auth      chap
	method    string // of authentication, once chosen
	proved    bool   // authentication is through, or not needed
	told      bool   // our MaxRecvDataSegmentLength is declared
	seen      map[string]bool

	terms  terms
	text   []byte // of a request that goes on in the next PDU
	statSN uint32
	cmdSN  uint32
}

// A loginError ends a login with a status (11.13.5).
type loginError struct {
	status uint16
	why    string
}

func (e *loginError) Error() string { return fmt.Sprintf("login refused (%#04x): %s", e.status, e.why) }

func refuseLogin(status uint16, format string, args ...any) error {
	return &loginError{status, fmt.Sprintf(format, args...)}
}

// run goes on until the full feature phase begins. On error the initiator has
// been told, if it can be.
func (l *login) run(ctx context.Context) error {
	l.terms = defaultTerms()
	l.seen = make(map[string]bool)
	for {
		var h wire.Header
		data, err := l.read(&h)
		if err != nil {
			return err
		}
		done, answer, err := l.request(&h, data)
		if err == nil && !done.final {
			err = l.reply(&h, done, answer)
		}
		if err == nil && done.final {
			if err = l.c.join(ctx, l); err == nil {
				return l.reply(&h, done, answer)
			}
		}
		var no *loginError
		if errors.As(err, &no) {
			l.refuse(&h, no.status)
		}
		if err != nil {
			return err
		}
	}
}

// read takes one login request; anything else ends the connection (6.3).
func (l *login) read(h *wire.Header) ([]byte, error) {
	if _, err := io.ReadFull(l.nc, h[:]); err != nil {
		return nil, fmt.Errorf("iscsi: read a login request: %w", err)
	}
	n := h.DataLen()
	switch {
	case h.Opcode() != wire.OpLogin:
		return nil, fmt.Errorf("iscsi: opcode %#x before the login is through", h.Opcode())
	case h.AHSLen() > 0:
		return nil, fmt.Errorf("iscsi: login request with %d bytes of additional header", h.AHSLen())
	case n > 8<<10: // MaxRecvDataSegmentLength's default, which holds until the login is through
		return nil, fmt.Errorf("iscsi: login request with %d bytes of data, at most %d are taken", n, 8<<10)
	}
	data := make([]byte, n+wire.Pad(n))
	if _, err := io.ReadFull(l.nc, data); err != nil {
		return nil, fmt.Errorf("iscsi: read %d bytes of a login request: %w", n, err)
	}
	return data[:n], nil
}

// progress is how a login goes on after a request.
type progress struct {
	transit bool
	next    byte
	final   bool
}

func (l *login) request(h *wire.Header, data []byte) (p progress, answer []byte, err error) {
	flags := h.Flags()
	csg, nsg := flags>>2&3, flags&3
	transit, more := flags&wire.Transit != 0, flags&wire.Continue != 0
	if !l.begun {
		if err := l.lead(h, csg); err != nil {
			return p, nil, err
		}
	}
	switch {
	case l.itt != h.Get32(wire.ITT), l.isid != [6]byte(h[8:14]), l.cid != uint16(h[20])<<8|uint16(h[21]):
		return p, nil, refuseLogin(wire.InitiatorError, "a request of another login")
	case csg != l.stage:
		return p, nil, refuseLogin(wire.InitiatorError, "stage %d, the login is at %d", csg, l.stage)
	case transit && more:
		return p, nil, refuseLogin(wire.InitiatorError, "a request that goes on and ends the stage")
	case transit && (nsg <= csg || nsg == 2):
		return p, nil, refuseLogin(wire.InitiatorError, "from stage %d to %d", csg, nsg)
	case len(l.text)+len(data) > wire.MaxText:
		return p, nil, refuseLogin(wire.InitiatorError, "more than %d bytes of text", wire.MaxText)
	}
	l.text = append(l.text, data...)
	if more {
		return p, nil, nil
	}
	pairs, err := wire.ParseText(l.text)
	l.text = nil
	if err != nil {
		return p, nil, refuseLogin(wire.InitiatorError, "%v", err)
	}
	keys := make(map[string]string, len(pairs))
	for _, k := range pairs {
		keys[k.Key] = k.Value
	}
	var out []wire.Pair
	if !l.begun {
		if out, err = l.introduce(h, keys); err != nil {
			return p, nil, err
		}
		l.begun = true
	} else {
		for _, k := range pairs {
			if declared(k.Key) && k.Key != "InitiatorAlias" {
				return p, nil, refuseLogin(wire.InitiatorError, "%s after the leading request", k.Key)
			}
		}
	}
	switch csg {
	case wire.Security:
		var more []wire.Pair
		if more, err = l.security(pairs, keys, transit); err == nil {
			out = append(out, more...)
		}
	case wire.Operational:
		if l.who != nil && l.who.CHAP != nil && !l.proved {
			return p, nil, refuseLogin(wire.AuthFailure, "%s must authenticate itself", l.initiator)
		}
		var more []wire.Pair
		if more, err = l.operational(pairs); err == nil {
			out = append(out, more...)
		}
	}
	if err != nil {
		return p, nil, err
	}
	if transit && (csg == wire.Operational || l.proved) {
		p = progress{transit: true, next: nsg, final: nsg == wire.FullFeature}
		l.stage = nsg
		clear(l.seen)
	}
	return p, appendPairs(nil, out), nil
}

// lead takes in what the first PDU of a login says.
func (l *login) lead(h *wire.Header, csg byte) error {
	if l.led {
		return nil // the first request goes on
	}
	l.led = true
	l.itt = h.Get32(wire.ITT)
	l.isid = [6]byte(h[8:14])
	l.cid = uint16(h[20])<<8 | uint16(h[21])
	l.cmdSN = h.Get32(wire.CmdSN)
	l.stage = csg
	if h[3] > 0 { // version-min; there is version 0 alone
		return refuseLogin(wire.BadVersion, "version %d at least", h[3])
	}
	if csg != wire.Security && csg != wire.Operational {
		return refuseLogin(wire.InitiatorError, "a login that begins at stage %d", csg)
	}
	return nil
}

// introduce is the leading request: who wants to log in, and where.
func (l *login) introduce(h *wire.Header, keys map[string]string) ([]wire.Pair, error) {
	l.initiator = keys["InitiatorName"]
	switch {
	case l.initiator == "":
		return nil, refuseLogin(wire.MissingParameter, "no InitiatorName")
	case len(l.initiator) > maxName:
		return nil, refuseLogin(wire.InitiatorError, "an InitiatorName of %d bytes", len(l.initiator))
	}
	l.c.log = l.c.log.With("initiator", l.initiator)
	tsih := uint16(h[14])<<8 | uint16(h[15])
	switch keys["SessionType"] {
	case "Discovery":
		l.discovery, l.proved = true, true
		if tsih != 0 {
			return nil, refuseLogin(wire.NoSession, "TSIH %d in a discovery session", tsih)
		}
		return nil, nil
	case "", "Normal":
	default:
		return nil, refuseLogin(wire.BadSessionType, "SessionType %.40q", keys["SessionType"])
	}
	name := keys["TargetName"]
	if name == "" {
		return nil, refuseLogin(wire.MissingParameter, "no TargetName")
	}
	s := l.c.srv
	s.mu.Lock()
	t := s.targets[strings.ToLower(name)]
	known := false
	for c := range s.conns {
		known = known || tsih != 0 && c.tsih == tsih && c.initiator == l.initiator && c.target == t
	}
	s.mu.Unlock()
	if t == nil {
		return nil, refuseLogin(wire.NotFound, "no target %.80q", name)
	}
	l.c.log = l.c.log.With("target", t.name)
	if l.who = t.admits(l.initiator); l.who == nil {
		return nil, refuseLogin(wire.Forbidden, "%s may not use %s", l.initiator, t.name)
	}
	l.target = t
	l.proved = l.who.CHAP == nil
	switch {
	case tsih != 0 && known:
		return nil, refuseLogin(wire.TooManyConns, "a second connection of session %d", tsih)
	case tsih != 0:
		return nil, refuseLogin(wire.NoSession, "no session %d", tsih)
	}
	return []wire.Pair{{Key: "TargetPortalGroupTag", Value: fmt.Sprint(portalGroup)}}, nil
}

// security is the stage of authentication.
func (l *login) security(pairs []wire.Pair, keys map[string]string, transit bool) ([]wire.Pair, error) {
	var out []wire.Pair
	for _, k := range pairs {
		switch k.Key {
		case "AuthMethod":
			if l.method != "" {
				return nil, refuseLogin(wire.InitiatorError, "AuthMethod a second time")
			}
			if l.proved {
				l.method = choose(k.Value, "None")
			} else {
				l.method = choose(k.Value, "CHAP")
			}
			if l.method == reject {
				return nil, refuseLogin(wire.AuthFailure, "none of %.80q is what is asked of %s", k.Value, l.initiator)
			}
			out = append(out, wire.Pair{Key: "AuthMethod", Value: l.method})
		case "CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C":
			if l.method != "CHAP" {
				return nil, refuseLogin(wire.InitiatorError, "%s before CHAP is agreed on", k.Key)
			}
		default:
			if declared(k.Key) {
				continue
			}
			answer, ok := l.answer(k)
			if ok {
				out = append(out, wire.Pair{Key: k.Key, Value: answer})
			}
		}
	}
	if l.method == "CHAP" {
		_, a := keys["CHAP_A"]
		_, r := keys["CHAP_R"]
		var more []wire.Pair
		var err error
		switch {
		case a && l.auth.hash == nil:
			l.auth.who = l.who
			more, err = l.auth.begin(keys["CHAP_A"])
		case r && l.auth.hash != nil && !l.proved:
			if more, err = l.auth.check(keys); err == nil {
				l.proved = true
			}
		case a || r:
			err = fmt.Errorf("%w: out of turn", errCHAP)
		}
		if err != nil {
			return nil, refuseLogin(wire.AuthFailure, "%v", err)
		}
		out = append(out, more...)
	}
	if transit && !l.proved && l.method != "CHAP" { // of which the next step may come yet
		return nil, refuseLogin(wire.AuthFailure, "%s must authenticate itself", l.initiator)
	}
	return out, nil
}

// operational is the stage in which a session's terms are agreed on.
func (l *login) operational(pairs []wire.Pair) ([]wire.Pair, error) {
	var out []wire.Pair
	for _, k := range pairs {
		if declared(k.Key) {
			continue
		}
		if l.seen[k.Key] {
			return nil, refuseLogin(wire.InitiatorError, "%s is negotiated a second time", k.Key)
		}
		l.seen[k.Key] = true
		if answer, ok := l.answer(k); ok {
			out = append(out, wire.Pair{Key: k.Key, Value: answer})
		}
	}
	if !l.told {
		l.told = true
		out = append(out, wire.Pair{Key: "MaxRecvDataSegmentLength", Value: fmt.Sprint(recvSegment)})
	}
	return out, nil
}

func (l *login) answer(k wire.Pair) (string, bool) {
	switch k.Key {
	case "AuthMethod", "SendTargets", "TargetPortalGroupTag", "TargetAlias", "TargetAddress":
		return reject, true
	}
	if k.Value == notUnderstood || k.Value == irrelevant || k.Value == reject {
		return "", false // an answer to nothing that was asked
	}
	return l.terms.operational(k.Key, k.Value, l.discovery)
}

func (l *login) reply(h *wire.Header, p progress, text []byte) error {
	r := l.header(h)
	r[1] = h.Flags() & 0x0c
	if p.transit {
		r[1] |= wire.Transit | p.next
	}
	if p.final {
		r[14], r[15] = byte(l.c.tsih>>8), byte(l.c.tsih)
	}
	r.SetDataLen(len(text))
	b := append(r[:], text...)
	b = append(b, make([]byte, wire.Pad(len(text)))...)
	l.statSN++
	if _, err := l.nc.Write(b); err != nil {
		return fmt.Errorf("iscsi: send a login response: %w", err)
	}
	return nil
}

func (l *login) refuse(h *wire.Header, status uint16) {
	r := l.header(h)
	r[36], r[37] = byte(status>>8), byte(status)
	l.nc.Write(r[:]) // the connection ends, whether it got there or not
}

func (l *login) header(h *wire.Header) *wire.Header {
	var r wire.Header
	r.SetOpcode(wire.OpLoginR)
	copy(r[8:16], h[8:16])
	r.Put32(wire.ITT, h.Get32(wire.ITT))
	r.Put32(wire.StatSN, l.statSN)
	r.Put32(wire.ExpCmdSN, l.cmdSN)
	r.Put32(wire.MaxCmdSN, l.cmdSN+uint32(l.c.srv.opt.MaxCommands)-1)
	return &r
}

// statusOf says with which status an error to attach ends a login.
func statusOf(err error) uint16 {
	switch {
	case errors.Is(err, target.ErrTooManySessions):
		return wire.OutOfResources
	case errors.Is(err, target.ErrUnknownExport), errors.Is(err, target.ErrRemoved):
		return wire.NotFound
	case errors.Is(err, block.ErrNotServing):
		return wire.Unavailable
	}
	return wire.TargetError
}
