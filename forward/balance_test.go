package forward

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/steer"
)

var allAlgorithms = []Algorithm{PowerOfTwo, Latency, RoundRobin, LeastLoad, Maglev, Bounded, Ring, Source}

// balanced is a registry with one service of n members, each of the weight that weigh says.
func balanced(t testing.TB, policy Policy, n int, weigh func(i int) int) (*Registry, *fakePools, []Member) {
	t.Helper()
	members := make([]Member, n)
	for i := range members {
		base := weigh(i)
		members[i] = Member{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80),
			Weight:  base * steer.FullWeight, Base: base, Active: true,
		}
	}
	pools := &fakePools{}
	pools.publish(ServicePool{Service: "web", Policy: policy, Members: members})
	r, err := New(Options{Pools: pools})
	if err != nil {
		t.Fatal(err)
	}
	return r, pools, members
}

func one(int) int { return 1 }

// key is the hash of the i-th client.
func key(e *Edition, i int) uint64 {
	return e.Key("web", false).Addr(netip.AddrFrom4([4]byte{172, byte(i >> 16), byte(i >> 8), byte(i)}))
}

// TestWorkIsSharedByWeight: work that ends at once, so that load says nothing.
func TestWorkIsSharedByWeight(t *testing.T) {
	for _, algorithm := range allAlgorithms {
		t.Run(algorithm.String(), func(t *testing.T) {
			const n, tries = 10, 60_000
			r, _, _ := balanced(t, Policy{Algorithm: algorithm}, n, func(i int) int { return 1 + i%3 })
			e := r.Load()
			counts := map[*Backend]int{}
			for i := range tries {
				b, err := e.Pick("web", Terms{Key: key(e, i)}, nil)
				if err != nil {
					t.Fatal(err)
				}
				counts[b]++
				if algorithm != Latency { // which compares load, and it would always be the first
					b.Done()
				}
			}
			within := 0.1          // six standard deviations of the smallest
			if algorithm == Ring { // 160 points for a weight of 1 are not more even than that
				within = 0.35
			}
			for b, got := range counts {
				weight := 1 + int(b.Address().Addr().As4()[3])%3
				want := float64(tries) * float64(weight) / 19
				if math.Abs(float64(got)-want) > within*want {
					t.Errorf("%s of weight %d got %d, want %.0f", b.Address(), weight, got, want)
				}
			}
		})
	}
}

// TestLoadEvensOut: work that never ends spreads by weight with those that look at load.
func TestLoadEvensOut(t *testing.T) {
	for _, algorithm := range []Algorithm{PowerOfTwo, LeastLoad, Bounded, Latency} {
		r, _, _ := balanced(t, Policy{Algorithm: algorithm, Load: 1.1}, 6, func(i int) int { return 1 + i%2 })
		e := r.Load()
		for range 9000 {
			if _, err := e.Pick("web", Terms{Key: 42}, nil); err != nil { // one client alone
				t.Fatal(err)
			}
		}
		for _, s := range r.Snapshot() {
			want := 1000.0 * float64(1+int(s.Address.Addr().As4()[3])%2)
			got := float64(s.InFlight)
			if algorithm == Bounded && got <= 1.1*want+1 {
				continue // who comes last for a key has what the others may not
			}
			if math.Abs(got-want) > 0.12*want {
				t.Errorf("%s: %s carries %.0f, want %.0f", algorithm, s.Address, got, want)
			}
		}
	}
}

// TestNodesAgree: registries that heard of the backends in another order send each client to the same one, and
// so they do while some are down.
func TestNodesAgree(t *testing.T) {
	for _, algorithm := range []Algorithm{Maglev, Bounded, Ring, Source} {
		policy := Policy{Algorithm: algorithm}
		a, aPools, members := balanced(t, policy, 20, one)
		b, bPools, _ := balanced(t, policy, 20, one)
		mixed := slices.Clone(members)
		slices.Reverse(mixed)
		for _, down := range []int{0, 1, 7} {
			for i := range members {
				members[i].Active = i >= down
				mixed[len(mixed)-1-i].Active = i >= down
			}
			aPools.publish(ServicePool{Service: "web", Policy: policy, Members: members})
			bPools.publish(ServicePool{Service: "web", Policy: policy, Members: mixed})
			for i := range 5000 {
				x, err := a.Load().Pick("web", Terms{Key: key(a.Load(), i)}, nil)
				if err != nil {
					t.Fatal(err)
				}
				y, err := b.Load().Pick("web", Terms{Key: key(b.Load(), i)}, nil)
				if err != nil {
					t.Fatal(err)
				}
				if x.Address() != y.Address() {
					t.Fatalf("%s, %d down: client %d goes to %s here and to %s there", algorithm, down, i, x.Address(), y.Address())
				}
				x.Done()
				y.Done()
			}
		}
	}
}

