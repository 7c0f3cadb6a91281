package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
)

// peerTLS has peers prove who they are, and hides what they tell each other: TLS 1.3,
// in which both show a certificate. The files are read for every connection, so new
// ones count without a restart.
type peerTLS struct {
	files TLSFiles
	node  string // this node
}

// A secureConn is a peer's connection that TLS protects.
type secureConn struct {
	*tls.Conn
	raw net.Conn
}

// Close closes the connection at once. That of package tls first waits, for seconds,
// to say that it does; the peer protocol has words of its own for that, and tells a
// connection that was cut from one that has ended.
func (c *secureConn) Close() error { return c.raw.Close() }

// proves fails unless the other side has proved to be that node.
func (c *secureConn) proves(node string) error {
	if names := c.ConnectionState().PeerCertificates[0].DNSNames; !slices.Contains(names, node) {
		return fmt.Errorf("it says that it is node %q, and its certificate is for %q", node, names)
	}
	return nil
}

// accept is the side that was dialled. Nothing is said, but for what TLS itself has to
// say, before the other has shown a certificate that a CA of ours gave to some node;
// which one, and whether it is the one that it claims to be, proves tells. The caller
// closes raw if it fails.
func (t *peerTLS) accept(ctx context.Context, raw net.Conn) (*secureConn, error) {
	id, err := t.files.load(t.node)
	if err != nil {
		return nil, err
	}
	c := id.config()
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, id.roots
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if leaf := cs.PeerCertificates[0]; len(leaf.DNSNames) == 0 { // an NBD client's
			return fmt.Errorf("its certificate is for no node (its subject is %q)", leaf.Subject)
		}
		return nil
	}
	return handshake(ctx, tls.Server(raw, c), raw)
}

// dial is the side that dials peer, to whom nothing is said before it has proved to be
// that node. The caller closes raw if it fails.
func (t *peerTLS) dial(ctx context.Context, raw net.Conn, peer string) (*secureConn, error) {
	id, err := t.files.load(t.node)
	if err != nil {
		return nil, err
	}
	c := id.config()
	// Not by package tls, for which a name is a host's, not a node's, to compare as
	// hosts' are, and to be told to whoever listens: VerifyConnection does it.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if _, err := verify(cs.PeerCertificates, id.roots, x509.ExtKeyUsageServerAuth); err != nil {
			return err
		}
		if names := cs.PeerCertificates[0].DNSNames; !slices.Contains(names, peer) {
			return fmt.Errorf("its certificate is for %q", names)
		}
		return nil
	}
	conn, err := handshake(ctx, tls.Client(raw, c), raw)
	if err != nil {
		return nil, fmt.Errorf("it did not prove to be node %q: %w", peer, err)
	}
	return conn, nil
}

func handshake(ctx context.Context, conn *tls.Conn, raw net.Conn) (*secureConn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return &secureConn{conn, raw}, nil
}

func (id identity) config() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.cert},
		SessionTicketsDisabled: true, // every connection proves anew
		// Latency of the first bytes is no concern, packets of a kilobyte are.
		DynamicRecordSizingDisabled: true,
	}
}
