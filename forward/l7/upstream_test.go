package l7

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
)

// A counted is a backend that counts the connections to it.
type counted struct {
	addr netip.AddrPort
	open atomic.Int64 // ever
}

// protocolBackend serves handler by net/http in a protocol until the test ends. config is for
// the protocols with TLS.
func protocolBackend(t testing.TB, p forward.Protocol, config *tls.Config, handler http.HandlerFunc) *counted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	server := &http.Server{
		Handler: handler, Protocols: new(http.Protocols),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				c.open.Add(1)
			}
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	server.Protocols.SetHTTP1(p == forward.HTTP1 || p == forward.HTTP1TLS)
	server.Protocols.SetHTTP2(p == forward.H2)
	server.Protocols.SetUnencryptedHTTP2(p == forward.H2C)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if p == forward.HTTP1TLS || p == forward.H2 {
			server.TLSConfig = config.Clone()
			server.ServeTLS(l, "", "")
			return
		}
		server.Serve(l)
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return c
}

func serverTLS(ca *certtest.CA, leaf certtest.Leaf) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{ca.Pair(leaf)}}
}

var everyProtocol = []forward.Protocol{forward.HTTP1, forward.HTTP1TLS, forward.H2, forward.H2C}

// transportTo is how to speak p to a backend whose certificate is of ca and for 127.0.0.1.
func transportTo(p forward.Protocol, ca *certtest.CA) forward.Transport {
	t := forward.Transport{Protocol: p}
	if t.TLS() {
		t.CA = ca.PEM
	}
	return t
}

// TestUpstreams asks the same of backends of every protocol, for clients of HTTP/1 and HTTP/2, many at a time.
func TestUpstreams(t *testing.T) {
	ca := certtest.New(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	handler := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/big":
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			w.Write(big)
		case "/stream": // of unknown length, with a trailer
			w.Header().Set("Trailer", "X-Sum")
			for i := 0; i < len(big); i += 1000 {
				w.Write(big[i:min(i+1000, len(big))])
			}
			w.Header().Set("X-Sum", "all")
		case "/echo":
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
			w.Header().Set("Trailer", "X-Sum")
			w.Write(b)
			w.Header().Set("X-Sum", r.Trailer.Get("X-Sum"))
		case "/early":
			w.Header().Set("Link", "</style.css>")
			w.WriteHeader(103)
			w.Header().Del("Link")
			fmt.Fprint(w, "late")
		case "/empty":
			w.WriteHeader(204)
		case "/zero":
		case "/same":
			w.WriteHeader(304)
		case "/fail":
			w.WriteHeader(500)
			fmt.Fprint(w, "broken")
		default:
			fmt.Fprint(w, r.Proto, " ", r.TLS != nil, " ", r.Host, " ", strings.Join(r.Header["Cookie"], "|"), " ", r.Header.Get("Te"),
				" ", r.Header.Get("X-Forwarded-For"), " ", r.Header.Get("X-Forwarded-Proto"), " ", r.RequestURI)
		}
	}
	for _, p := range everyProtocol {
		backend := protocolBackend(t, p, serverTLS(ca, certtest.Leaf{}), handler)
		f := startVia(t, transportTo(p, ca), Options{}, backend.addr)
		for name, c := range map[string]*http.Client{"h1": client(t), "h2c": client2(t)} {
			t.Run(fmt.Sprint(name, " to ", p), func(t *testing.T) {
				url := "http://" + f.addr
				res, err := c.Get(url + "/") // one connection for what follows
				slurp(t, res, err)
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						req, _ := http.NewRequest("GET", url+"/a?b=c", nil)
						req.Header["Cookie"] = []string{"a=1; b=2"}
						req.Header.Set("Te", "trailers")
						res, err := c.Do(req)
						version := "HTTP/1.1"
						if p == forward.H2 || p == forward.H2C {
							version = "HTTP/2.0"
						}
						tls := p == forward.HTTP1TLS || p == forward.H2
						want := fmt.Sprint(version, " ", tls, " ", req.Host, " a=1; b=2 trailers 127.0.0.1 http /a?b=c")
						if got := slurp(t, res, err); got != want {
							t.Errorf("got %q, want %q", got, want)
						}
						res, err = c.Get(url + "/big")
						if got := slurp(t, res, err); got != string(big) || res.ContentLength != int64(len(big)) {
							t.Errorf("/big has %d bytes and differs, or says %d", len(got), res.ContentLength)
						}
						res, err = c.Get(url + "/stream")
						if got := slurp(t, res, err); got != string(big) || res.Trailer.Get("X-Sum") != "all" {
							t.Errorf("/stream has %d bytes and differs, or has trailer %q", len(got), res.Trailer)
						}
						for _, n := range []int{0, 1, 16 << 10, 16<<10 + 1, len(big)} {
							res, err := c.Post(url+"/echo", "text/plain", bytes.NewReader(big[:n]))
							if got := slurp(t, res, err); got != string(big[:n]) || res.Header.Get("X-Length") != fmt.Sprint(n) {
								t.Errorf("echo of %d bytes gave %d, of length %s", n, len(got), res.Header.Get("X-Length"))
							}
							req, _ := http.NewRequest("POST", url+"/echo", io.MultiReader(bytes.NewReader(big[:n])))
							req.Trailer = http.Header{"X-Sum": {fmt.Sprint("sum", n)}}
							res, err = c.Do(req)
							if got := slurp(t, res, err); got != string(big[:n]) || res.Trailer.Get("X-Sum") != fmt.Sprint("sum", n) {
								t.Errorf("echo of %d bytes of unknown length gave %d with trailer %q", n, len(got), res.Trailer)
							}
						}
						for path, want := range map[string]string{"/early": "200 late", "/empty": "204 ", "/zero": "200 ", "/same": "304 ", "/fail": "500 broken"} {
							res, err = c.Get(url + path)
							if got := slurp(t, res, err); fmt.Sprint(res.StatusCode, " ", got) != want {
								t.Errorf("%s: got %d %q, want %s", path, res.StatusCode, got, want)
							}
						}
						res, err = c.Head(url + "/big")
						if slurp(t, res, err); res.ContentLength != int64(len(big)) {
							t.Errorf("HEAD says %d bytes", res.ContentLength)
						}
					})
				}
				wg.Wait()
			})
		}
		if n := backend.open.Load(); (p == forward.H2 || p == forward.H2C) && n > 2 {
			t.Errorf("%s: %d connections for what one carries", p, n)
		}
		f.stop()
	}
}

