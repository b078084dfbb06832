package router

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

const patience = 20 * time.Second

// place returns loopback addresses of this process and a port that is free on them.
func place(t *testing.T, third byte) (a, b netip.Addr, port uint16) {
	t.Helper()
	pid := os.Getpid()
	a = netip.AddrFrom4([4]byte{127, byte(64 + pid%128), 200 + third, 1})
	port = uint16(17900 + pid%10000)
	return a, a.Next(), port
}

// start starts a router that serve then lets speak, so that other engines can start in between (see RunAll).
func start(t *testing.T, o Options) (r *Router, serve, stop func()) {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	e, err := r.start()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	serve = func() { go func() { done <- r.serve(ctx, e) }() }
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		r.stop(e)
	})
	t.Cleanup(stop)
	return r, serve, stop
}

func await(t *testing.T, r *Router, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-r.Watch():
		case <-deadline:
			t.Fatalf("waited in vain for %s: %+v %+v", what, r.Routes(), r.Sessions())
		}
	}
}

// TestReceivesAndForgets hears two senders of the same prefix, and one of them leaves.
func TestReceivesAndForgets(t *testing.T) {
	a, b, port := place(t, 1)
	c := b.Next()
	r, serve, stop := start(t, Options{
		ASN: 64496, Listen: netip.AddrPortFrom(a, port),
		Neighbors: []Neighbor{{Address: b, ASN: 64500, Passive: true}, {Address: c, ASN: 64501, Port: port}},
	})
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	senders := map[netip.Addr]*engine.Engine{}
	asns := map[netip.Addr]uint32{b: 64500, c: 64501}
	for addr, asn := range asns {
		e, err := engine.Start(engine.Options{ASN: asn, RouterID: addr, Listen: []netip.Addr{addr}, Port: int(port)})
		if err != nil {
			t.Fatal(err)
		}
		senders[addr] = e
		defer func() { _ = e.Stop(patience) }()
	}
	for addr, e := range senders {
		if err := e.Announce(engine.Path{Prefix: prefix, Exports: engine.ToAll(engine.Attributes{NextHop: addr, Communities: []uint32{7}, MED: asns[addr]})}); err != nil {
			t.Fatal(err)
		}
		if err := e.Add(engine.Neighbor{Address: a, Local: addr, ASN: 64496, Port: port, Hold: 9 * time.Second, Passive: addr == c}); err != nil {
			t.Fatal(err)
		}
	}
	serve()
	await(t, r, "both routes", func() bool { return len(r.Routes()) == 2 })
	want := []Route{
		{Prefix: prefix, From: b, NextHop: b, ASPath: []uint32{64500}, Communities: []uint32{7}, MED: 64500},
		{Prefix: prefix, From: c, NextHop: c, ASPath: []uint32{64501}, Communities: []uint32{7}, MED: 64501},
	}
	if diff := cmp.Diff(want, r.Routes(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	// Nothing is passed on from one to the other.
	for addr, e := range senders {
		for _, s := range e.Sessions() {
			if s.State == "established" && s.Received != 0 {
				t.Errorf("%s was sent %d routes", addr, s.Received)
			}
		}
	}
	if err := senders[b].Withdraw(prefix); err != nil {
		t.Fatal(err)
	}
	await(t, r, "one route less", func() bool { return len(r.Routes()) == 1 })
	if got := r.Routes()[0].From; got != c {
		t.Errorf("the route of %s is left, want that of %s", got, c)
	}
	if err := senders[c].Stop(patience); err != nil {
		t.Fatal(err)
	}
	await(t, r, "no route", func() bool { return len(r.Routes()) == 0 })
	stop()
	if len(r.Routes()) != 0 || len(r.Sessions()) != 0 {
		t.Error("something is left after Run")
	}
}

// TestPrefixLimit: a sender above its limit loses the session, and the receiver says why.
func TestPrefixLimit(t *testing.T) {
	a, b, port := place(t, 2)
	sender, err := engine.Start(engine.Options{ASN: 64496, RouterID: a, Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sender.Stop(patience) }()
	limited, err := engine.Start(engine.Options{ASN: 64501, RouterID: b.Next(), Listen: []netip.Addr{b.Next()}, Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = limited.Stop(patience) }()
	for i := range 5 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)
		if err := sender.Announce(engine.Path{Prefix: p, Exports: engine.ToAll(engine.Attributes{NextHop: a})}); err != nil {
			t.Fatal(err)
		}
	}
	if err := limited.Add(engine.Neighbor{Address: a, Local: b.Next(), ASN: 64496, Hold: 9 * time.Second, Passive: true, MaxPrefixes: 3}); err != nil {
		t.Fatal(err)
	}
	if err := sender.Add(engine.Neighbor{Address: b.Next(), Local: a, ASN: 64501, Port: port, Hold: 9 * time.Second}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	for {
		if s := limited.Sessions()[0]; strings.Contains(s.LastError, "more prefixes") && s.State == "idle" {
			break
		}
		select {
		case <-limited.Changed():
		case <-deadline:
			t.Fatalf("waited in vain for the limit: %+v", limited.Sessions())
		}
	}
	paths, err := limited.Paths()
	if err != nil || len(paths) != 0 {
		t.Errorf("a sender-only engine kept %v (%v)", paths, err)
	}
}

func TestAddressInUse(t *testing.T) {
	a, _, port := place(t, 3)
	listener, err := net.Listen("tcp", netip.AddrPortFrom(a, port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	r, err := New(Options{ASN: 64496, Listen: netip.AddrPortFrom(a, port)})
	if err != nil {
		t.Fatal(err)
	}
	err = r.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), a.String()) {
		t.Errorf("Run: %v", err)
	}
	if err := r.Run(context.Background()); err == nil {
		t.Error("Run runs twice")
	}
}

// TestRunAll runs two routers that hear the same sender.
func TestRunAll(t *testing.T) {
	a, b, port := place(t, 4)
	sender := b.Next()
	var routers []*Router
	for _, listen := range []netip.Addr{a, b} {
		r, err := New(Options{
			ASN: 64496, Listen: netip.AddrPortFrom(listen, port), RouterID: listen,
			Neighbors: []Neighbor{{Address: sender, ASN: 64500, Port: port}},
		})
		if err != nil {
			t.Fatal(err)
		}
		routers = append(routers, r)
	}
	e, err := engine.Start(engine.Options{ASN: 64500, RouterID: sender, Listen: []netip.Addr{sender}, Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Stop(patience) }()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- RunAll(ctx, routers...) }()
	// Run starts every server before it dials, so what the sender does after
	// the first dial is after every start.
	for _, r := range routers {
		await(t, r, "its sessions", func() bool { return len(r.Sessions()) == 1 })
	}
	for _, r := range routers {
		if err := e.Add(engine.Neighbor{
			Address: r.opts.Listen.Addr(), Local: sender, ASN: 64496, Hold: 9 * time.Second, Passive: true,
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Announce(engine.Path{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Exports: engine.ToAll(engine.Attributes{NextHop: sender})}); err != nil {
		t.Fatal(err)
	}
	for _, r := range routers {
		await(t, r, "the route", func() bool { return len(r.Routes()) == 1 })
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("RunAll: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	ok := Options{
		ASN: 64496, Listen: netip.MustParseAddrPort("127.0.0.1:1790"),
		Neighbors: []Neighbor{{Address: netip.MustParseAddr("127.0.0.2"), ASN: 64500}},
	}
	if _, err := New(ok); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"asn", func(o *Options) { o.ASN = 0 }, "ASN"},
		{"port", func(o *Options) { o.Listen = netip.MustParseAddrPort("127.0.0.1:0") }, "port"},
		{"router ID", func(o *Options) { o.RouterID = netip.MustParseAddr("::1") }, "router ID"},
		{"neighbor ASN", func(o *Options) { o.Neighbors = []Neighbor{{Address: netip.MustParseAddr("127.0.0.2")}} }, "ASN"},
		{"neighbor family", func(o *Options) { o.Neighbors = []Neighbor{{Address: netip.MustParseAddr("::2"), ASN: 1}} }, "family"},
		{"neighbor twice", func(o *Options) { o.Neighbors = append(o.Neighbors, o.Neighbors[0]) }, "twice"},
		{"hold", func(o *Options) {
			o.Neighbors = []Neighbor{{Address: netip.MustParseAddr("127.0.0.2"), ASN: 1, Hold: time.Second}}
		}, "hold"},
		{"too many", func(o *Options) { o.Neighbors = make([]Neighbor, 257) }, "257"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := ok
			tc.change(&o)
			if _, err := New(o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New: %v, want %q in it", err, tc.want)
			}
		})
	}
}

func ExampleNew() {
	r, err := New(Options{
		ASN: 64496, Listen: netip.MustParseAddrPort("127.0.0.1:1790"),
		Neighbors: []Neighbor{{Address: netip.MustParseAddr("127.0.0.2"), ASN: 64500, Passive: true}},
	})
	fmt.Println(len(r.Routes()), err)
	// Output: 0 <nil>
}
