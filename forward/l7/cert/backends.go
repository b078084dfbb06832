package cert

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// BackendFiles say how backends are verified, and what they are shown.
type BackendFiles struct {
	// CA is a PEM file with the authorities; "" = the system's.
	CA string
	// Certificate and Key are PEM files of the client certificate; "" = none.
	Certificate, Key string
}

// A Backends is the TLS side of connections to backends. Any number of goroutines may use it.
type Backends struct {
	// Immutable.
	files BackendFiles

	material atomic.Pointer[backendMaterial]

	mu   sync.Mutex // guards seen
	seen string
}

// backendMaterial is what the files say. Immutable.
type backendMaterial struct {
	pool        *x509.CertPool // nil = the system's
	certificate *tls.Certificate
}

// OpenBackends reads the files; all mistakes are returned at once.
func OpenBackends(files BackendFiles) (*Backends, error) {
	b := &Backends{files: files}
	b.seen = files.look()
	m, err := files.load()
	if err != nil {
		return nil, err
	}
	b.material.Store(m)
	return b, nil
}

func (f BackendFiles) look() string {
	return File{Certificate: f.CA, Key: f.Certificate, OCSP: f.Key}.look()
}

func (f BackendFiles) load() (*backendMaterial, error) {
	m := new(backendMaterial)
	var errs []error
	if f.CA != "" {
		pool, err := loadPool(f.CA)
		if err != nil {
			errs = append(errs, fmt.Errorf("backend CA: %w", err))
		}
		m.pool = pool
	}
	if f.Certificate != "" {
		p, err := load(File{Certificate: f.Certificate, Key: f.Key})
		if err != nil {
			errs = append(errs, fmt.Errorf("certificate for backends: %w", err))
		} else {
			m.certificate = &p.certificate
		}
	}
	return m, errors.Join(errs...)
}

// loadPool reads the certificates of a PEM file.
func loadPool(name string) (*x509.CertPool, error) {
	data, err := read(name)
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		pool.AddCert(ca)
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: no certificate in it", name)
	}
	return pool, nil
}

// Tend looks at the files and swaps what has changed; on an error the old goes on.
func (b *Backends) Tend() (swapped bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	look := b.files.look()
	if look == b.seen {
		return false, nil
	}
	b.seen = look
	m, err := b.files.load()
	if err != nil {
		return false, err
	}
	b.material.Store(m)
	return true, nil
}

// Config returns a configuration for connections to one backend.
func (b *Backends) Config() *tls.Config {
	m := b.material.Load()
	c := &tls.Config{RootCAs: m.pool, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	if m.certificate != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.certificate, nil }
	}
	return c
}