// TestBackendTLS: who cannot be verified gets no request, and is told of.
func TestBackendTLS(t *testing.T) {
	ca, other := certtest.New(t), certtest.New(t)
	ours, key := ca.Write("ours", certtest.Leaf{Client: true, Names: []string{"pharos"}})
	handler := func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].DNSNames[0]
		}
		fmt.Fprint(w, r.TLS.ServerName, "|", name)
	}
	plain := serverTLS(ca, certtest.Leaf{})
	named := serverTLS(ca, certtest.Leaf{Names: []string{"web.test"}})
	mutual := plain.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	old := plain.Clone()
	old.MaxVersion = tls.VersionTLS12
	expired := serverTLS(ca, certtest.Leaf{NotAfter: time.Now().Add(-time.Hour)})
	const unproven = `502 no backend of service "web" could be verified`
	for _, tt := range []struct {
		name      string
		config    *tls.Config
		transport forward.Transport
		want      string
	}{
		{"by address", plain, forward.Transport{CA: ca.PEM}, "200 |"},
		{"by name", named, forward.Transport{CA: ca.PEM, Name: "web.test"}, "200 web.test|"},
		{"wrong name", named, forward.Transport{CA: ca.PEM, Name: "other.test"}, unproven},
		{"no name", named, forward.Transport{CA: ca.PEM}, unproven},
		{"another authority", plain, forward.Transport{CA: other.PEM}, unproven},
		{"the system's authorities", plain, forward.Transport{}, unproven},
		{"expired", expired, forward.Transport{CA: ca.PEM}, unproven},
		{"not verified", expired, forward.Transport{Insecure: true}, "200 |"},
		{"not verified, with a name", named, forward.Transport{Insecure: true, Name: "x.test"}, "200 x.test|"},
		{"client certificate", mutual, forward.Transport{CA: ca.PEM, Certificate: ours, Key: key}, "200 |pharos"},
		{"client certificate missing", mutual, forward.Transport{CA: ca.PEM}, "502"},
		{"too old", old, forward.Transport{CA: ca.PEM, TLS13: true}, "502"},
		{"old enough", old, forward.Transport{CA: ca.PEM}, "200 |"},
	} {
		for _, p := range []forward.Protocol{forward.HTTP1TLS, forward.H2} {
			t.Run(fmt.Sprint(tt.name, " ", p), func(t *testing.T) {
				tt.transport.Protocol = p
				backend := protocolBackend(t, p, tt.config, handler)
				f := startVia(t, tt.transport, Options{}, backend.addr)
				res, err := client(t).Get("http://" + f.addr + "/")
				got := strings.TrimSpace(fmt.Sprint(res.StatusCode, " ", slurp(t, res, err)))
				if got != tt.want && !(tt.want == "502" && strings.HasPrefix(got, "502 ")) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				failed := strings.HasPrefix(tt.want, "502")
				if bad, good := f.told.counts(); failed && (bad == 0 || good > 0) || !failed && bad > 0 {
					t.Errorf("%d failures and %d successes were told", bad, good)
				}
				f.stop()
			})
		}
	}
}

