package nbd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/lockstep-storage/lockstep/target/nbd/internal/wire"
)

// TLSMode says what becomes of clients without TLS.
type TLSMode int

const (
	// TLSOff refuses TLS (the protocol's NOTLS).
	TLSOff TLSMode = iota
	// TLSOptional serves clients with TLS and without alike (SELECTIVETLS, with
	// no export that requires it).
	TLSOptional
	// TLSRequired serves nobody who has not begun TLS (FORCEDTLS), but for
	// clients of unix sockets, who may choose: their bytes leave no host, and the
	// socket's mode says who may open it.
	TLSRequired
)

// TLS is how a server's clients prove who they are ("TLS").
type TLS struct {
	Mode TLSMode
	// Config gives the configuration for one connection. It is called for each
	// that asks for TLS, by several goroutines at once, so new keys count without
	// a restart. Its ClientAuth says whether clients have to show a certificate.
	// When it fails the client is refused, and the log has the reason. It is
	// needed unless Mode is TLSOff.
	Config func() (*tls.Config, error)
	// Admits says whether a client may open an export, by the certificate that it
	// has proved to be its own; it is nil if Config wanted none. What a client may
	// not open it does not see either. It is not asked about clients without
	// TLS. A nil Admits admits all. It is called by several goroutines at once.
	Admits func(client *x509.Certificate, export string) bool
}

// over is t for one connection.
func (t TLS) over(nc net.Conn) TLS {
	if t.Mode == TLSRequired && nc.LocalAddr().Network() == "unix" {
		t.Mode = TLSOptional
	}
	return t
}

// needsTLS reports whether the option is refused until TLS is there ("FORCEDTLS
// mode").
func (h *handshake) needsTLS(opt uint32) bool {
	return h.tls.Mode == TLSRequired && h.secure == nil && opt != wire.OptStartTLS && opt != wire.OptAbort
}

// startTLS is NBD_OPT_STARTTLS. Whatever was negotiated before is no more: who is in
// between may have said it.
func (h *handshake) startTLS(ctx context.Context, data []byte) error {
	const opt = wire.OptStartTLS
	switch {
	case h.tls.Mode == TLSOff:
		h.refuse(opt, wire.RepErrUnsup, "this server has no TLS")
		return nil
	case h.secure != nil:
		h.refuse(opt, wire.RepErrInvalid, "TLS is there already")
		return nil
	case !h.fixed:
		h.refuse(opt, wire.RepErrPolicy, "TLS needs the fixed newstyle handshake, which the client's flags lack")
		return nil
	case len(data) != 0:
		h.refuse(opt, wire.RepErrInvalid, "the option takes no data")
		return nil
	}
	config, err := h.tls.Config()
	if err != nil {
		h.log.Error("TLS can't be begun with a client", "error", err)
		h.refuse(opt, wire.RepErrPolicy, "the server's keys can't be used now, its log says why")
		return nil
	}
	h.reply(opt, wire.RepAck, nil)
	if err := h.send(); err != nil {
		return err
	}
	h.secure = &secureConn{tls.Server(h.nc, config), h.nc}
	h.nc = h.secure
	h.terms, h.meta = terms{}, metaSelection{}
	if err := h.secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("nbd: begin TLS: %w", err)
	}
	return nil
}

// admitted reports whether the client may open the export, and see it.
func (h *handshake) admitted(export string) bool {
	return h.secure == nil || h.tls.Admits == nil || h.tls.Admits(h.secure.certificate(), export)
}

// byeTime is how long a connection over TLS that ends waits for its client to have
// taken the last words.
const byeTime = time.Second

// A secureConn is a client's connection that TLS protects.
type secureConn struct {
	*tls.Conn
	raw net.Conn
}

// Close closes the connection at once. That of package tls may first wait, for seconds,
// for room to say that it does; see bye.
func (c *secureConn) Close() error { return c.raw.Close() }

// bye says that no more will come, and waits a moment until the client has closed its
// side: what it had still sent would reset the connection, and the last replies, or the
// alert that says why it was refused, would be lost. It does nothing without TLS. Nobody
// may be reading or writing.
func (c *secureConn) bye() {
	if c == nil {
		return
	}
	defer time.AfterFunc(byeTime, func() { c.raw.Close() }).Stop()
	c.raw.SetDeadline(time.Time{}) // that of a server that stops has passed
	c.CloseWrite()                 // fails before the end of TLS' handshake, which has had its alert
	if half, ok := c.raw.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		io.Copy(io.Discard, c.raw)
	}
}

// certificate is the client's, nil if it showed none.
func (c *secureConn) certificate() *x509.Certificate {
	if certs := c.ConnectionState().PeerCertificates; len(certs) > 0 {
		return certs[0]
	}
	return nil
}

// client is whose certificate it is, for the log.
func (c *secureConn) client() string {
	if cert := c.certificate(); cert != nil {
		return cert.Subject.CommonName
	}
	return "without a certificate"
}
