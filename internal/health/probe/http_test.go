package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/pharos-lb/pharos/internal/health"
)

// site is what the HTTP servers of these tests answer.
func site(w http.ResponseWriter, r *http.Request) {
	big := strings.Repeat("x", 1<<10)
	switch r.URL.Path {
	case "/echo":
		fmt.Fprintf(w, "%s %s %s %s|%s|%s|%s", r.Method, r.RequestURI, r.Proto, r.Host, r.UserAgent(), r.Header.Get("X-A"), r.Header.Get("Accept-Encoding"))
	case "/redirect":
		http.Redirect(w, r, "/nowhere", http.StatusFound)
	case "/busy":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "/weight":
		w.Header().Set("X-Load", "40%")
		fmt.Fprint(w, `{"load":{"free":60},"junk":"lots"}`)
	case "/hang":
		<-r.Context().Done()
	case "/trickle":
		for fmt.Fprint(w, big); r.Context().Err() == nil; time.Sleep(10 * time.Millisecond) {
			http.NewResponseController(w).Flush()
		}
	case "/flood":
		for {
			if _, err := io.WriteString(w, big); err != nil {
				return
			}
		}
	case "/headers":
		for i := range 80 {
			w.Header().Set(fmt.Sprint("X-", i), big)
		}
	case "/hints":
		for range 3 {
			w.WriteHeader(http.StatusEarlyHints)
		}
		fmt.Fprint(w, "ok")
	}
}

// serving is a server of one version of HTTP.
type serving struct {
	at    health.Target
	kind  Kind
	roots *x509.CertPool
}

// serveHTTP starts a server of the version, encrypted or not.
func serveHTTP(t testing.TB, version int, secure bool, handler http.HandlerFunc) serving {
	if version == 3 {
		return serveHTTP3(t, handler)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(server.Close)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(version == 1)
	server.Config.Protocols.SetHTTP2(version == 2)
	server.Config.Protocols.SetUnencryptedHTTP2(version == 2)
	if !secure {
		server.Start()
		return serving{target(server.Listener.Addr().String()), HTTP, nil}
	}
	by := newAuthority(t, 1000*day)
	server.EnableHTTP2 = version == 2
	server.TLS = &tls.Config{Certificates: []tls.Certificate{by.leaf(3*day + time.Hour)}}
	server.StartTLS()
	return serving{target(server.Listener.Addr().String()), HTTPS, by.roots()}
}

// serveHTTP3 starts a server of HTTP/3.
func serveHTTP3(t testing.TB, handler http.HandlerFunc) serving {
	by := newAuthority(t, 1000*day)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	server := &http3.Server{Handler: handler, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{by.leaf(3*day + time.Hour)}})}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(socket) }()
	t.Cleanup(func() { server.Close(); socket.Close(); <-done })
	return serving{target(socket.LocalAddr().String()), HTTPS, by.roots()}
}

// versions are the ways in which HTTP checks speak.
var versions = []struct {
	name    string
	version int
	secure  bool
}{{"http1", 1, false}, {"https1", 1, true}, {"h2c", 2, false}, {"h2", 2, true}, {"h3", 3, true}}

func TestProbeVersions(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			s := serveHTTP(t, v.version, v.secure, site)
			proto := map[int]string{1: "HTTP/1.1", 2: "HTTP/2.0", 3: "HTTP/3.0"}[v.version]
			short, tooLarge := 300*time.Millisecond, "headers larger than 64 KiB"
			if v.version == 2 {
				tooLarge = "HTTP/2 protocol error, or headers larger than 64 KiB"
			}
			for _, tt := range []struct {
				name  string
				check Check
				code  int
				want  string
			}{
				{"request", Check{
					Path: "/echo?q=%2f", Host: "www.example.com", Headers: []Header{{"x-a", "b"}}, Insecure: true,
					Body: "GET /echo?q=%2f " + proto + " www.example.com|pharos-check/1|b|",
				}, 200, ""},
				{"own agent", Check{Path: "/echo", Headers: []Header{{"user-agent", "me"}}, Body: "|me||"}, 200, ""},
				{"no compression", Check{Path: "/echo", BodyRegexp: `\|\|$`}, 200, ""},
				{"head", Check{Path: "/echo", Method: "HEAD"}, 200, ""},
				{"redirects are answers", Check{Path: "/redirect"}, 302, ""},
				{"status", Check{Path: "/busy"}, 503, "status 503, want 200-399"},
				{"weight from header", Check{Path: "/weight", WeightHeader: "x-load"}, 200, " 40"},
				{"weight from JSON", Check{Path: "/weight", WeightJSON: "load.free"}, 200, " 60"},
				{"header first", Check{Path: "/weight", WeightHeader: "x-load", WeightJSON: "load.free"}, 200, " 40"},
				{"then JSON", Check{Path: "/weight", WeightHeader: "x-none", WeightJSON: "load.free"}, 200, " 60"},
				{"nonsense weight", Check{Path: "/weight", WeightJSON: "junk"}, 200, ""},
				{"weight of no JSON", Check{Path: "/echo", WeightJSON: "junk"}, 200, ""},
				{"json", Check{Path: "/weight", JSON: []JSONMatch{{"load.free", "61"}}}, 200, `JSON $.load.free is "60", want "61"`},
				{"regexp", Check{Path: "/weight", BodyRegexp: "lots?.}$"}, 200, ""},
				{"early hints", Check{Path: "/hints", Body: "ok"}, 200, ""},
				{"endless body", Check{Path: "/flood", Body: "y"}, 200, `body does not contain "y" in its first 64 KiB`},
				{"hang", Check{Path: "/hang", Timeout: short}, 0, "timeout after 300ms waiting for headers"},
				{"trickle", Check{Path: "/trickle", Body: "y", Timeout: short}, 200, "timeout after 300ms reading the body"},
				{"headers", Check{Path: "/headers"}, 0, tooLarge},
			} {
				tt.check.Target, tt.check.Kind, tt.check.Version = s.at, s.kind, v.version
				got := run(t, &prober{roots: s.roots}, tt.check)
				want := Result{Err: tt.want, Code: tt.code}
				if weight, ok := strings.CutPrefix(tt.want, " "); ok {
					fmt.Sscan(weight, &want.Weight)
					want.Err, want.HasWeight = "", true
				}
				if got != want {
					t.Errorf("%s: got %+v, want %+v", tt.name, got, want)
				}
			}
		})
	}
}

