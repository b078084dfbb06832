package l7

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward/l7/cert"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
)

// secure is the TLS part of a listener with a certificate for each set of names.
func secure(ca *certtest.CA, names ...string) *TLS {
	t := &TLS{}
	for i, n := range names {
		c, k := ca.Write(fmt.Sprintf("server%d", i), certtest.Leaf{Names: strings.Fields(n)})
		t.Certificates = append(t.Certificates, cert.File{Certificate: c, Key: k})
	}
	return t
}

// startTLS runs a Server with one listener that terminates TLS.
func startTLS(t *testing.T, opts *TLS, members ...netip.AddrPort) *fixture {
	t.Helper()
	return start(t, Options{Listeners: []Listener{{Routes: anyRoute, TLS: opts}}}, members...)
}

// shake opens a TLS connection to addr.
func shake(addr string, config *tls.Config) (*tls.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	conn := tls.Client(c, config)
	if err := conn.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	return conn, nil
}

// get sends a request on a TLS connection and reads the answer; in TLS 1.3 only
// that shows whether the server took the client's certificate.
func get(c *tls.Conn) (string, error) {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestTLSRequests(t *testing.T) {
	ca := certtest.New(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	backend := webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/big":
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			w.Write(big)
		case "/echo":
			b, _ := io.ReadAll(r.Body) // net/http does not echo on the way
			w.Write(b)
		default:
			fmt.Fprint(w, r.Header.Get("X-Forwarded-Proto"), " ", r.Header.Get("X-Forwarded-Host"))
		}
	})
	f := startTLS(t, secure(ca, "a.test"), backend)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			c := client(t)
			c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test", MaxVersion: version}
			url := "https://" + f.addr
			read := func(res *http.Response, err error) string {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				b, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			for range 3 {
				if got, want := read(c.Get(url+"/")), "https "+f.addr; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if got := read(c.Get(url + "/big")); got != string(big) {
					t.Errorf("big answer has %d bytes and differs", len(got))
				}
				for _, n := range []int{1, 1000, 16 << 10, 16<<10 + 1, len(big)} {
					if got := read(c.Post(url+"/echo", "text/plain", bytes.NewReader(big[:n]))); got != string(big[:n]) {
						t.Errorf("echo of %d bytes gave %d", n, len(got))
					}
					// Of unknown length, so chunked.
					if got := read(c.Post(url+"/echo", "text/plain", io.MultiReader(bytes.NewReader(big[:n])))); got != string(big[:n]) {
						t.Errorf("chunked echo of %d bytes gave %d", n, len(got))
					}
				}
			}
		})
	}
	if s := f.Stats(); s.Accepted > 2 {
		t.Errorf("%d connections were accepted, want 2 that are kept", s.Accepted)
	}
}

