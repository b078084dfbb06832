package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// maxMinValid is the longest validity that a check may ask of a certificate.
const maxMinValid = 366 * 24 * time.Hour

// validateTLS returns what is wrong with a TLS check.
func (c Check) validateTLS() []error { return c.validateNames() }

// secure reports whether c speaks TLS over TCP.
func (c *Check) secure() bool {
	return c.Kind == HTTPS || c.Kind == TLS || c.Kind == GRPC && c.GRPC.TLS
}

// open connects to the target, in TLS if the check is, offering the protocols of
// alpn. The connection ends with ctx, and with end. On an error there is none, and
// at says when it came.
func (p *prober) open(ctx context.Context, c *Check, alpn ...string) (conn net.Conn, end func(), at phase, err error) {
	conn, undo, err := connectBound(ctx, p.sourceOf(c.Target), c.Target.Addr)
	if err != nil {
		return nil, nil, connecting, err
	}
	plain := conn
	end = func() {
		undo()
		// Not the TLS connection, which would write an alert to a target that may
		// not be reading.
		plain.Close()
	}
	if !c.secure() {
		return conn, end, sending, nil
	}
	secure := tls.Client(conn, p.tlsConfig(c, alpn...))
	err = secure.HandshakeContext(ctx)
	if err == nil {
		err = c.checkExpiry(secure.ConnectionState(), time.Now())
	}
	if err != nil {
		end()
		return nil, nil, securing, err
	}
	return secure, end, sending, nil
}

// tlsConfig is what a check accepts in TLS.
func (p *prober) tlsConfig(c *Check, alpn ...string) *tls.Config {
	return &tls.Config{
		ServerName:         c.SNI,
		RootCAs:            p.roots,
		InsecureSkipVerify: c.Insecure,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         alpn,
	}
}

// checkExpiry returns a finding if the certificate will not do for MinValid more. A
// chain ends with the first of its certificates, and of several chains the
// longest-lived counts; unverified, only the target's own certificate does.
func (c *Check) checkExpiry(s tls.ConnectionState, now time.Time) error {
	if c.MinValid == 0 || c.Kind == GRPC || len(s.PeerCertificates) == 0 {
		return nil
	}
	ends := s.PeerCertificates[0].NotAfter
	if len(s.VerifiedChains) > 0 {
		ends = time.Time{}
	}
	for _, chain := range s.VerifiedChains {
		first := chain[0].NotAfter
		for _, cert := range chain[1:] {
			if cert.NotAfter.Before(first) {
				first = cert.NotAfter
			}
		}
		if first.After(ends) {
			ends = first
		}
	}
	left := ends.Sub(now)
	if left >= c.MinValid {
		return nil
	}
	if left <= 0 {
		return finding{fmt.Errorf("certificate expired %s ago, want %s left", span(-left), span(c.MinValid))}
	}
	return finding{fmt.Errorf("certificate expires in %s, want %s", span(left), span(c.MinValid))}
}

// span writes a duration in the largest unit of which there are two, rounded down.
func span(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}} {
		if d >= 2*unit.length {
			return fmt.Sprintf("%d %s", d/unit.length, unit.name)
		}
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}