// TestGoingDownMovesNobodyElse: and coming back brings everybody back.
func TestGoingDownMovesNobodyElse(t *testing.T) {
	for _, algorithm := range []Algorithm{Maglev, Ring, Source} {
		policy := Policy{Algorithm: algorithm}
		r, pools, members := balanced(t, policy, 30, one)
		where := func() []netip.AddrPort {
			e := r.Load()
			out := make([]netip.AddrPort, 5000)
			for i := range out {
				b, err := e.Pick("web", Terms{Key: key(e, i)}, nil)
				if err != nil {
					t.Fatal(err)
				}
				b.Done()
				out[i] = b.Address()
			}
			return out
		}
		before := where()
		members = slices.Clone(members)
		for _, i := range []int{3, 4} {
			members[i].Active = false
		}
		pools.publish(ServicePool{Service: "web", Policy: policy, Members: members})
		heirs := map[netip.AddrPort]int{}
		for i, now := range where() {
			gone := before[i] == members[3].Address || before[i] == members[4].Address
			switch {
			case gone:
				heirs[now]++
			case now != before[i]:
				t.Fatalf("%s: client %d moved from %s, which is up, to %s", algorithm, i, before[i], now)
			}
		}
		if len(heirs) < 20 {
			t.Errorf("%s: only %d backends inherit the work of those that are down", algorithm, len(heirs))
		}
		members[3].Active, members[4].Active = true, true
		pools.publish(ServicePool{Service: "web", Policy: policy, Members: slices.Clone(members)})
		if !slices.Equal(where(), before) {
			t.Errorf("%s: not everybody came back", algorithm)
		}
	}
}

