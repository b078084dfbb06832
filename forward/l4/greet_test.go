package l4

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/proxyproto"
	oracle "github.com/pires/go-proxyproto"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// services makes each address the pool of a service of its name.
func (f *fakePools) services(members map[string]netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	f.pools = nil
	for name, address := range members {
		f.pools = append(f.pools, forward.ServicePool{Service: name, Members: []forward.Member{{Address: address, Weight: 1, Active: true}}})
	}
}

// saying answers every connection with a word and what it has sent until then.
func saying(word string, want int) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		got := make([]byte, want)
		io.ReadFull(c, got)
		c.Write([]byte(word + ":" + string(got)))
		io.Copy(io.Discard, c)
	}
}

// inPieces writes b in pieces that are segments of their own.
func inPieces(t *testing.T, c *net.TCPConn, b []byte, size int) {
	t.Helper()
	c.SetNoDelay(true)
	for sent := 0; len(b) > 0; {
		if sent++; sent > 100 {
			size = max(size, 100) // enough of the smallest
		}
		n := min(size, len(b))
		if _, err := c.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
		time.Sleep(50 * time.Microsecond) // else several become one
	}
}

func readAll(t *testing.T, c *net.TCPConn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got[:n], err, want)
	}
}

// TestAcceptProxy: what a trusted source says of its client is believed and passed
// on; it comes in any pieces, and what follows it stays whole.
func TestAcceptProxy(t *testing.T) {
	client, vip := netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("198.51.100.80:443")
	headers := map[string][]byte{
		"v1": proxyproto.AppendLine(nil, client, vip),
		"v2": proxyproto.AppendBinary(nil, client, vip, []proxyproto.TLV{{Type: proxyproto.TypeUniqueID, Value: []byte("id-1")}, {Type: 0xe1, Value: []byte("own")}}, true),
	}
	for name, header := range headers {
		for _, size := range []int{1, 7, 1000} {
			t.Run(name, func(t *testing.T) {
				heard := make(chan *oracle.Header, 1)
				f := start(t, Options{Listeners: []Listener{{Service: "db", AcceptProxy: loopback, SendProxy: Proxy2, Hello: time.Minute}}},
					backend(t, func(c *net.TCPConn) {
						r := bufio.NewReader(c)
						h, err := oracle.Read(r)
						if err != nil {
							t.Error(err)
						}
						heard <- h
						got := make([]byte, 4)
						io.ReadFull(r, got)
						c.Write(got)
					}))
				c := dial(t, f.addr)
				inPieces(t, c, append(bytes.Clone(header), "ping"...), size)
				readAll(t, c, "ping")
				h := <-heard
				source, destination, _ := h.TCPAddrs()
				if source.AddrPort() != client || destination.AddrPort() != vip {
					t.Errorf("the backend heard of %v → %v", source, destination)
				}
				tlvs, err := h.TLVs()
				if name == "v2" && (err != nil || len(tlvs) != 3 || string(tlvs[0].Value) != "id-1" || string(tlvs[1].Value) != "own") {
					t.Errorf("TLVs %v, %v", tlvs, err)
				}
			})
		}
	}
}

