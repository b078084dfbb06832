package dnslb

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestNothingToListenOn: a server that would serve nobody is a mistake, also
// after a reload; one wildcard less on a machine without IPv6 is none.
func TestNothingToListenOn(t *testing.T) {
	without := func(addr netip.AddrPort) (*listener, error) { // a machine without IPv6
		if addr.Addr().Is6() {
			return nil, &net.OpError{Op: "listen", Err: syscall.EAFNOSUPPORT}
		}
		return bind(addr, 1)
	}
	all6 := netip.MustParseAddrPort("[::]:0")
	for _, tt := range []struct {
		name   string
		addrs  []netip.AddrPort
		others int
		bound  int
		want   string // in the error
	}{
		{"no address", nil, 0, 0, "no address is given"},
		{"IPv6 only", []netip.AddrPort{all6}, 0, 0, "this machine has no IPv6, and [::]:0 is the only address"},
		{"both wildcards", []netip.AddrPort{loopback, all6}, 0, 1, ""},
		{"nothing new in a reload", nil, 1, 0, ""},
		{"IPv6 beside what is there", []netip.AddrPort{all6}, 1, 0, ""},
		{"an IPv6 address", []netip.AddrPort{loopback, netip.MustParseAddrPort("[::1]:0")}, 0, 0, "address family not supported"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bound, err := bindAll(tt.addrs, tt.others, without)
			defer closeAll(bound)
			if len(bound) != tt.bound || (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("bound %d, error %v; want %d and %q", len(bound), err, tt.bound, tt.want)
			}
		})
	}
	s := start(t, Options{})
	if change, err := s.Prepare(nil, Tunables{}); err == nil || !strings.Contains(err.Error(), "nothing to listen on") {
		change.Discard()
		t.Errorf("a reload without addresses: %v", err)
	}
}

// TestDiscardUnbinds: a change that is given up leaves its addresses free.
func TestDiscardUnbinds(t *testing.T) {
	s := start(t, Options{})
	change, err := s.Prepare([]netip.AddrPort{loopback, netip.MustParseAddrPort("127.0.0.3:0")}, Tunables{})
	if err != nil {
		t.Fatal(err)
	}
	if len(change.added) != 1 {
		t.Fatalf("%d addresses bound, want 1", len(change.added))
	}
	addr := change.added[0].udp[0].Local().String()
	free := func() bool { // without SO_REUSEPORT: only if really free
		udp, udpErr := net.ListenPacket("udp", addr)
		if udpErr == nil {
			udp.Close()
		}
		tcp, tcpErr := net.Listen("tcp", addr)
		if tcpErr == nil {
			tcp.Close()
		}
		return udpErr == nil && tcpErr == nil
	}
	if free() {
		t.Errorf("%s is not bound by Prepare", addr)
	}
	change.Discard()
	if !free() {
		t.Errorf("%s is still bound after Discard", addr)
	}
	change.Discard() // does nothing any more
}

// TestHoldTellsOfAdded: while somebody holds there is a processor more for each thread, also of addresses that a reload adds
// or removes, and for each only once; otherwise none.
func TestHoldTellsOfAdded(t *testing.T) {
	var room atomic.Int64
	s := start(t, Options{Room: func(more int) { room.Add(int64(more)) }})
	at := func(when string, want int) {
		t.Helper()
		if got := int(room.Load()); got != want {
			t.Errorf("%s: %d more, want %d", when, got, want)
		}
	}
	listen := func(listen ...string) {
		t.Helper()
		addrs := []netip.AddrPort{loopback}
		for _, a := range listen {
			addrs = append(addrs, netip.MustParseAddrPort(a))
		}
		change, err := s.Prepare(addrs, Tunables{})
		if err != nil {
			t.Fatal(err)
		}
		change.Commit()
	}
	at("nobody holds", 0)
	first := s.Hold()
	at("held", s.Threads())
	before := s.Threads()
	listen("127.0.0.3:0", "127.0.0.4:0", "127.0.0.5:0")
	if s.Threads() <= before {
		t.Fatalf("%d threads for more addresses, %d before", s.Threads(), before)
	}
	at("addresses added", s.Threads())
	second := s.Hold()
	at("held twice", s.Threads())
	first()
	at("one of two released", s.Threads())
	listen("127.0.0.3:0")
	at("addresses removed", s.Threads())
	second()
	at("released", 0)
	listen()
	at("a reload that nobody holds", 0)
	defer func() { at("released again", 0) }()
	defer s.Hold()()
}