// TestUnprovenIsLogged: why there is no TLS with a backend is in the log, once for many requests.
func TestUnprovenIsLogged(t *testing.T) {
	ca := certtest.New(t)
	backend := protocolBackend(t, forward.HTTP1TLS, serverTLS(ca, certtest.Leaf{}), func(http.ResponseWriter, *http.Request) {})
	var log bytes.Buffer
	f := startVia(t, forward.Transport{Protocol: forward.HTTP1TLS, CA: ca.PEM, Name: "other.test"},
		Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, backend.addr)
	for range 3 {
		res, err := client(t).Get("http://" + f.addr + "/")
		slurp(t, res, err)
	}
	f.stop()
	if said := log.String(); strings.Count(said, "no TLS with a backend") != 1 || !strings.Contains(said, "other.test") {
		t.Errorf("the log says %q", said)
	}
}

// TestNoALPN: a backend that does not agree to h2 is no backend of HTTP/2.
func TestNoALPN(t *testing.T) {
	ca := certtest.New(t)
	backend := protocolBackend(t, forward.HTTP1TLS, serverTLS(ca, certtest.Leaf{}), func(w http.ResponseWriter, _ *http.Request) {})
	f := startVia(t, transportTo(forward.H2, ca), Options{}, backend.addr)
	res, err := client(t).Get("http://" + f.addr + "/")
	if slurp(t, res, err); res.StatusCode != 502 {
		t.Errorf("got %d", res.StatusCode)
	}
}

// TestUnreadFiles: what cannot be read is refused when it is configured, and changes nothing.
func TestUnreadFiles(t *testing.T) {
	ca := certtest.New(t)
	empty := ca.Dir + "/empty.pem"
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := start(t, Options{}, named(t, "web"))
	for _, tt := range []forward.Transport{
		{Protocol: forward.H2, CA: ca.Dir + "/none.pem"},
		{Protocol: forward.HTTP1TLS, CA: empty},
		{Protocol: forward.HTTP1TLS, Certificate: ca.PEM, Key: ca.PEM},
	} {
		l := []Listener{{Address: f.Addrs()[0], Routes: anyRoute, Transports: []forward.Transport{tt}}}
		if _, err := f.Prepare(l); err == nil {
			t.Errorf("%+v was taken", tt)
		}
	}
	res, err := client(t).Get("http://" + f.addr + "/")
	if got := slurp(t, res, err); got != "web" {
		t.Errorf("got %q", got)
	}
}

