package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestFleet is one voyage of a large fleet: it starts, takes an order, hears of
// single changes, and sails through calm and storm.
func TestFleet(t *testing.T) {
	voyage(t, fleetSize, false, func(t *testing.T, f *fleet) {
		f.within(20*time.Second, "converged from a cold start", f.converged)
		f.ships[7].order("site/fra")
		f.within(5*time.Second, "an order is everywhere", f.agreed)
		transitions(t, f)
		weather(t, f)
	})
}

func TestTrafficOfSmallFleets(t *testing.T) {
	for _, size := range []int{3, 10} {
		voyage(t, size, false, func(t *testing.T, f *fleet) {
			f.within(20*time.Second, "converged", f.converged)
			weather(t, f)
		})
	}
}

// transitions measures how long single changes take to be everywhere.
func transitions(t *testing.T, f *fleet) {
	t.Helper()
	var took []time.Duration
	for m := uint64(1); m <= 5; m++ {
		from := f.ships[int(m)*13%len(f.ships)]
		began := time.Now()
		from.setMark(m)
		time.Sleep(time.Second)
		for _, s := range f.ships {
			if s == from {
				continue
			}
			s.mu.Lock()
			if mark(s.heard[from.opt.Name]) != m {
				t.Errorf("%s never heard of the change", s.opt.Name)
			}
			took = append(took, s.at[from.opt.Name].Sub(began))
			s.mu.Unlock()
		}
	}
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("%d nodes: a change took %v (median), %v (99th percentile), %v at most",
		len(f.ships), took[len(took)/2], p99, took[len(took)-1])
	if p99 > 500*time.Millisecond {
		t.Errorf("a change took %v, want 500ms at most", p99)
	}
}

func TestFleetWithLoss(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
		loss float64
		cut  func(from, to netip.AddrPort) bool
	}{
		{"a tenth is lost", 30, 0.1, nil},
		{"a fifth is lost", fleetSize, 0.2, nil},
		{"one-way cuts", 30, 0.1, func(from, to netip.AddrPort) bool {
			// Nothing from the first three gets to every fourth directly.
			return last(from) <= 3 && last(to)%4 == 0
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			voyage(t, tt.size, false, func(t *testing.T, f *fleet) {
				f.ether.set(tt.loss, nil)
				f.within(30*time.Second, "converged", f.converged)
				f.ether.set(tt.loss, tt.cut)
				time.Sleep(time.Second)
				f.ships[0].order("site/fra", "service/web")
				// Gossip brings it before anybody would start to repair.
				f.within(1400*time.Millisecond, "an order is everywhere", f.agreed)
				if tt.cut == nil {
					f.ships[1].order(manyScopes(300)...) // too many for a datagram
					f.within(5*time.Second, "300 orders are everywhere", f.agreed)
				}
			})
		})
	}
}

// last returns the last byte of an address: the number of a node.
func last(a netip.AddrPort) byte {
	b := a.Addr().As4()
	return b[3]
}

func manyScopes(n int) []string {
	var scopes []string
	for i := range n {
		scopes = append(scopes, fmt.Sprintf("pool/web/site%d", i))
	}
	return scopes
}

func TestNewcomerToAFleetIsCurrentAtOnce(t *testing.T) {
	voyage(t, fleetSize, false, func(t *testing.T, f *fleet) {
		f.within(20*time.Second, "converged", f.converged)
		f.ships[3].order("site/fra")
		f.within(5*time.Second, "an order is everywhere", f.agreed)
		gone := f.ships[5]
		opt := gone.opt
		gone.sink()
		time.Sleep(2 * time.Second)

		// Wiped: it has no overrides, and its epoch is the only thing it knows.
		opt.transport = gone.antenna.again()
		s := f.build(opt)
		s.report.Epoch = 2
		f.ships = slices.Delete(f.ships, 5, 6)
		s.sail()
		f.within(3*time.Second, "the newcomer is current", func() bool {
			all, _ := s.hears(f.ships, 0)
			return all == len(f.ships)-1 && f.agreed()
		})
	})
}

func TestFleetHealsAfterAPartition(t *testing.T) {
	const size = 24
	voyage(t, size, false, func(t *testing.T, f *fleet) {
		f.within(20*time.Second, "converged", f.converged)
		west := func(a netip.AddrPort) bool { return last(a) <= size/2 }
		f.ether.set(0, func(from, to netip.AddrPort) bool { return west(from) != west(to) })
		time.Sleep(time.Minute)
		f.ships[0].order("site/fra")
		f.ships[size-1].order("site/iad", "site/fra")
		time.Sleep(time.Minute)
		for _, s := range []*ship{f.ships[0], f.ships[size-1]} {
			if present, _ := s.roster.count(); present != size/2-1 {
				t.Errorf("%s counts %d members in its half", s.opt.Name, present)
			}
		}
		for _, s := range f.ships {
			s.setMark(5)
		}
		f.ether.set(0, nil)
		f.within(30*time.Second, "healed", func() bool {
			for _, s := range f.ships {
				if _, marked := s.hears(f.ships, 5); marked != size-1 {
					return false
				}
			}
			return f.agreed() && f.converged()
		})
	})
}

// weather compares what a calm costs with what a storm does.
func weather(t *testing.T, f *fleet) {
	const measured = 8 * time.Second
	time.Sleep(3 * time.Second)
	calmUDP, calmTCP := f.bandwidth(measured)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	for _, s := range f.ships {
		go s.flap(ctx)
	}
	time.Sleep(5 * time.Second)
	stormUDP, stormTCP := f.bandwidth(measured)
	calm, storm := calmUDP+calmTCP, stormUDP+stormTCP
	t.Logf("%d nodes: bytes a second sent by each, headers included: calm %.0f UDP + %.0f TCP = %.0f, storm %.0f UDP + %.0f TCP = %.0f",
		len(f.ships), calmUDP, calmTCP, calm, stormUDP, stormTCP, storm)
	if calm > 60_000 || storm > 60_000 {
		t.Errorf("more than 60 kB/s")
	}
	// Streams are few and long apart: which of the two they fall into is chance.
	if stormUDP > 1.1*calmUDP || stormUDP < 0.9*calmUDP {
		t.Errorf("a storm costs %.0f%% of calm", 100*stormUDP/calmUDP)
	}
}

// flap changes something ten times a second.
func (s *ship) flap(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for m := uint64(1); ; m++ {
		select {
		case <-tick.C:
			s.setMark(m)
		case <-ctx.Done():
			return
		}
	}
}

// bandwidth returns what a node sends, on average over all and over d.
func (f *fleet) bandwidth(d time.Duration) (udp, tcp float64) {
	count := func() (udp, tcp float64) {
		for _, s := range f.ships {
			udp += float64(s.antenna.udp.Load())
			tcp += float64(s.antenna.tcp.Load())
		}
		return udp, tcp
	}
	udp0, tcp0 := count()
	time.Sleep(d)
	udp, tcp = count()
	n := d.Seconds() * float64(len(f.ships))
	return (udp - udp0) / n, (tcp - tcp0) / n
}
