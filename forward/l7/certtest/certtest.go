// Package certtest makes certificate authorities and certificates for tests, as
// files. Tests of package l7, of those under it and of the whole program call it; nothing else does.
//
//	ca := certtest.New(t)
//	file := ca.File(certtest.Leaf{Names: []string{"www.test"}})
package certtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

var serial atomic.Int64

// A CA is an authority whose files are in a folder of the test's.
type CA struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
	PEM         string // file with the certificate
	Dir         string
	t           testing.TB
}

// A Leaf says what certificate to make. The zero value is for 127.0.0.1.
type Leaf struct {
	Names    []string
	Client   bool
	NotAfter time.Time // zero = in a day
	OCSP     string    // responder; "" = none
}

// New makes an authority.
func New(t testing.TB) *CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	ca := &CA{Key: key, Dir: t.TempDir(), t: t}
	ca.Certificate, err = x509.ParseCertificate(der)
	check(t, err)
	ca.PEM = filepath.Join(ca.Dir, "ca.pem")
	check(t, os.WriteFile(ca.PEM, block("CERTIFICATE", der), 0o600))
	return ca
}

// Issue returns a certificate and its key in PEM, with the authority's behind it.
func (ca *CA) Issue(leaf Leaf) (chain, key []byte) {
	ca.t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(ca.t, err)
	if leaf.NotAfter.IsZero() {
		leaf.NotAfter = time.Now().Add(24 * time.Hour)
	}
	usage := x509.ExtKeyUsageServerAuth
	if leaf.Client {
		usage = x509.ExtKeyUsageClientAuth
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), NotBefore: time.Now().Add(-36 * time.Hour), NotAfter: leaf.NotAfter,
		DNSNames: leaf.Names, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	if len(leaf.Names) == 0 {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	if leaf.OCSP != "" {
		template.OCSPServer = []string{leaf.OCSP}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, signer.Public(), ca.Key)
	check(ca.t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(signer)
	check(ca.t, err)
	return append(block("CERTIFICATE", der), block("CERTIFICATE", ca.Certificate.Raw)...), block("PRIVATE KEY", pkcs8)
}

// Write makes a certificate and writes it to the files name.pem and name.key.
func (ca *CA) Write(name string, leaf Leaf) (certificate, key string) {
	ca.t.Helper()
	chain, private := ca.Issue(leaf)
	certificate, key = filepath.Join(ca.Dir, name+".pem"), filepath.Join(ca.Dir, name+".key")
	check(ca.t, os.WriteFile(certificate, chain, 0o600))
	check(ca.t, os.WriteFile(key, private, 0o600))
	return certificate, key
}

// Pair makes a certificate for a TLS configuration.
func (ca *CA) Pair(leaf Leaf) tls.Certificate {
	ca.t.Helper()
	pair, err := tls.X509KeyPair(ca.Issue(leaf))
	check(ca.t, err)
	return pair
}

// Revoke writes a revocation list with the certificates to a file.
func (ca *CA) Revoke(file string, certificates ...*x509.Certificate) string {
	ca.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(serial.Add(1)), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range certificates {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Certificate, ca.Key)
	check(ca.t, err)
	file = filepath.Join(ca.Dir, file)
	check(ca.t, os.WriteFile(file, block("X509 CRL", der), 0o600))
	return file
}

// Pool returns the authority as a pool.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	return pool
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