// TestBadGreetings: each is reset and counted for its reason, and the next client is served.
func TestBadGreetings(t *testing.T) {
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	routes := []Route{{SNI: "a.example", Service: "db"}}
	good := proxyproto.AppendLine(nil, netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("198.51.100.80:443"))
	huge := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + strings.Repeat("x", 100))
	for _, tt := range []struct {
		name     string
		listener Listener
		send     []byte
		size     int
		close    bool
		want     drop
	}{
		{"no header", Listener{AcceptProxy: loopback}, []byte("GET / HTTP/1.1\r\n"), 100, false, dropProxyInvalid},
		{"too long", Listener{AcceptProxy: loopback}, huge, 1000, false, dropProxyInvalid},
		{"endless line", Listener{AcceptProxy: loopback}, []byte("PROXY TCP4 " + strings.Repeat("1", 200)), 1000, false, dropProxyInvalid},
		{"cut", Listener{AcceptProxy: loopback}, good[:20], 1000, true, dropProxyCut},
		{"slow", Listener{AcceptProxy: loopback}, good[:20], 1000, false, dropProxyTimeout},
		{"nothing", Listener{AcceptProxy: loopback}, nil, 1000, false, dropProxyTimeout},
		{"spoofed", Listener{AcceptProxy: elsewhere}, good, 1000, false, dropProxySpoofed},
		{"spoofed in pieces", Listener{AcceptProxy: elsewhere}, huge, 1, false, dropProxySpoofed},
		{"not TLS", Listener{Routes: routes}, []byte("GET / HTTP/1.1\r\n"), 1000, false, dropHelloInvalid},
		{"half a hello", Listener{Routes: routes}, []byte{22, 3, 1, 0, 100, 1}, 1000, true, dropHelloCut},
		{"slow hello", Listener{Routes: routes}, []byte{22, 3, 1, 0, 100, 1}, 1, false, dropHelloTimeout},
		{"nobody's name", Listener{Routes: routes}, clientHello(t, &tls.Config{ServerName: "b.example"}), 1000, false, dropNoRoute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := tt.listener
			if l.Routes == nil {
				l.Service = "db"
			}
			l.Hello = 300 * time.Millisecond
			f := start(t, Options{Listeners: []Listener{l, {Service: "db"}}}, backend(t, echo))
			c := dial(t, f.addr)
			c.SetNoDelay(true)
			told := false // a write has seen the reset, so that no read does
			for b := tt.send; len(b) > 0; {
				n := min(tt.size, len(b))
				if _, err := c.Write(b[:n]); err != nil {
					told = errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
					break
				}
				b = b[n:]
			}
			if tt.close {
				c.CloseWrite()
			}
			if _, err := io.ReadAll(c); !told && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
			until(t, tt.want.String(), func() bool { s := f.Stats(); return s.Dropped()[tt.want.String()] == 1 && s.Active == 0 })
			if s := f.registry.Snapshot(); s[0].Leases > 1 || s[0].InFlight != 0 {
				t.Errorf("the backend has %+v", s[0])
			}
			ask(t, dial(t, f.Addrs()[1]), "others are served")
		})
	}
}

// TestUntrustedServed: a client that is not trusted with a header is served without
// one, also where the server speaks first.
func TestUntrustedServed(t *testing.T) {
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	f := start(t, Options{Listeners: []Listener{{Service: "db", AcceptProxy: elsewhere}}}, backend(t, func(c *net.TCPConn) {
		io.WriteString(c, "220 hello\r\n")
		echo(c)
	}))
	c := dial(t, f.addr)
	readAll(t, c, "220 hello\r\n")
	c.Write([]byte("P")) // what a header begins with, until it goes on otherwise
	time.Sleep(20 * time.Millisecond)
	c.Write([]byte("OST"))
	readAll(t, c, "POST")
}

// clientHello returns what a crypto/tls client sends first.
func clientHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	config.InsecureSkipVerify = true
	go func() {
		_ = tls.Client(a, config).Handshake()
		a.Close()
	}()
	header := make([]byte, 5)
	if _, err := io.ReadFull(b, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(b, body); err != nil {
		t.Fatal(err)
	}
	return append(header, body...)
}

// TestRoutesByHello: the hello chooses the service and arrives whole, in whatever
// pieces and records it comes.
func TestRoutesByHello(t *testing.T) {
	routes := []Route{
		{SNI: "*.example.com", Service: "wild"},
		{SNI: "www.example.com", Service: "www"},
		{SNI: "www.example.com", ALPN: []string{"h3-29", "h2"}, Service: "h2"},
		{ALPN: []string{"acme-tls/1"}, Service: "acme"},
	}
	for _, tt := range []struct {
		name   string
		config *tls.Config
		want   string
	}{
		{"exact", &tls.Config{ServerName: "www.example.com"}, "www"},
		{"protocol", &tls.Config{ServerName: "WWW.example.com", NextProtos: []string{"http/1.1", "h2"}}, "h2"},
		{"another protocol", &tls.Config{ServerName: "www.example.com", NextProtos: []string{"http/1.1"}}, "www"},
		{"below", &tls.Config{ServerName: "a.b.example.com"}, "wild"},
		{"not the name itself", &tls.Config{ServerName: "example.com"}, "rest"},
		{"any name", &tls.Config{ServerName: "x.test", NextProtos: []string{"acme-tls/1"}}, "acme"},
		{"no name", &tls.Config{ServerName: "192.0.2.1"}, "rest"},
	} {
		for _, size := range []int{1, 5000} {
			t.Run(tt.name, func(t *testing.T) {
				hello := clientHello(t, tt.config)
				if size == 1 { // and over two records
					body := hello[5:]
					half := len(body) / 2
					hello = append([]byte{22, 3, 1, byte(half >> 8), byte(half)}, body[:half]...)
					hello = append(hello, 22, 3, 1, byte((len(body)-half)>>8), byte(len(body)-half))
					hello = append(hello, body[half:]...)
				}
				members := make(map[string]netip.AddrPort)
				for _, word := range []string{"wild", "www", "h2", "acme", "rest"} {
					members[word] = backend(t, saying(word, len(hello)))
				}
				f := start(t, Options{Listeners: []Listener{{Service: "rest", Routes: routes, Hello: time.Minute}}})
				f.pools.services(members)
				c := dial(t, f.addr)
				inPieces(t, c, hello, size)
				readAll(t, c, tt.want+":"+string(hello))
			})
		}
	}
}