// TestHalfAWeightTakesHalfTheKeys: what a backend asks for, and a slow start, count with hashing as well, and
// move no key that need not move.
func TestHalfAWeightTakesHalfTheKeys(t *testing.T) {
	policy := Policy{Algorithm: Maglev}
	r, pools, members := balanced(t, policy, 10, one)
	const clients = 20_000
	where := func() (out [clients]netip.AddrPort) {
		e := r.Load()
		for i := range out {
			b, err := e.Pick("web", Terms{Key: key(e, i)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			b.Done()
			out[i] = b.Address()
		}
		return out
	}
	before := where()
	members = slices.Clone(members)
	members[2].Weight /= 2
	pools.publish(ServicePool{Service: "web", Policy: policy, Members: members})
	kept, left := 0, 0
	for i, now := range where() {
		switch {
		case before[i] == members[2].Address && now == before[i]:
			kept++
		case before[i] == members[2].Address:
			left++
		case now != before[i]:
			t.Fatalf("client %d moved from %s to %s", i, before[i], now)
		}
	}
	if share := float64(kept) / float64(kept+left); math.Abs(share-0.5) > 0.05 {
		t.Errorf("it kept %.2f of its clients, want half", share)
	}
}

func TestHashedWorkGoesElsewhereWhenRefused(t *testing.T) {
	for _, algorithm := range []Algorithm{Maglev, Bounded, Ring, Source} {
		r, _, _ := balanced(t, Policy{Algorithm: algorithm}, 5, one)
		e := r.Load()
		for i := range 200 {
			var tried []*Backend
			for range 5 {
				b, err := e.Pick("web", Terms{Key: key(e, i)}, tried)
				if err != nil {
					t.Fatalf("%s: %v", algorithm, err)
				}
				if slices.Contains(tried, b) {
					t.Fatalf("%s: %s was tried already", algorithm, b.Address())
				}
				tried = append(tried, b)
			}
			if _, err := e.Pick("web", Terms{Key: key(e, i)}, tried); !errors.Is(err, ErrNoBackend) {
				t.Fatalf("%s: with all tried got %v, want ErrNoBackend", algorithm, err)
			}
		}
	}
}

func TestDatagramsAreHashedUnlessOtherwiseChosen(t *testing.T) {
	r, pools, members := balanced(t, Policy{Auto: true}, 8, one)
	if got := r.Load().Key("web", true).Kind; got != KeyFlow {
		t.Errorf("key is %d, want the flow", got)
	}
	if got := r.Load().Key("web", false).Kind; got != KeyNone {
		t.Errorf("key of connections is %d, want none", got)
	}
	seen := map[netip.AddrPort]bool{}
	for range 50 {
		b, err := r.Load().Pick("web", Terms{Key: 7 << 50, Datagram: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.Done()
		seen[b.Address()] = true
	}
	if len(seen) != 1 {
		t.Errorf("one flow went to %d backends", len(seen))
	}
	pools.publish(ServicePool{Service: "web", Policy: Policy{Algorithm: RoundRobin}, Members: members})
	if got := r.Load().Key("web", true).Kind; got != KeyNone {
		t.Errorf("with round-robin the key is %d, want none", got)
	}
}

func TestLatencyAvoidsTheSlow(t *testing.T) {
	r, _, _ := balanced(t, Policy{Algorithm: Latency}, 4, one)
	e := r.Load()
	counts := map[byte]int{}
	for range 4000 {
		b, err := e.Pick("web", Terms{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		last := b.Address().Addr().As4()[3]
		counts[last]++
		took := time.Millisecond
		if last == 0 {
			took = 50 * time.Millisecond
		}
		b.Observe(took)
		b.Done()
	}
	if counts[0] > 40 { // once, and again each time that it has faded
		t.Errorf("the slow one got %d of 4000: %v", counts[0], counts)
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, algorithm := range allAlgorithms {
		r, _, _ := balanced(t, Policy{Algorithm: algorithm, Limit: Limit{PerBackend: 10}}, 10, one)
		e := r.Load()
		k := key(e, 1)
		if n := testing.AllocsPerRun(1000, func() {
			b, err := e.Pick("web", Terms{Key: k}, nil)
			if err == nil {
				b.Done()
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations, want 0", algorithm, n)
		}
	}
}

func TestLimitHoldsAndQueues(t *testing.T) {
	policy := Policy{Limit: Limit{PerBackend: 2, Queue: 1, Wait: time.Minute}}
	r, _, _ := balanced(t, policy, 2, one)
	e := r.Load()
	var held []*Backend
	for range 4 {
		b, err := e.Pick("web", Terms{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, b)
	}
	if _, err := e.Pick("web", Terms{}, nil); !errors.Is(err, ErrFull) {
		t.Fatalf("with all full got %v, want ErrFull", err)
	}
	got := make(chan *Backend, 1)
	go func() {
		b, err := e.Await(context.Background(), "web", Terms{})
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	for r.Queues()[0].Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := e.Await(t.Context(), "web", Terms{}); !errors.Is(err, ErrLineFull) {
		t.Errorf("with the queue full got %v, want ErrLineFull", err)
	}
	held[3].Done()
	if b := <-got; b != held[3] {
		t.Errorf("got %v, want the one that was given back", b)
	}
	if q := r.Queues()[0]; q.Waiting != 0 || q.Waited != 1 || q.Full != 1 {
		t.Errorf("queue is %+v", q)
	}
}

func TestQueueingEnds(t *testing.T) {
	r, _, _ := balanced(t, Policy{Limit: Limit{PerBackend: 1, Queue: 5, Wait: 5 * time.Millisecond}}, 1, one)
	e := r.Load()
	b, err := e.Pick("web", Terms{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Await(t.Context(), "web", Terms{}); !errors.Is(err, ErrLineWaits) {
		t.Errorf("got %v, want ErrLineWaits", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Await(ctx, "web", Terms{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the caller gave up", err)
	}
	b.Done()
	if b, err := e.Pick("web", Terms{}, nil); err != nil || b.Address() == (netip.AddrPort{}) {
		t.Errorf("after all: %v", err)
	}
	if q := r.Queues()[0]; q.Waiting != 0 || q.Late != 1 {
		t.Errorf("queue is %+v", q)
	}
}

// TestQueueLosesNobody: many workers at a small limit; each gets its turn, none is woken in vain for ever.
func TestQueueLosesNobody(t *testing.T) {
	r, _, _ := balanced(t, Policy{Limit: Limit{PerBackend: 1, Queue: 1000, Wait: time.Minute}}, 3, one)
	const workers, rounds = 30, 200
	done := make(chan error, workers)
	for range workers {
		go func() {
			for range rounds {
				e := r.Load()
				b, err := e.Pick("web", Terms{}, nil)
				if errors.Is(err, ErrFull) {
					b, err = e.Await(context.Background(), "web", Terms{})
				}
				if err != nil {
					done <- err
					return
				}
				if n := b.inFlight.Load(); n > 2 { // a begin that backs off may show for a moment
					done <- fmt.Errorf("%d leases of a backend that may have 1", n)
					return
				}
				b.Done()
			}
			done <- nil
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range r.Snapshot() {
		if s.InFlight != 0 {
			t.Errorf("%s still carries %d", s.Address, s.InFlight)
		}
	}
}

func TestErrorsInARowEject(t *testing.T) {
	e := Ejection{Errors: 3, For: time.Hour, MaxShare: 0.5}
	r, _, _ := balanced(t, Policy{Eject: e}, 4, one)
	edition := r.Load()
	bad := edition.pools["web"].active[:3]
	for _, b := range bad {
		for _, ok := range []bool{false, false, true, false, false} {
			b.Tell(ok)
		}
		if b.ejected() {
			t.Fatal("ejected after 2 in a row, want 3")
		}
		b.Tell(false)
	}
	for i, b := range bad {
		if want := i < 2; b.ejected() != want { // half of four
			t.Errorf("%d ejected: %v, want %v", i, b.ejected(), want)
		}
	}
	for range 1000 {
		b, err := edition.Pick("web", Terms{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.Done()
		if b == bad[0] || b == bad[1] {
			t.Fatalf("picked %s, which is ejected", b.Address())
		}
	}
	s := r.Snapshot()
	if s[0].EjectedFor != "errors" || s[0].Ejected <= 0 || s[0].Ejections["errors"] != 1 || s[2].EjectionsHeld != 1 {
		t.Errorf("snapshot says %+v and %+v", s[0], s[2])
	}
}

func TestEjectionsGrowAndAreForgiven(t *testing.T) {
	policy := Policy{Eject: Ejection{Errors: 1, For: time.Minute, MaxFor: 3 * time.Minute}}
	r, _, _ := balanced(t, policy, 3, one)
	b := r.Load().pools["web"].active[0]
	eject := func() time.Duration {
		b.Tell(false)
		return time.Duration(b.record.until.Load() - r.now()).Round(time.Second)
	}
	pass := func(d time.Duration) { r.start = r.start.Add(-d) }
	if got := eject(); got != time.Minute {
		t.Errorf("the first lasts %s, want 1m", got)
	}
	pass(time.Minute)
	if got := eject(); got != 2*time.Minute {
		t.Errorf("the second lasts %s, want 2m", got)
	}
	pass(2 * time.Minute)
	if got := eject(); got != 3*time.Minute {
		t.Errorf("the third lasts %s, want max_for, 3m", got)
	}
	pass(time.Hour)
	if b.ejected() {
		t.Error("still ejected after an hour")
	}
	if got := eject(); got != time.Minute {
		t.Errorf("after an hour without it lasts %s, want 1m again", got)
	}
}

func TestTheOddOneOutIsEjected(t *testing.T) {
	tests := []struct {
		name  string
		eject Ejection
		work  func(i int) (ok bool, took time.Duration)
		want  string
	}{
		{"success rate", Ejection{SuccessRate: 0.8}, func(i int) (bool, time.Duration) { return i != 0, time.Millisecond }, "success-rate"},
		{"latency", Ejection{Latency: 3}, func(i int) (bool, time.Duration) {
			if i == 0 {
				return true, 10 * time.Millisecond
			}
			return true, time.Millisecond
		}, "latency"},
		{"all alike", Ejection{SuccessRate: 0.8, Latency: 3}, func(int) (bool, time.Duration) { return false, time.Second }, ""},
	}
	for _, tt := range tests {
		r, _, _ := balanced(t, Policy{Eject: tt.eject}, 5, one)
		for i, b := range r.Load().pools["web"].active {
			for range 30 {
				ok, took := tt.work(i)
				b.Observe(took)
				b.Tell(ok)
			}
		}
		r.start = r.start.Add(-time.Minute) // the window is over
		r.Sweep(time.Now())
		for i, s := range r.Snapshot() {
			want := ""
			if i == 0 {
				want = tt.want
			}
			if s.EjectedFor != want {
				t.Errorf("%s: backend %d is ejected for %q, want %q", tt.name, i, s.EjectedFor, want)
			}
		}
	}
}

func BenchmarkAlgorithms(b *testing.B) {
	for _, algorithm := range allAlgorithms {
		for _, n := range []int{10, 100} {
			b.Run(fmt.Sprintf("%s-%d", algorithm, n), func(b *testing.B) {
				r, _, _ := balanced(b, Policy{Algorithm: algorithm}, n, one)
				e := r.Load()
				k := key(e, 1)
				b.ReportAllocs()
				for b.Loop() {
					k += 0x9e3779b97f4a7c15
					x, err := e.Pick("web", Terms{Key: k}, nil)
					if err != nil {
						b.Fatal(err)
					}
					x.Done()
				}
			})
		}
	}
}