// TestTLSPipelined sends many requests in one record: what one read leaves in the
// TLS connection is found by the next.
func TestTLSPipelined(t *testing.T) {
	ca := certtest.New(t)
	f := startTLS(t, secure(ca, "a.test"), webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d;", r.URL.Path, len(b))
	}))
	c, err := shake(f.addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var requests, want strings.Builder
	for i := range 200 {
		body := strings.Repeat("x", i*7)
		fmt.Fprintf(&requests, "POST /%d HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body)
		fmt.Fprintf(&want, "/%d %d;", i, len(body))
	}
	go io.WriteString(c, requests.String()+"GET /end HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Builder{}
	for part := range strings.SplitSeq(string(all), "\r\n\r\n") {
		if i := strings.Index(part, "HTTP/1.1"); i > 0 {
			got.WriteString(part[:i])
		} else if i < 0 {
			got.WriteString(part)
		}
	}
	if want := want.String() + "/end 0;"; got.String() != want {
		t.Errorf("got %.200q…, want %.200q…", got.String(), want)
	}
}

func TestServerNames(t *testing.T) {
	ca := certtest.New(t)
	f := startTLS(t, secure(ca, "first.test", "a.test www.a.test", "*.a.test"), says(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	for name, want := range map[string]string{
		"a.test": "a.test", "www.a.test": "a.test", "WWW.A.test": "a.test", "x.a.test": "*.a.test",
		"y.x.a.test": "first.test", "other.test": "first.test", "": "first.test",
	} {
		c, err := shake(f.addr, &tls.Config{InsecureSkipVerify: true, ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("server name %q got the certificate of %s, want %s", name, got, want)
		}
		c.Close()
	}
}

// TestTicketsAcrossNodes resumes on one server a session that began on another.
func TestTicketsAcrossNodes(t *testing.T) {
	ca := certtest.New(t)
	opts := secure(ca, "a.test")
	backend := says(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	with := func(secrets ...string) *fixture {
		o := *opts
		for _, s := range secrets {
			o.TicketSecrets = append(o.TicketSecrets, []byte(s))
		}
		return startTLS(t, &o, backend)
	}
	one, same, rotated, other, alone := with("k1"), with("k1"), with("k2", "k1"), with("k3"), with()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{
			RootCAs: ca.Pool(), ServerName: "a.test", MaxVersion: version,
			ClientSessionCache: tls.NewLRUClientSessionCache(1),
		}
		visit := func(f *fixture) bool {
			t.Helper()
			c, err := shake(f.addr, config)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := get(c); err != nil {
				t.Fatal(err)
			}
			return c.ConnectionState().DidResume
		}
		for _, step := range []struct {
			name string
			at   *fixture
			want bool
		}{
			{"first", one, false},
			{"again", one, true},
			{"a node with the secret", same, true},
			{"a node whose ring has rotated", rotated, true},
			{"back, with a newer secret's ticket", one, false},
			{"a node with another secret", other, false},
			{"a node with none", alone, false},
			{"that one again", alone, true},
		} {
			if got := visit(step.at); got != step.want {
				t.Errorf("%s, %s: resumed %v, want %v", tls.VersionName(version), step.name, got, step.want)
			}
		}
	}
	if s := one.Stats().Handshakes; s[handshakeResumed] != 2 || s[handshakeFull] != 4 {
		t.Errorf("handshakes are %v", s)
	}
}

func TestClientCertificates(t *testing.T) {
	ca, foreign := certtest.New(t), certtest.New(t)
	good, bad := ca.Pair(certtest.Leaf{Names: []string{"good"}, Client: true}), ca.Pair(certtest.Leaf{Names: []string{"bad"}, Client: true})
	stranger := foreign.Pair(certtest.Leaf{Client: true})
	crl := ca.Revoke("crl.pem", bad.Leaf)
	backend := says(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	for _, optional := range []bool{false, true} {
		opts := secure(ca, "a.test")
		opts.Clients, opts.Optional = &cert.ClientFiles{CA: ca.PEM, CRL: []string{crl}}, optional
		f := startTLS(t, opts, backend)
		for name, try := range map[string]struct {
			pairs []tls.Certificate
			want  bool
		}{
			"good": {[]tls.Certificate{good}, true}, "revoked": {[]tls.Certificate{bad}, false},
			"foreign": {[]tls.Certificate{stranger}, false}, "none": {nil, optional},
		} {
			config := &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"}
			if len(try.pairs) > 0 { // whatever authorities the server names
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &try.pairs[0], nil }
			}
			c, err := shake(f.addr, config)
			answer := ""
			if err == nil {
				answer, err = get(c)
				c.Close()
			}
			if ok := err == nil && strings.HasPrefix(answer, "HTTP/1.1 200"); ok != try.want {
				t.Errorf("optional %v, %s: served %v (%v), want %v", optional, name, ok, err, try.want)
			}
		}
	}
}

// TestRevokedResumption: a session that began before its certificate was revoked is
// not resumed after.
func TestRevokedResumption(t *testing.T) {
	ca := certtest.New(t)
	pair := ca.Pair(certtest.Leaf{Names: []string{"c"}, Client: true})
	crl := ca.Revoke("crl.pem")
	opts := secure(ca, "a.test")
	opts.Clients = &cert.ClientFiles{CA: ca.PEM, CRL: []string{crl}}
	f := startTLS(t, opts, says(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	config := &tls.Config{
		RootCAs: ca.Pool(), ServerName: "a.test", Certificates: []tls.Certificate{pair},
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
	visit := func() error {
		c, err := shake(f.addr, config)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = get(c)
		return err
	}
	for range 2 {
		if err := visit(); err != nil {
			t.Fatal(err)
		}
	}
	ca.Revoke("crl.pem", pair.Leaf)
	(*f.terminators.Load())[0].tend(f.Server, time.Now())
	if err := visit(); err == nil {
		t.Error("a revoked certificate's session was resumed")
	}
}

func TestCertificateSwap(t *testing.T) {
	ca := certtest.New(t)
	opts := secure(ca, "a.test")
	f := startTLS(t, opts, says(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	serial := func() string {
		t.Helper()
		c, err := shake(f.addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	terminator := (*f.terminators.Load())[0]
	first := serial()

	// A key that does not fit: the old pair goes on, whole.
	file := opts.Certificates[0]
	chain, key := ca.Issue(certtest.Leaf{Names: []string{"a.test"}})
	write(t, file.Certificate, chain)
	terminator.tend(f.Server, time.Now())
	if got := serial(); got != first {
		t.Error("half a change was swapped in")
	}
	if c := f.Certificates()[0]; c.Error == "" || f.Stats().RefusedCertificates != 1 {
		t.Errorf("state is %+v after a bad change", c)
	}
	write(t, file.Key, key)
	terminator.tend(f.Server, time.Now())
	if got := serial(); got == first {
		t.Error("the new pair is not served")
	}
	if c := f.Certificates()[0]; c.Error != "" {
		t.Errorf("state is %+v after a good change", c)
	}
	// Gone altogether: served on.
	os.Remove(file.Certificate)
	terminator.tend(f.Server, time.Now())
	serial()
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestExpired: an expired certificate is for clients to refuse.
func TestExpired(t *testing.T) {
	ca := certtest.New(t)
	c, k := ca.Write("old", certtest.Leaf{Names: []string{"a.test"}, NotAfter: time.Now().Add(-time.Hour)})
	f := startTLS(t, &TLS{Certificates: []cert.File{{Certificate: c, Key: k}}}, says(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	conn, err := shake(f.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if until := f.Certificates()[0].NotAfter; time.Until(until) > 0 {
		t.Errorf("NotAfter is %v", until)
	}
}

// TestTLSRefused: what is not TLS, or too old, costs the one connection.
func TestTLSRefused(t *testing.T) {
	ca := certtest.New(t)
	opts := secure(ca, "a.test")
	opts.MinVersion = tls.VersionTLS13
	f := startTLS(t, opts, says(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	w := dial(t, f.addr)
	w.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	io.Copy(io.Discard, w)
	if _, err := shake(f.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 was spoken")
	}
	until(t, "two failed handshakes", func() bool { return f.Stats().Handshakes[handshakeFailed] == 2 })
	for _, bad := range []*TLS{{}, {Certificates: []cert.File{{Certificate: "/nowhere.pem", Key: "/nowhere.key"}}}, {MinVersion: 1, Certificates: opts.Certificates}} {
		if _, err := f.Prepare([]Listener{{Address: netip.MustParseAddrPort("127.0.0.1:0"), Routes: anyRoute, TLS: bad}}); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// TestTLSClientLeaves: a backend's work is broken off when its client has gone.
func TestTLSClientLeaves(t *testing.T) {
	ca := certtest.New(t)
	left := make(chan struct{})
	f := startTLS(t, secure(ca, "a.test"), webBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(left)
	}))
	c, err := shake(f.addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	until(t, "the request at the backend", func() bool { return f.registry.Snapshot()[1].InFlight == 1 })
	c.Close()
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("the backend was left working")
	}
}

// TestTLSCut: an answer that breaks off must not look whole.
func TestTLSCut(t *testing.T) {
	ca := certtest.New(t)
	f := startTLS(t, secure(ca, "a.test"), says(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf!"))
	c, err := shake(f.addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := get(c); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("got %q and error %v, want one that is not the end", got, err)
	}
}