// TestProbeWrongVersion: a target that speaks another version is told so.
func TestProbeWrongVersion(t *testing.T) {
	clear1, clear2 := serveHTTP(t, 1, false, site), serveHTTP(t, 2, false, site)
	tls1, tls2, quic := serveHTTP(t, 1, true, site), serveHTTP(t, 2, true, site), serveHTTP(t, 3, true, site)
	by := newAuthority(t, 1000*day)
	noALPN := serve(t, shake(&tls.Config{Certificates: []tls.Certificate{by.leaf(day)}}))
	// A server that closes without reading all may reset its own answer away.
	const reset = "connection reset waiting for headers"
	nobody, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	silent, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tt := range []struct {
		name    string
		at      serving
		version int
		check   Check
		want    string
	}{
		{"2 to 1", clear1, 2, Check{}, "not HTTP/2: the target speaks HTTP/1|" + reset},
		{"1 to 2", clear2, 1, Check{}, "not HTTP: |connection reset waiting for headers|connection closed waiting for headers"},
		{"2 to 1 in TLS", tls1, 2, Check{}, "TLS refused by the target: tls: no application protocol|the target does not speak HTTP/2"},
		{"2 to TLS without ALPN", serving{target(noALPN.String()), HTTPS, by.roots()}, 2, Check{}, "the target does not speak HTTP/2 (it chose another protocol in the TLS handshake)"},
		{"1 to 2 in TLS", tls2, 1, Check{}, "TLS refused by the target: tls: no application protocol|connection closed waiting for headers|connection reset waiting for headers"},
		{"3 to nobody", serving{at: target(nobody.LocalAddr().String()), kind: HTTPS}, 3, Check{}, "port unreachable"},
		{"3 to silence", serving{at: target(silent.LocalAddr().String()), kind: HTTPS}, 3, Check{Timeout: 200 * time.Millisecond}, "timeout after 200ms in the QUIC handshake"},
		{"3 with no trust", serving{at: quic.at, kind: HTTPS, roots: x509.NewCertPool()}, 3, Check{}, "certificate: signed by an unknown authority"},
		{"3 with a wrong name", quic, 3, Check{SNI: "example.org"}, "certificate: not valid for example.org"},
		{"3 with a margin", quic, 3, Check{MinValid: 14 * day}, "certificate expires in 3 days, want 14 days"},
		{"1 with a margin", tls1, 1, Check{MinValid: 14 * day}, "certificate expires in 3 days, want 14 days"},
		{"2 with a margin that is kept", tls2, 2, Check{MinValid: 3 * day}, ""},
	} {
		tt.check.Target, tt.check.Kind, tt.check.Version = tt.at.at, tt.at.kind, tt.version
		got := run(t, &prober{roots: tt.at.roots}, tt.check)
		matched := got.Err == tt.want
		for want := range strings.SplitSeq(tt.want, "|") {
			matched = matched || want != "" && strings.HasPrefix(got.Err, want)
		}
		if !matched || got.Inconclusive {
			t.Errorf("%s: got %+v, want %q", tt.name, got, tt.want)
		}
	}
}

// TestProbeVersionsFromSource: every version comes from the source address.
func TestProbeVersionsFromSource(t *testing.T) {
	from := netip.MustParseAddr("127.0.0.9")
	for _, v := range versions {
		s := serveHTTP(t, v.version, v.secure, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })
		p := &prober{roots: s.roots, source: func(health.Target) netip.Addr { return from }}
		if got := run(t, p, Check{Target: s.at, Kind: s.kind, Version: v.version, Body: "127.0.0.9:"}); !got.OK() {
			t.Errorf("%s: %+v", v.name, got)
		}
		p.source = func(health.Target) netip.Addr { return netip.MustParseAddr("192.0.2.1") }
		if got := run(t, p, Check{Target: s.at, Kind: s.kind, Version: v.version}); !got.Inconclusive {
			t.Errorf("%s from a foreign address: %+v", v.name, got)
		}
	}
}

// TestProbeTooLate: a probe that ends long after its deadline, or finds then what it
// waited for, says that this node was slow, and nothing about the target.
func TestProbeTooLate(t *testing.T) {
	addr := serve(t, func(net.Conn) {})
	c := Check{Target: target(addr.String())}.WithDefaults()
	for _, tt := range []struct {
		late  time.Duration
		doubt string
	}{{-time.Minute, ""}, {tooLate / 2, "to see in time"}, {tooLate + 50*time.Millisecond, "the probe ended 55"}} {
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-tt.late))
		got := (&prober{}).probe(ctx, c)
		cancel()
		if got.Inconclusive != (tt.doubt != "") || got.OK() != (tt.doubt == "") || !strings.Contains(got.Err, tt.doubt) {
			t.Errorf("%v late: %+v, want %q", tt.late, got, tt.doubt)
		}
	}
}
