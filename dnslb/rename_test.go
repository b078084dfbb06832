package dnslb

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/zone"
	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/steer"
)

// renamed returns a plan and zones in which service web is called by another name.
func renamed(t testing.TB, name string) (*steer.Plan, *zone.Set) {
	t.Helper()
	cfg, specs := fleet(t), specs()
	for i := range cfg.Services {
		if cfg.Services[i].Name == "web" {
			cfg.Services[i].Name = name
		}
	}
	for i, n := range cfg.Zones[0].Names {
		if n.Service == "web" {
			cfg.Zones[0].Names[i].Service = name
		}
	}
	for i, n := range specs[0].Steered {
		if n.Service == "web" {
			specs[0].Steered[i].Service = name
		}
	}
	db, err := geo.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	topology, err := steer.Compile(cfg, db, "fra1")
	if err != nil {
		t.Fatal(err)
	}
	set, err := zone.Compile(specs)
	if err != nil {
		t.Fatal(err)
	}
	return steer.Decide(topology, nil, steer.Facts{Ready: true}, nil), set
}

var steeredNames = []string{"www.example.com.", "any.example.com.", "x.geo.example.com."}

// TestRenameReload: a reload that renames a service publishes its plan before
// it swaps the zones; no question in between fails, on any socket.
func TestRenameReload(t *testing.T) {
	board := new(steer.Board)
	type side struct {
		plan *steer.Plan
		set  *zone.Set
	}
	var sides [2]side
	sides[0].plan, sides[0].set = renamed(t, "web")
	sides[1].plan, sides[1].set = renamed(t, "shop")
	s := start(t, Options{Board: board})
	board.Publish(sides[0].plan) // after the zones, as at the start of a node

	reload := func(to side, between func()) {
		t.Helper()
		change, err := s.Prepare([]netip.AddrPort{loopback}, Tunables{})
		if err != nil {
			t.Fatal(err)
		}
		change.SetZones(to.set)
		board.Publish(to.plan)
		between()
		change.Commit()
	}
	expect := func(network string) {
		t.Helper()
		for _, name := range steeredNames {
			if got := ask(t, s, network, query(name, "A")); got.Rcode != 0 || len(got.Answer) == 0 {
				t.Errorf("%s between plan and zones: %s", name, dns.RcodeToString[got.Rcode])
			}
		}
	}
	// Nobody has asked before, so no socket remembers anything.
	reload(sides[1], func() {
		expect("udp")
		expect("tcp")
		if got := ask(t, s, "udp", query("gone.example.com.", "A")); got.Rcode != dns.RcodeServerFailure {
			t.Errorf("a service that no plan ever knew: %s, want SERVFAIL", dns.RcodeToString[got.Rcode])
		}
	})

	var asked, failed atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		wg.Go(func() {
			client := &dns.Client{Timeout: 5 * time.Second}
			for n := i; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				got, _, err := client.Exchange(query(steeredNames[n%len(steeredNames)], "A"), address(s))
				if err != nil || got.Rcode != 0 || len(got.Answer) == 0 {
					failed.Add(1)
				}
				asked.Add(1)
			}
		})
	}
	for i := range 100 {
		before := asked.Load()
		reload(sides[i%2], func() {
			for asked.Load() < before+8 { // the questions meet the gap
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
	close(done)
	wg.Wait()
	if failed.Load() != 0 {
		t.Errorf("%d of %d questions failed during reloads", failed.Load(), asked.Load())
	}
}

// TestLastKnownPlan: what answers in between is the last plan that knew the
// service, not the one that came with the zones; the new zones forget it.
func TestLastKnownPlan(t *testing.T) {
	s := detached(t, Tunables{})
	ttl := func() uint32 {
		t.Helper()
		got := new(dns.Msg)
		if err := got.Unpack(s.respond(t, query("www.example.com.", "A"))); err != nil {
			t.Fatal(err)
		}
		if len(got.Answer) == 0 {
			return 0
		}
		return got.Answer[0].Header().Ttl
	}
	plan, set := renamed(t, "shop")
	if ttl() != 30 {
		t.Fatal("not the TTL of a healthy service")
	}
	degraded := newBoard(t, "fra").Load()
	s.server.board.Publish(degraded)
	if ttl() != 15 {
		t.Fatal("not the TTL of a degraded service")
	}
	s.server.board.Publish(plan)
	if got := ttl(); got != 15 {
		t.Errorf("in between TTL %d, want 15 from the last plan of the old zones", got)
	}
	s.server.zones.Store(serve(newSet(t), s.server.board))
	if got := ttl(); got != 0 {
		t.Errorf("zones that came after the plan are answered with TTL %d, want SERVFAIL", got)
	}
	s.server.zones.Store(serve(set, s.server.board))
	if got := ttl(); got != 30 {
		t.Errorf("new zones: TTL %d, want 30", got)
	}
}
