package probe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"
)

const day = 24 * time.Hour

// authority signs certificates for tests.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority returns an authority whose own certificate ends after validFor.
func newAuthority(t testing.TB, validFor time.Duration) *authority {
	a := &authority{t: t}
	own := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(validFor),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.cert, a.key = own.Leaf, own.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// sign completes and signs a certificate, by itself if there is no authority yet.
func (a *authority) sign(c *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now().Add(-1000 * day)
	}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// leaf returns a certificate for www.example.com and 127.0.0.1 that ends after validFor.
func (a *authority) leaf(validFor time.Duration) tls.Certificate {
	return a.sign(&x509.Certificate{
		DNSNames: []string{"www.example.com"}, IPAddresses: []net.IP{{127, 0, 0, 1}},
		NotAfter: time.Now().Add(validFor), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// roots returns the pool that trusts a.
func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// shake answers connections with a TLS handshake and then waits for the other
// side to go.
func shake(c *tls.Config) func(net.Conn) {
	return func(conn net.Conn) {
		secure := tls.Server(conn, c)
		if secure.Handshake() == nil {
			secure.Read(make([]byte, 1))
		}
	}
}

func TestProbeCertificates(t *testing.T) {
	long, short := newAuthority(t, 1000*day), newAuthority(t, 5*day+time.Hour)
	for _, tt := range []struct {
		name  string
		by    *authority // who signs
		trust *authority // whom the probe trusts
		valid time.Duration
		check Check
		want  string
	}{
		{"good", long, long, 90 * day, Check{}, ""},
		{"good by name", long, long, 90 * day, Check{SNI: "www.example.com"}, ""},
		{"wrong name", long, long, 90 * day, Check{SNI: "example.org"}, "certificate: not valid for example.org"},
		{"unknown authority", long, short, 90 * day, Check{}, "certificate: signed by an unknown authority"},
		{"expired", long, long, -day, Check{}, "certificate: expired or not yet valid"},
		{"margin kept", long, long, 15 * day, Check{MinValid: 14 * day}, ""},
		{"margin broken", long, long, 3*day + time.Hour, Check{MinValid: 14 * day}, "certificate expires in 3 days, want 14 days"},
		{"margin broken by hours", long, long, 5*time.Hour + time.Minute, Check{MinValid: 14 * day}, "certificate expires in 5 hours, want 14 days"},
		{"the authority ends first", short, short, 90 * day, Check{MinValid: 14 * day}, "certificate expires in 5 days, want 14 days"},
		{"insecure", long, short, -day, Check{Insecure: true, SNI: "example.org"}, ""},
		{"insecure with a margin", long, short, 90 * day, Check{Insecure: true, MinValid: 14 * day}, ""},
		{"insecure, expired, with a margin", long, short, -3*day - time.Hour, Check{Insecure: true, MinValid: 14 * day}, "certificate expired 3 days ago, want 14 days left"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := &tls.Config{Certificates: []tls.Certificate{tt.by.leaf(tt.valid)}}
			tt.check.Target, tt.check.Kind = target(serve(t, shake(server)).String()), TLS
			p := &prober{roots: tt.trust.roots()}
			if got := run(t, p, tt.check); got.Err != tt.want || got.Inconclusive {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
		})
	}
}

func TestProbeHandshakes(t *testing.T) {
	good := newAuthority(t, 1000*day)
	config := func(edit func(*tls.Config)) func(net.Conn) {
		c := &tls.Config{Certificates: []tls.Certificate{good.leaf(day)}}
		edit(c)
		return shake(c)
	}
	for _, tt := range []struct {
		name   string
		handle func(net.Conn)
		want   string
	}{
		{"tls 1.2", config(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), ""},
		{"tls 1.1", config(func(c *tls.Config) { c.MaxVersion, c.MinVersion = tls.VersionTLS11, tls.VersionTLS10 }), "TLS refused by the target: tls: protocol version not supported"},
		{"not tls", func(c net.Conn) { c.Write([]byte("220 mail.example.com ESMTP\r\n")); c.Read(make([]byte, 1<<10)) }, "not TLS: the target speaks something else"},
		{"closed", func(c net.Conn) { c.Read(make([]byte, 1<<16)) }, "connection closed in the TLS handshake"},
		{"silent", func(c net.Conn) {
			for b := make([]byte, 1<<10); ; {
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		}, "timeout after 200ms in the TLS handshake"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Check{Target: target(serve(t, tt.handle).String()), Kind: TLS, Timeout: 5 * time.Second}
			if tt.name == "silent" {
				c.Timeout = 200 * time.Millisecond
			}
			if got := run(t, &prober{roots: good.roots()}, c); got.Err != tt.want {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
		})
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 seconds", 119 * time.Second: "119 seconds", 2 * time.Minute: "2 minutes", 119 * time.Minute: "119 minutes",
		2 * time.Hour: "2 hours", 47 * time.Hour: "47 hours", 48 * time.Hour: "2 days", 365 * day: "365 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}
