package forward

import (
	"math"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// picks counts what n picks of an idle pool give, by the last byte of the address.
func picks(r *Registry, n int) map[byte]int {
	p := r.Load().pools["web"]
	counts := map[byte]int{}
	for range n {
		counts[p.pick(0, false, nil).id.address.Addr().As4()[3]]++
	}
	return counts
}

// isShare reports whether count of n is what a probability gives, six standard
// deviations to either side: a right one is refused once in 10⁸ times.
func isShare(count, n int, probability float64) bool {
	mean := float64(n) * probability
	return math.Abs(float64(count)-mean) <= 6*math.Sqrt(mean*(1-probability))+6
}

// TestSlowStart follows a pool of two through the outage of one.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20_000
		pools := &fakePools{}
		r := newRegistry(t, Options{Pools: pools})
		publish := func(slow time.Duration, up1, up2 bool) {
			members := many(2)
			members[0].Weight, members[1].Weight = 1, 1
			members[0].Active, members[1].Active = up1, up2
			pools.publish(ServicePool{Service: "web", SlowStart: slow, Members: members})
			r.Load()
		}
		// want compares the second backend's part of the picks with a share of its weight.
		want := func(when string, share float64) {
			t.Helper()
			if got := picks(r, n)[2]; !isShare(got, n, share/(1+share)) {
				t.Errorf("%s: got %d of %d picks, want about %.0f", when, got, n, n*share/(1+share))
			}
			if got := r.Snapshot()[1].Share; math.Abs(got-share) > 0.01 {
				t.Errorf("%s: the status says %.3f, want %.3f", when, got, share)
			}
		}
		const slow = 10 * time.Second
		publish(slow, true, true)
		want("first appearance", 1)
		publish(slow, true, false)
		time.Sleep(time.Minute)
		if got := picks(r, 100); got[2] != 0 {
			t.Errorf("while out: %v", got)
		}
		publish(slow, true, true)
		want("at once", 0.05)
		time.Sleep(slow / 2)
		want("half way", 0.525)
		publish(slow, true, true)
		want("half way, with a new plan", 0.525)
		publish(slow, false, true)
		if got := picks(r, 100); got[2] != 100 {
			t.Errorf("alone: %v, want everything", got)
		}
		publish(slow, true, true) // now the first has been out, too
		if got, share := picks(r, n)[1], 0.05/(0.525+0.05); !isShare(got, n, share) {
			t.Errorf("both: the first got %d of %d, want about %.0f", got, n, n*share)
		}
		time.Sleep(slow)
		want("when it is over", 1)
		if r.Load().pools["web"].ramping.Load() {
			t.Error("picks still look at the clock")
		}
		publish(slow, true, false)
		publish(0, true, true)
		want("without slow start", 1)
		publish(slow, true, true)
		want("with slow start since a reload", 1)
		publish(slow, true, false)
		publish(slow, true, true)
		want("again", 0.05)
		publish(0, true, true)
		want("switched off by a reload", 1)
	})
}

// TestSlowStartOfNewcomers: what was not in the plan is no backend that came back.
func TestSlowStartOfNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pools := &fakePools{}
		r := newRegistry(t, Options{Pools: pools})
		all := many(3)
		pool := func(members ...Member) ServicePool {
			return ServicePool{Service: "web", SlowStart: time.Hour, Members: members}
		}
		pools.publish(pool(all[0]))
		r.Load()
		time.Sleep(time.Minute)
		pools.publish(pool(all...))
		for _, s := range r.Snapshot() {
			if s.Share != 1 {
				t.Errorf("%s has a share of %v", s.Address, s.Share)
			}
		}
		out := all[2]
		out.Active = false
		pools.publish(pool(all[0], all[1], out))
		r.Load()
		pools.publish(pool(all[0], all[1]))
		r.Load()
		pools.publish(pool(all...))
		if got := r.Snapshot()[2].Share; got != 1 {
			t.Errorf("configured anew: has a share of %v", got)
		}
	})
}

