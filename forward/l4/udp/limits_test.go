package udp

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/prometheus/client_golang/prometheus"
)

// TestLimits: sessions beyond a rate do not begin and are counted, by whose rate it was; what belongs to one that is there goes on, and a
// reload that changes something else forgets nothing.
func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		name         string
		limits       Limits
		rate, client uint64
	}{
		{"rate", Limits{Rate: 3}, 1, 0},
		{"client_rate", Limits{ClientRate: 3}, 0, 1},
		{"client_rate by prefix", Limits{ClientRate: 3, ClientBits4: 8}, 0, 2},
		{"none", Limits{}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, at, _ := crowded(t, Listener{Limits: tt.limits}, 0, nothing)
			set := at.binding.settings.Load()
			begin := func(client string, port uint16) bool {
				k := key{client: netip.MustParseAddr(client).As16(), port: port}
				return s.admit(set, k)
			}
			for port := range uint16(3) {
				if !begin("127.0.0.1", port+1) {
					t.Fatalf("session %d of 3 is not taken", port+1)
				}
			}
			limited := tt.rate+tt.client > 0
			if begin("127.0.0.1", 4) == limited {
				t.Errorf("the fourth at once: limited %v", !limited)
			}
			if tt.limits.ClientRate > 0 {
				if got, prefix := begin("127.9.9.9", 1), tt.limits.ClientBits4 == 8; got == prefix {
					t.Errorf("another client: taken %v", got)
				}
			}
			if st := s.server.Stats(); st.Rate != tt.rate || st.ClientRate != tt.client {
				t.Errorf("counted %d and %d, want %d and %d", st.Rate, st.ClientRate, tt.rate, tt.client)
			}
			for reason, want := range map[string]uint64{"rate": tt.rate, "client_rate": tt.client} {
				if got := droppedFor(t, s.server, reason); got != float64(want) {
					t.Errorf("metrics: %v dropped for %s, want %d", got, reason, want)
				}
			}
			next := Listener{Address: set.Address, Service: "dns", Responses: 1, Limits: tt.limits}
			change, err := s.server.Prepare([]Listener{next})
			if err != nil {
				t.Fatal(err)
			}
			change.Commit()
			if set = at.binding.settings.Load(); begin("127.0.0.1", 5) == limited {
				t.Errorf("after a reload: limited %v", !limited)
			}
			s.server.registry.Intake().SetSessions(1)
			s.now += 1_000_000_000
			if !begin("127.0.0.1", 6) {
				t.Error("a second later: not taken")
			}
			taken := 0
			for port := range uint16(1000) { // by the node's clock
				s.now += 1_000_000_000
				if begin("127.8.8.8", port) {
					taken++
				}
			}
			if n := s.server.Stats().NodeRate; n == 0 || n+uint64(taken) != 1000 {
				t.Errorf("one a second at this node: %d taken, %d counted", taken, n)
			}
		})
	}
}

// TestLimitedSession: the datagram that would begin a session too many is dropped, those of a session that is there are not.
func TestLimitedSession(t *testing.T) {
	f := start(t, Listener{Responses: AnyResponses, Limits: Limits{Rate: 1}}, backend(t, "", 1))
	first := dial(t, f.addr)
	ask(t, first, "x")
	for range 50 { // in less than 50 seconds
		dial(t, f.addr).Write([]byte("x"))
	}
	for range 20 {
		ask(t, first, "y")
	}
	until(t, "all are taken", func() bool { return f.Stats().Received == 71 })
	if s := f.Stats(); s.Rate == 0 || s.Rate+s.Sessions != 51 || s.Active != int64(s.Sessions) {
		t.Errorf("got %+v", s)
	}
}

// TestServiceRate: a service has one budget of new sessions for all addresses that send to it, by the clock of the node.
func TestServiceRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, at, pools := crowded(t, Listener{}, 0, nothing)
		limit := func(rate int) {
			pools.mu.Lock()
			defer pools.mu.Unlock()
			pools.version++
			pool := pools.pools[0]
			pool.Policy.Limit.Rate = rate
			pools.pools = []forward.ServicePool{pool, {Service: "other"}}
		}
		first := at.binding.settings.Load()
		second, other := *first, *first
		other.Service = "other"
		taken := func(set *Listener, n int) int {
			got := 0
			for port := range n {
				if s.admit(set, key{client: netip.MustParseAddr("192.0.2.1").As16(), port: uint16(port)}) {
					got++
				}
			}
			return got
		}
		limit(3)
		s.server.registry.Intake().SetSessions(200) // what the service refuses uses nothing of it
		if a, b, c := taken(first, 2), taken(&second, 100), taken(&other, 190); a != 2 || b != 1 || c != 190 {
			t.Errorf("took %d, %d at another address, %d of another service, want 2, 1, 190", a, b, c)
		}
		limit(3)
		if got := taken(first, 1); got != 0 {
			t.Error("the next plan has forgotten what was used")
		}
		time.Sleep(time.Second)
		if got := taken(first, 5); got != 3 {
			t.Errorf("a second later: took %d, want 3", got)
		}
		if st := s.server.Stats(); st.ServiceRate != 102 || st.NodeRate != 0 || droppedFor(t, s.server, "service_rate") != 102 {
			t.Errorf("counted %d, and %d for the node, want 102 and 0", st.ServiceRate, st.NodeRate)
		}
	})
}

// droppedFor is what the metrics say of datagrams that were dropped for a reason.
func droppedFor(t *testing.T, s *Server, reason string) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "pharos_udp_dropped_datagrams_total" && m.Label[0].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no series for %s", reason)
	return 0
}
