package bgp

import (
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/bgp/router"
)

const password = "correct-horse-battery"

// kernelHasMD5 tries to set a TCP MD5 key (RFC 2385) on a listener; this process listens without multipath TCP.
func kernelHasMD5(t *testing.T, peer netip.Addr) bool {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	raw, err := listener.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	key := unix.TCPMD5Sig{Keylen: 1, Key: [80]byte{'x'}}
	key.Addr.Family = unix.AF_INET
	a := peer.As4()
	copy(key.Addr.Data[2:], a[:])
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptTCPMD5Sig(int(fd), unix.IPPROTO_TCP, unix.TCP_MD5SIG, &key)
	}); err != nil {
		t.Fatal(err)
	}
	return failed == nil
}

func TestPassword(t *testing.T) {
	l := newLab(t)
	if !kernelHasMD5(t, l.addr(2)) {
		testPasswordRefused(t, l)
		return
	}
	with := func(p string) func(*router.Options) {
		return func(o *router.Options) { o.Neighbors[0].Password = p }
	}
	right, _ := l.router(2, with(password))
	wrong, _ := l.router(3, with("another"))
	peers := []Peer{l.peer(2), l.peer(3)}
	peers[0].Password, peers[1].Password = password, password
	g := l.speaker(Options{Peers: peers}, Route{Prefix: anycast})
	awaitRouter(t, right, "the route with the right password", has(anycast))
	g.await("the time-out of the wrong password", func(s Status) bool {
		return strings.Contains(s.Peers[1].LastError, "timeout")
	})
	if !none(wrong.Routes()) {
		t.Error("the wrong password was accepted")
	}
	since := right.Sessions()[0].Since

	// A peer that loses its password: the listener must forget the key, or
	// this peer, which dials, could never connect.
	bare, stop := l.router(4, with(password))
	peers = []Peer{peers[0], l.peer(4)}
	peers[1].Password = password
	if err := g.Reconfigure(l.config(), peers); err != nil {
		t.Fatal(err)
	}
	awaitRouter(t, bare, "the route with a password", has(anycast))
	peers[1].Password, peers[1].Passive = "", true
	if err := g.Reconfigure(l.config(), peers); err != nil {
		t.Fatal(err)
	}
	awaitRouter(t, bare, "the end of the session with the password", none)
	stop()
	bare, _ = l.router(4, func(o *router.Options) {
		o.Neighbors[0].Passive, o.Neighbors[0].Port = false, l.port
	})
	awaitRouter(t, bare, "the route without a password", has(anycast))
	if got := right.Sessions()[0].Since; got != since {
		t.Errorf("the session with the first peer was interrupted: since %s, was %s", got, since)
	}
	if strings.Contains(g.logs.String(), password) || strings.Contains(show(g.Status()), password) {
		t.Error("the password shows")
	}
}

// testPasswordRefused is for kernels without TCP MD5: a peer that has a password gets no session without it.
func testPasswordRefused(t *testing.T, l *lab) {
	t.Log("this kernel has no TCP MD5: testing that the session is refused instead")
	bare, _ := l.router(2, func(o *router.Options) {
		o.Neighbors[0].Passive, o.Neighbors[0].Port = false, l.port
	})
	other, _ := l.router(3)
	peers := []Peer{l.peer(2), l.peer(3)}
	peers[0].Password = password
	g := l.speaker(Options{Peers: peers}, Route{Prefix: anycast})
	awaitRouter(t, other, "the route at the peer without a password", has(anycast))
	s := g.await("the reason", func(s Status) bool { return s.Peers[0].LastError != "" })
	if !strings.Contains(s.Peers[0].LastError, "MD5 key") || s.Peers[0].State == "established" {
		t.Errorf("the peer with a password is %+v", s.Peers[0])
	}
	if !none(bare.Routes()) {
		t.Error("a session came up without the password")
	}
	if strings.Contains(g.logs.String(), password) || strings.Contains(show(g.Status()), password) {
		t.Error("the password shows")
	}
}