// TestTransportChanges: a connection that was made in another way is never used again, and what it carries ends in order.
func TestTransportChanges(t *testing.T) {
	ca := certtest.New(t)
	release := make(chan struct{})
	answer := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.(http.Flusher).Flush()
			<-release
		}
		fmt.Fprint(w, r.Proto, " ", r.TLS != nil && len(r.TLS.PeerCertificates) > 0)
	}
	config := serverTLS(ca, certtest.Leaf{})
	config.ClientAuth = tls.RequestClientCert
	cert, key := ca.Write("ours", certtest.Leaf{Client: true})
	for _, p := range []forward.Protocol{forward.HTTP1TLS, forward.H2} {
		release = make(chan struct{})
		backend := protocolBackend(t, p, config, answer)
		without, with := transportTo(p, ca), transportTo(p, ca)
		with.Certificate, with.Key = cert, key
		f := startVia(t, without, Options{Listeners: []Listener{{Routes: anyRoute, Transports: []forward.Transport{with}}}}, backend.addr)
		get := func(path string) string {
			res, err := client(t).Get("http://" + f.addr + path)
			return slurp(t, res, err)
		}
		if got := get("/"); !strings.HasSuffix(got, "false") {
			t.Fatalf("%s: got %s", p, got)
		}
		slow, err := client(t).Get("http://" + f.addr + "/slow")
		if err != nil {
			t.Fatal(err)
		}
		f.pools.transport = with
		f.pools.publish(backend.addr)
		if got := get("/"); !strings.HasSuffix(got, "true") {
			t.Errorf("%s: got %s after the change", p, got)
		}
		close(release)
		if got := slurp(t, slow, nil); !strings.HasSuffix(got, "false") {
			t.Errorf("%s: the open request got %s", p, got)
		}
		if got := get("/"); !strings.HasSuffix(got, "true") {
			t.Errorf("%s: got %s on what the open request had used", p, got)
		}
		f.stop()
	}
}

// TestBackendFilesSwap: a changed file counts for what is opened from then on; one that cannot be used is refused.
func TestBackendFilesSwap(t *testing.T) {
	ca, other := certtest.New(t), certtest.New(t)
	backend := protocolBackend(t, forward.H2, serverTLS(other, certtest.Leaf{}), func(http.ResponseWriter, *http.Request) {})
	f := startVia(t, transportTo(forward.H2, ca), Options{}, backend.addr)
	status := func() int {
		res, err := client(t).Get("http://" + f.addr + "/")
		slurp(t, res, err)
		return res.StatusCode
	}
	if got := status(); got != 502 {
		t.Fatalf("got %d", got)
	}
	pem, err := os.ReadFile(other.PEM)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		if err := os.WriteFile(ca.PEM+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(ca.PEM+".new", ca.PEM); err != nil {
			t.Fatal(err)
		}
	}
	write(pem)
	until(t, "the new authority counts", func() bool { return status() == 200 })
	refused := f.metrics.certificates.Load()
	write([]byte("garbage"))
	until(t, "it is refused", func() bool { return f.metrics.certificates.Load() > refused })
	if got := status(); got != 200 {
		t.Errorf("got %d after a bad file", got)
	}
}

// TestSharedLimits: as many streams as the backend allows, then another connection; none fails.
func TestSharedLimits(t *testing.T) {
	release := make(chan struct{})
	var open, most atomic.Int64
	backend := protocolBackend(t, forward.H2C, nil, func(w http.ResponseWriter, _ *http.Request) {
		if n := open.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-release
		open.Add(-1)
	})
	f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{}, backend.addr)
	c := client2(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	const requests = 600
	for range requests {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+f.addr+"/", nil)
			res, err := c.Do(req)
			if slurp(t, res, err); res.StatusCode != 200 {
				t.Errorf("got %d", res.StatusCode)
			}
		})
	}
	until(t, "all are at the backend", func() bool { return open.Load() == requests || t.Failed() })
	close(release)
	wg.Wait()
	if n := backend.open.Load(); n < 2 || n > 6 {
		t.Errorf("%d connections for %d requests where each carries 250", n, requests)
	}
}

func (t *told) counts() (bad, good int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, ok := range t.all {
		if ok {
			good++
		} else {
			bad++
		}
	}
	return bad, good
}