// TestSlowStartUnderLoad: a backend that came back carries little although it is
// the least loaded of all.
func TestSlowStartUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pools := &fakePools{}
		r := newRegistry(t, Options{Pools: pools})
		members := many(4)
		for i := range members {
			members[i].Weight = 1
		}
		publish := func(active bool) *pool {
			members[3].Active = active
			pools.publish(ServicePool{Service: "web", SlowStart: time.Hour, Members: members})
			return r.Load().pools["web"]
		}
		publish(true)
		p := publish(false)
		for range 300 {
			p.pick(0, false, nil).begin()
		}
		p = publish(true)
		for range 300 { // nothing ever ends
			p.pick(0, false, nil).begin()
		}
		if got := p.active[3].inFlight.Load(); got < 1 || got > 40 {
			t.Errorf("it carries %d of 600, want about 5 %% of what the others carry (200)", got)
		}
	})
}

// TestShares: in every pool, whatever ramps, each backend gets its weight times
// its share.
func TestShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const slow = 1000
		p := &pool{first: -1}
		now := int64(1)
		p.now = func() int64 { return now }
		n := rapid.IntRange(2, 12).Draw(t, "backends")
		everybody := rapid.Bool().Draw(t, "everybody ramps")
		for i := range n {
			var r ramp
			if everybody || rapid.Bool().Draw(t, "ramps") {
				from := rapid.Int64Range(-2*slow, 0).Draw(t, "from")
				r = ramp{from: from, over: from + slow}
			}
			b := &Backend{registry: &Registry{penalty: time.Second, start: time.Now()}}
			b.id.address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i)}), 80)
			p.add(b, Member{Weight: rapid.IntRange(1, 100_000).Draw(t, "weight")}, r)
		}
		total := 0.0
		due := make([]float64, n)
		for i := range due {
			grown := min(1, float64(now-p.ramps[i].from)/slow)
			if p.ramps[i] == (ramp{}) {
				grown = 1
			}
			due[i] = float64(p.weights[i]) * (0.05 + 0.95*grown)
			total += due[i]
		}
		const tries = 20_000
		counts := make([]int, n)
		for range tries {
			at := p.rampTime()
			if at == 0 {
				counts[p.draw()]++
			} else {
				counts[p.drawShare(at)]++
			}
		}
		for i, count := range counts {
			// The shares are whole 1024ths, so a small one is off by up to 1 in 50.
			want := due[i] / total
			if !isShare(count, tries, want*0.98) && !isShare(count, tries, min(1, want*1.02)) && !isShare(count, tries, want) {
				t.Fatalf("backend %d got %d of %d, want %.4f: weights %v, ramps %v", i, count, tries, want, p.weights, p.ramps)
			}
		}
	})
}

func TestResting(t *testing.T) {
	pools := &fakePools{}
	r := newRegistry(t, Options{Pools: pools})
	publish := func(resting ...bool) map[byte]int {
		members := many(len(resting))
		for i := range members {
			members[i].Resting = resting[i]
		}
		members[0].Active = false
		pools.publish(ServicePool{Service: "web", Members: members})
		return picks(r, 1000)
	}
	if got := publish(false, true, false); got[3] != 1000 {
		t.Errorf("one rests: %v, want everything for the other", got)
	}
	if s := r.Snapshot()[1]; s.Active {
		t.Error("one that rests is said to take new connections")
	}
	if got := publish(false, true, true); got[2] == 0 || got[3] == 0 || got[1] != 0 {
		t.Errorf("all rest: %v, want work for both that are up", got)
	}
	if got := publish(false, false, false); got[2] == 0 || got[3] == 0 {
		t.Errorf("none rests: %v", got)
	}
}

func TestIsShareCanFail(t *testing.T) {
	if isShare(5500, 20_000, 0.25) || !isShare(5050, 20_000, 0.25) {
		t.Error("the bound is wrong")
	}
}
