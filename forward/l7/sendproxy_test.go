package l7

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	oracle "github.com/pires/go-proxyproto"
)

type connKey struct{}

// TestSendProxy: a backend is told of the client at the beginning of each connection, and never gets the
// requests of one client on a connection that speaks for another.
func TestSendProxy(t *testing.T) {
	ca := certtest.New(t)
	for _, p := range everyProtocol {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprint(p, " v", version), func(t *testing.T) {
				backend, opened := proxiedBackend(t, p, serverTLS(ca, certtest.Leaf{}))
				transport := transportTo(p, ca)
				transport.SendProxy = version
				listeners := []Listener{{Routes: anyRoute}, {Routes: anyRoute, TLS: secure(ca, "a.test")}}
				f := startVia(t, transport, Options{Listeners: listeners}, backend)
				var clients []*http.Client
				for range 3 {
					clients = append(clients, client(t))
				}
				for round := range 3 {
					for i, c := range clients {
						res, err := c.Get("http://" + f.addr + "/")
						got := strings.Fields(slurp(t, res, err))
						if len(got) != 4 || got[0] != got[1] || got[2] != f.addr {
							t.Errorf("round %d, client %d: got %q", round, i, got)
						}
					}
				}
				if n := opened.Load(); n != 3 {
					t.Errorf("%d connections for three clients", n)
				}
				c := client(t)
				tr := c.Transport.(*http.Transport)
				tr.TLSClientConfig, tr.ForceAttemptHTTP2 = &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"}, true
				res, err := c.Get("https://" + f.Addrs()[1].String() + "/")
				got := strings.Fields(slurp(t, res, err))
				if want := map[int]string{1: "[]", 2: "[a.test|h2]"}[version]; len(got) != 4 || got[3] != want {
					t.Errorf("of a TLS client: got %q, want %s", got, want)
				}
			})
		}
	}
}

// proxiedBackend answers with the client's address as its PROXY header says and as X-Forwarded-For and the port of it say,
// the address that the client connected to, and what is known of its TLS.
func proxiedBackend(t *testing.T, p forward.Protocol, config *tls.Config) (netip.AddrPort, *atomic.Int64) {
	t.Helper()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opened := new(atomic.Int64)
	var l net.Listener = &oracle.Listener{Listener: plain, ConnPolicy: func(oracle.ConnPolicyOptions) (oracle.Policy, error) { return oracle.REQUIRE, nil }}
	server := &http.Server{Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(p == forward.HTTP1 || p == forward.HTTP1TLS)
	server.Protocols.SetHTTP2(p == forward.H2)
	server.Protocols.SetUnencryptedHTTP2(p == forward.H2C)
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		opened.Add(1)
		if below, ok := c.(*tls.Conn); ok {
			c = below.NetConn()
		}
		return context.WithValue(ctx, connKey{}, c)
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Context().Value(connKey{}).(*oracle.Conn).ProxyHeader()
		var extra bytes.Buffer
		tlvs, _ := h.TLVs()
		for _, tlv := range tlvs {
			switch tlv.Type {
			case oracle.PP2_TYPE_AUTHORITY:
				extra.Write(tlv.Value)
			case oracle.PP2_TYPE_ALPN:
				extra.WriteByte('|')
				extra.Write(tlv.Value)
			}
		}
		source := h.SourceAddr.(*net.TCPAddr).AddrPort()
		said := netip.AddrPortFrom(netip.MustParseAddr(r.Header.Get("X-Forwarded-For")), source.Port())
		fmt.Fprint(w, source, " ", said, " ", h.DestinationAddr, " [", extra.String(), "]")
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if p == forward.HTTP1TLS || p == forward.H2 {
			server.TLSConfig = config
			server.ServeTLS(l, "", "")
			return
		}
		server.Serve(l)
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return plain.Addr().(*net.TCPAddr).AddrPort(), opened
}

// TestWarm: connections are there before the first request, and again when they have gone.
func TestWarm(t *testing.T) {
	ca := certtest.New(t)
	for _, p := range everyProtocol {
		t.Run(p.String(), func(t *testing.T) {
			backend := protocolBackend(t, p, serverTLS(ca, certtest.Leaf{}), func(http.ResponseWriter, *http.Request) {})
			want := int64(3)
			if p == forward.H2 || p == forward.H2C {
				want = 1
			}
			f := startVia(t, transportTo(p, ca), Options{})
			f.pools.warm = 3
			f.pools.publish(backend.addr)
			until(t, "the connections", func() bool {
				return backend.open.Load() == want && (want == 1 || f.registry.Snapshot()[1].Idle == int(want))
			})
			for range 5 {
				res, err := client(t).Get("http://" + f.addr + "/")
				slurp(t, res, err)
			}
			if n := backend.open.Load(); n != want {
				t.Errorf("%d connections, of which %d were opened ahead: %+v", n, want, f.registry.Snapshot()[1])
			}
		})
	}
}