// TestFallback: what is not TLS goes to the listener's own service.
func TestFallback(t *testing.T) {
	f := start(t, Options{Listeners: []Listener{{Service: "db", Routes: []Route{{SNI: "a.example", Service: "none"}}, Hello: time.Minute}}}, backend(t, echo))
	ask(t, dial(t, f.addr), "plain text")
	wantReset := dial(t, f.addr)
	wantReset.Write(clientHello(t, &tls.Config{ServerName: "a.example"}))
	if _, err := io.ReadAll(wantReset); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset: the route's service has no backend", err)
	}
}

// TestOverflow: what the own pool has nobody for goes to another site, which hears the client's address if
// it takes PROXY headers from here, and which does not hand it on once more.
func TestOverflow(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		var trust []netip.Prefix
		if trusted {
			trust = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/29")} // nodes; the client is elsewhere
		}
		heard := make(chan netip.AddrPort, 10)
		there := backend(t, func(c *net.TCPConn) {
			b := make([]byte, 200)
			n, err := c.Read(b)
			if h, size, bad := proxyproto.Parse(b[:n]); err == nil && bad == nil {
				heard <- h.Source
				if b = b[size:n]; len(b) == 0 { // what the client says is on its way
					b = make([]byte, 200)
					n, _ = c.Read(b)
					b = b[:n]
				}
			}
			c.Write(b)
		})
		remote := start(t, Options{Listeners: []Listener{{
			Address: netip.MustParseAddrPort("127.0.0.2:0"), Service: "db", AcceptProxy: trust, SendProxy: Proxy2, Overflow: true,
		}}}, there)
		local := start(t, Options{Listeners: []Listener{{
			Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), remote.addr.Port()), Service: "db", AcceptProxy: trust, SendProxy: Proxy2, Overflow: true,
		}}})
		overflow := func(f *fixture, to string, members ...forward.Member) {
			f.pools.mu.Lock()
			defer f.pools.mu.Unlock()
			f.pools.version++
			f.pools.pools = []forward.ServicePool{{
				Service: "db", Members: members, Overflow: []netip.Addr{netip.MustParseAddr(to)},
				Fleet: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, // connections to 127.0.0.2 come from there
			}}
		}
		down := forward.Member{Address: nobody(t), Weight: 1}
		overflow(local, "127.0.0.2", down)
		client := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 77)}, Timeout: 10 * time.Second}
		try := func() (string, net.Addr) {
			c, err := client.Dial("tcp", local.addr.String())
			if err != nil { // the reset was faster than connect
				return "cut", nil
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := c.Write([]byte("hello")); err != nil {
				return "cut", nil
			}
			b := make([]byte, 100)
			n, err := c.Read(b)
			if err != nil {
				return "cut", nil
			}
			return string(b[:n]), c.LocalAddr()
		}
		got, from := try()
		if got != "hello" {
			t.Fatalf("trusted %v: got %q", trusted, got)
		}
		if source := <-heard; trusted != (source.String() == from.String()) {
			t.Errorf("trusted %v: the backend was told %s, the client is %s", trusted, source, from)
		}
		overflow(remote, "127.0.0.3", down)
		if got, _ := try(); got != "cut" {
			t.Errorf("trusted %v: both sites have nobody, and the client got %q", trusted, got)
		}
		if n := remote.Stats().Accepted; n != 2 {
			t.Errorf("trusted %v: %d connections at the other site, want 2", trusted, n)
		}
	}
}
