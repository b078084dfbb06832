package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// A backend is one upstream server of the configuration. Down, it is gone:
// nothing listens and its connections are cut, as when a server crashes.
type backend struct {
	// Immutable.
	plan   BackendPlan
	spaces []*namespace
	tls    *tls.Config // nil = in the clear

	mu     sync.Mutex // guards server
	server *http.Server
	served sync.WaitGroup
}

// start listens again; a backend that is up is left alone.
func (b *backend) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		return nil
	}
	listeners, err := b.listen()
	if err != nil {
		return fmt.Errorf("backend %s: %w", b.plan.Address, err)
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler: http.HandlerFunc(b.answer), ReadHeaderTimeout: 5 * time.Second, Protocols: protocols,
		TLSConfig: b.tls, ErrorLog: log.New(io.Discard, "", 0), // checks hang up as they like
	}
	b.server = srv
	for _, l := range listeners {
		b.served.Add(1)
		go func() {
			defer b.served.Done()
			if b.tls != nil {
				srv.ServeTLS(l, "", "") // ends with stop
			} else {
				srv.Serve(l) // ends with stop
			}
		}()
	}
	return nil
}

// listen opens the address in each of its namespaces.
func (b *backend) listen() (out []net.Listener, err error) {
	for _, ns := range b.spaces {
		err := ns.do(func() error {
			l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", b.plan.Address.String())
			if err == nil {
				out = append(out, l)
			}
			return err
		})
		if err != nil {
			for _, l := range out {
				l.Close()
			}
			return nil, err
		}
	}
	return out, nil
}

func (b *backend) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Site", b.plan.Site)
	w.WriteHeader(b.plan.Status)
	if b.plan.Status == http.StatusNoContent || b.plan.Status == http.StatusNotModified {
		return
	}
	fmt.Fprintf(w, "site %s, service %s, backend %s, for %s\n%s",
		b.plan.Site, b.plan.Service, b.plan.Address, r.Header.Get("X-Forwarded-For"), b.plan.Body) // the caller may be gone
}

// stop cuts everything.
func (b *backend) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		b.server.Close()
		b.server = nil
		b.served.Wait()
	}
}

func (b *backend) up() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.server != nil
}

// An authority signs the certificates of the lab's backends. The nodes are
// told to trust it in place of the host's authorities, which nobody in the lab
// can reach anyway.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// authorityLife is how long its certificates are valid, before and after now:
// longer than the margins that checks ask for, and than clocks jump.
const authorityLife = 20 * 365 * 24 * time.Hour

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pharos lab"},
		NotBefore: time.Now().Add(-authorityLife), NotAfter: time.Now().Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err = x509.ParseCertificate(raw)
	return &authority{key, cert}, err
}

// write stores the authority's certificate for the nodes.
func (a *authority) write(path string) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o644)
}

// serve returns a server's side for a backend.
func (a *authority) serve(p BackendPlan) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: p.Address.String()},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{p.Address.Addr().AsSlice()},
	}
	for _, host := range p.Hosts {
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		cert.DNSNames = append(cert.DNSNames, host)
	}
	raw, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("certificate of backend %s", p.Address), err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}, nil
}
