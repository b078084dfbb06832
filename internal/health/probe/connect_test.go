package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// TestConnectTCP: what is there is reached, from where it should be; what is not
// is refused with the system's own words.
func TestConnectTCP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		to := l.Addr().(*net.TCPAddr).AddrPort()
		from := netip.Addr{}
		if to.Addr().Is4() {
			from = netip.MustParseAddr("127.0.0.77")
		}
		conn, err := connectTCP(t.Context(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		there, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := there.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from.IsValid() && got != from {
			t.Errorf("came from %v, want %v", got, from)
		}
		if got := conn.RemoteAddr().String(); got != to.String() {
			t.Errorf("connected to %s", got)
		}
		conn.Close()
		if _, err := there.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("closed with %v, want a reset", err)
		}
		there.Close()
		l.Close()
		if _, err := connectTCP(t.Context(), from, to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v", err)
		}
	}
	if _, err := connectTCP(t.Context(), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("127.0.0.1:1")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("a source that is not ours: %v", err)
	}
}

// TestConnectTCPEnds: with its context, by deadline and by cancelling, while the
// target says nothing at all.
func TestConnectTCPEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { _ = syscall.Listen(int(fd), 0) }) // room for one that nobody accepts
	to := l.Addr().(*net.TCPAddr).AddrPort()
	// Room is taken by connections that are made in full: a probe's own may not be.
	for range 2 {
		d := net.Dialer{Timeout: 300 * time.Millisecond}
		if conn, err := d.Dial("tcp", to.String()); err == nil {
			defer conn.Close()
		}
	}
	for range 4 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		conn, err := connectTCP(ctx, netip.Addr{}, to)
		cancel()
		if err != nil {
			if r := explain(err, connecting, time.Second); r.Inconclusive || r.Err != "timeout after 1s connecting" {
				t.Errorf("%v is %+v", err, r)
			}
			break
		}
		defer conn.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	began := time.Now()
	conn, err := connectTCP(ctx, netip.Addr{}, to)
	if err == nil {
		conn.Close()
		t.Fatal("the listener has room: the test cannot tell")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v to be cancelled", took)
	}
}
