package udp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

func TestQUICServer(t *testing.T) {
	a := netip.MustParseAddrPort("192.0.2.1:443")
	q := &QUIC{Length: 8, Servers: map[string]netip.AddrPort{"\x01\x02": a}}
	if err := q.check(); err != nil {
		t.Fatal(err)
	}
	id := []byte{9, 1, 2, 0, 0, 0, 0, 0}
	long := func(first byte, id []byte) []byte {
		return append(append([]byte{first, 0, 0, 0, 1, byte(len(id))}, id...), 0, 0, 0)
	}
	for _, tt := range []struct {
		name   string
		packet []byte
		want   bool
	}{
		{"short", append([]byte{0x40}, id...), true},
		{"short, payload", append(append([]byte{0x40}, id...), 1, 2, 3), true},
		{"short, cut", append([]byte{0x40}, id[:7]...), false},
		{"short, nobody", []byte{0x40, 9, 1, 3, 0, 0, 0, 0, 0}, false},
		{"handshake", long(0xe0, id), true},
		{"initial: the client's invention", long(0xc0, id), false},
		{"0-RTT", long(0xd0, id), false},
		{"handshake of another length", long(0xe0, id[:7]), false},
		{"handshake, cut", long(0xe0, id)[:10], false},
		{"nothing", nil, false},
	} {
		if got, ok := q.server(tt.packet); ok != tt.want || ok && q.address(got) != a {
			t.Errorf("%s: got %v, %v", tt.name, got, ok)
		}
	}
	for _, bad := range []QUIC{
		{Length: 8},
		{Length: 2, Servers: map[string]netip.AddrPort{"ab": a}},
		{Length: 8, Servers: map[string]netip.AddrPort{"a": a, "bc": a}},
		{Length: 21, Servers: map[string]netip.AddrPort{"a": a}},
	} {
		if bad.check() == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

// numbered gives out connection IDs with a server's number after the first byte.
type numbered byte

func (n numbered) ConnectionIDLen() int { return 8 }

func (n numbered) GenerateConnectionID() (quic.ConnectionID, error) {
	b := make([]byte, 8)
	rand.Read(b)
	b[1] = byte(n)
	return quic.ConnectionIDFromBytes(b), nil
}

// quicServer echoes every stream, with its number first.
func quicServer(t *testing.T, number byte, config *tls.Config) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: c, ConnectionIDGenerator: numbered(number)}
	l, err := tr.Listen(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				for {
					s, err := conn.AcceptStream(context.Background())
					if err != nil {
						return
					}
					s.Write([]byte{number})
					io.Copy(s, s)
					s.Close()
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); tr.Close(); c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestQUICMigration: a client that goes on from another address keeps its backend,
// which its connection IDs name, where the hash of addresses would often choose another.
func TestQUICMigration(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"test"}}
	q := &QUIC{Length: 8, Servers: make(map[string]netip.AddrPort)}
	var members []netip.AddrPort
	for number := range byte(5) {
		address := quicServer(t, number, config)
		q.Servers[string([]byte{number})] = address
		members = append(members, address)
	}
	f := start(t, Listener{Responses: AnyResponses, QUIC: q}, members...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 4 {
		transport := func() *quic.Transport {
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			tr := &quic.Transport{Conn: c}
			t.Cleanup(func() { tr.Close(); c.Close() })
			return tr
		}
		conn, err := transport().Dial(ctx, net.UDPAddrFromAddrPort(f.addr),
			&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"test"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		who := func() byte {
			s, err := conn.OpenStreamSync(ctx)
			if err != nil {
				t.Fatal(err)
			}
			s.Write([]byte("hello"))
			s.Close()
			got, err := io.ReadAll(s)
			if err != nil || len(got) != 6 {
				t.Fatalf("got %q, %v", got, err)
			}
			return got[0]
		}
		first := who()
		for range 3 { // migrate
			path, err := conn.AddPath(transport())
			if err != nil {
				t.Fatal(err)
			}
			if err := path.Probe(ctx); err != nil {
				t.Fatalf("the new address does not reach the backend: %v", err)
			}
			if err := path.Switch(); err != nil {
				t.Fatal(err)
			}
			if got := who(); got != first {
				t.Fatalf("server %d after %d", got, first)
			}
		}
		conn.CloseWithError(0, "")
	}
	if s := f.Stats(); s.ByID < 12 {
		t.Errorf("got %+v, want 12 sessions by connection ID", s)
	}
}
