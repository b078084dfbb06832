package cert_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward/l7/cert"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"golang.org/x/crypto/ocsp"
)

// responder answers for ca with a status; −1 answers rubbish. asked counts.
func responder(t *testing.T, ca *certtest.CA) (url string, status *atomic.Int64, asked *atomic.Int64) {
	t.Helper()
	status, asked = new(atomic.Int64), new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		body, _ := io.ReadAll(r.Body)
		req, err := ocsp.ParseRequest(body)
		if err != nil || status.Load() < 0 {
			w.Write([]byte("rubbish"))
			return
		}
		der, _ := ocsp.CreateResponse(ca.Certificate, ca.Certificate, ocsp.Response{
			Status: int(status.Load()), SerialNumber: req.SerialNumber,
			ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		}, ca.Key)
		w.Write(der)
	}))
	t.Cleanup(server.Close)
	return server.URL, status, asked
}

// TestStaple: only a good answer is stapled, one that has run out no longer is, and
// neither costs the certificate.
func TestStaple(t *testing.T) {
	ca := certtest.New(t)
	url, status, _ := responder(t, ca)
	c, k := ca.Write("a", certtest.Leaf{Names: []string{"a.test"}, OCSP: url})
	stapler := cert.NewStapler()
	store, err := cert.Open([]cert.File{{Certificate: c, Key: k}}, stapler)
	if err != nil {
		t.Fatal(err)
	}
	stapled := func() bool {
		t.Helper()
		got, err := store.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.test"})
		if err != nil {
			t.Fatal(err)
		}
		return len(got.OCSPStaple) > 0
	}
	now := time.Now()
	if stapled() {
		t.Error("stapled before anything was fetched")
	}
	for i, bad := range []int64{-1, ocsp.Revoked, ocsp.Unknown} {
		status.Store(bad)
		now = now.Add(10 * time.Minute)
		if err := stapler.Fetch(context.Background(), now); err == nil {
			t.Errorf("status %d was taken", bad)
		}
		if store.Tend(now); stapled() || stapler.Failures() != uint64(i+1) {
			t.Errorf("status %d: stapled %v, %d failures", bad, stapled(), stapler.Failures())
		}
	}
	status.Store(ocsp.Good)
	now = now.Add(10 * time.Minute)
	if err := stapler.Fetch(context.Background(), now); err != nil {
		t.Fatal(err)
	}
	if store.Tend(now); !stapled() || store.States()[0].StapleUntil.IsZero() {
		t.Error("a good answer is not stapled")
	}
	if again, err := cert.Open([]cert.File{{Certificate: c, Key: k}}, stapler); err != nil || again.States()[0].StapleUntil.IsZero() {
		t.Errorf("a reload lost the answer: %v", err)
	}
	now = now.Add(2 * time.Hour)
	if store.Tend(now); stapled() {
		t.Error("an answer that has run out is stapled on")
	}
}

// TestStapleWithoutIssuer: a file without its chain cannot be asked about, which is
// said and counted instead of passed over.
func TestStapleWithoutIssuer(t *testing.T) {
	ca := certtest.New(t)
	url, _, asked := responder(t, ca)
	c, k := ca.Write("a", certtest.Leaf{Names: []string{"a.test"}, OCSP: url})
	whole, err := os.ReadFile(c)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := pem.Decode(whole)
	if err := os.WriteFile(c, pem.EncodeToMemory(leaf), 0o600); err != nil {
		t.Fatal(err)
	}
	stapler := cert.NewStapler()
	if _, err := cert.Open([]cert.File{{Certificate: c, Key: k}}, stapler); err != nil {
		t.Fatal(err)
	}
	err = stapler.Fetch(context.Background(), time.Now())
	if err == nil || !strings.Contains(err.Error(), "no issuer") || !strings.Contains(err.Error(), c) {
		t.Errorf("said %v", err)
	}
	if stapler.Failures() != 1 || asked.Load() != 0 {
		t.Errorf("%d failures, asked %d times", stapler.Failures(), asked.Load())
	}
}

// TestStapleFile: a file with another certificate's answer is an error.
func TestStapleFile(t *testing.T) {
	ca := certtest.New(t)
	c, k := ca.Write("a", certtest.Leaf{Names: []string{"a.test"}})
	pair, err := tls.LoadX509KeyPair(c, k)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	other := ca.Pair(certtest.Leaf{}).Leaf
	for _, tt := range []struct {
		about *x509.Certificate
		ok    bool
	}{{leaf, true}, {other, false}} {
		der, err := ocsp.CreateResponse(ca.Certificate, ca.Certificate, ocsp.Response{
			Status: ocsp.Good, SerialNumber: tt.about.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		}, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(ca.Dir, "staple.der")
		if err := os.WriteFile(file, der, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Open([]cert.File{{Certificate: c, Key: k, OCSP: file}}, nil); (err == nil) != tt.ok {
			t.Errorf("answer about the certificate %v: %v", tt.ok, err)
		}
	}
}

// TestClientOCSP: what the issuer says about a client, remembered.
func TestClientOCSP(t *testing.T) {
	ca := certtest.New(t)
	for _, tt := range []struct {
		name   string
		check  cert.Check
		status int64
		ok     bool
		asked  int64
	}{
		{"nobody is asked", cert.CheckNone, ocsp.Revoked, true, 0},
		{"good", cert.CheckTry, ocsp.Good, true, 1},
		{"revoked", cert.CheckTry, ocsp.Revoked, false, 1},
		{"rubbish is let in", cert.CheckTry, -1, true, 1},
		{"rubbish is refused", cert.CheckRequire, -1, false, 1},
		{"required and good", cert.CheckRequire, ocsp.Good, true, 1},
	} {
		url, status, asked := responder(t, ca)
		status.Store(tt.status)
		clients, err := cert.OpenClients(cert.ClientFiles{CA: ca.PEM, OCSP: tt.check})
		if err != nil {
			t.Fatal(err)
		}
		leaf := ca.Pair(certtest.Leaf{Client: true, OCSP: url}).Leaf
		state := tls.ConnectionState{
			PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, ca.Certificate}},
		}
		for range 3 {
			if err := clients.Verify(state); (err == nil) != tt.ok {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if n := asked.Load(); n != tt.asked {
			t.Errorf("%s: the responder was asked %d times", tt.name, n)
		}
	}
}

// TestKeys: nodes agree across an epoch, scopes do not.
func TestKeys(t *testing.T) {
	secrets := [][]byte{[]byte("one")}
	now := time.Unix(1_800_000_000, 0)
	keys := cert.Keys(secrets, nil, now)
	for _, off := range []time.Duration{-2 * cert.TicketLife, -cert.TicketLife, 0, cert.TicketLife} {
		if !slices.Contains(keys, cert.Keys(secrets, nil, now.Add(off))[0]) {
			t.Errorf("a ticket of a node whose clock is off by %v is not taken", off)
		}
	}
	for name, other := range map[string][]cert.TicketKey{
		"another secret": cert.Keys([][]byte{[]byte("two")}, nil, now), "another scope": cert.Keys(secrets, []byte{1}, now),
		"long ago": cert.Keys(secrets, nil, now.Add(-4*cert.TicketLife)),
	} {
		if slices.Contains(keys, other[0]) {
			t.Errorf("%s makes the same key", name)
		}
	}
	if seen := map[cert.TicketKey]bool{}; true {
		for _, k := range keys {
			if seen[k] {
				t.Error("two keys are the same")
			}
			seen[k] = true
		}
	}
}
