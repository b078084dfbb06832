package engine

import (
	"net/netip"
	"os"
	"testing"
	"time"
)

const patience = 20 * time.Second

// await waits on the engine's events until cond holds.
func await(t *testing.T, e *Engine, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-e.Changed():
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatalf("waited in vain for %s: %+v", what, e.Sessions())
		}
	}
}

// TestPolicies holds two senders and a receiver against what each may pass on or keep: a sender keeps nothing that it
// hears, and a receiver exports nothing.
func TestPolicies(t *testing.T) {
	pid := os.Getpid()
	port := uint16(17900 + pid%10000)
	addr := func(host byte) netip.Addr { return netip.AddrFrom4([4]byte{127, byte(64 + pid%128), 210, host}) }
	start := func(host byte, receive bool) *Engine {
		t.Helper()
		e, err := Start(Options{
			ASN: 64500 + uint32(host), RouterID: addr(host), Listen: []netip.Addr{addr(host)}, Port: int(port), Receive: receive,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Stop(patience) })
		return e
	}
	join := func(a *Engine, hostA byte, b *Engine, hostB byte) {
		t.Helper()
		n := Neighbor{Address: addr(hostB), Local: addr(hostA), ASN: 64500 + uint32(hostB), Port: port, Hold: 9 * time.Second}
		back := Neighbor{Address: addr(hostA), Local: addr(hostB), ASN: 64500 + uint32(hostA), Hold: 9 * time.Second, Passive: true}
		if err := b.Add(back); err != nil {
			t.Fatal(err)
		}
		if err := a.Add(n); err != nil {
			t.Fatal(err)
		}
	}
	receiver, one, two := start(1, true), start(2, false), start(3, false)
	own := netip.MustParsePrefix("192.0.2.0/24")
	others := netip.MustParsePrefix("198.51.100.0/24")
	if err := one.Announce(Path{Prefix: own, Exports: ToAll(Attributes{NextHop: addr(2)})}); err != nil {
		t.Fatal(err)
	}
	if err := two.Announce(Path{Prefix: others, Exports: ToAll(Attributes{NextHop: addr(3)})}); err != nil {
		t.Fatal(err)
	}
	join(one, 2, receiver, 1)
	join(two, 3, receiver, 1)
	join(one, 2, two, 3)

	session := func(e *Engine, host byte) Session {
		for _, s := range e.Sessions() {
			if s.Address == addr(host) {
				return s
			}
		}
		return Session{}
	}
	await(t, one, "the prefix of the other sender", func() bool { return session(one, 3).Received == 1 })
	paths, err := one.Paths()
	if err != nil || len(paths) != 1 || paths[0].Prefix != own {
		t.Errorf("the sender has %v (%v), want only its own: it must keep nothing that it hears", paths, err)
	}
	await(t, receiver, "both prefixes", func() bool {
		paths, err := receiver.Paths()
		return err == nil && len(paths) == 2
	})
	for _, s := range receiver.Sessions() {
		if s.State != "established" || s.Received != 1 || s.Sent != 0 {
			t.Errorf("the receiver's session is %+v, want one prefix heard and none exported", s)
		}
	}
	if s := session(one, 1); s.Sent != 1 {
		t.Errorf("the sender's session is %+v, want its own prefix sent", s)
	}
}
