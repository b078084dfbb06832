package node

import (
	"crypto/tls"

	"github.com/pharos-lb/pharos/forward/l7"
	"github.com/pharos-lb/pharos/forward/l7/cert"
	"github.com/pharos-lb/pharos/internal/config"
)

// tls translates the TLS part of a listener; nil without one.
func (s *Setup) tls(t *config.TLSListener) *l7.TLS {
	if t == nil {
		return nil
	}
	out := &l7.TLS{NoStaple: !t.Staple, MinVersion: tls.VersionTLS12, TicketSecrets: s.gossipKeys()}
	if t.MinVersion == "1.3" {
		out.MinVersion = tls.VersionTLS13
	}
	for _, c := range t.Certificates {
		out.Certificates = append(out.Certificates, cert.File(c))
	}
	if t.TicketKey.IsSet() {
		out.TicketSecrets = [][]byte{[]byte(t.TicketKey.Reveal())}
	}
	if c := t.Client; c != nil {
		out.Optional = c.Optional
		out.Clients = &cert.ClientFiles{CA: c.CA, CRL: c.CRL}
		switch c.OCSP {
		case "try":
			out.Clients.OCSP = cert.CheckTry
		case "require":
			out.Clients.OCSP = cert.CheckRequire
		}
	}
	return out
}
