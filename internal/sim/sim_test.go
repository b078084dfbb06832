package sim

import (
	"flag"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds  = flag.Int("seeds", defaultSeeds, "how many seeds TestSeeds plays")
	enough = flag.Int("enough", 10, "after how many failing seeds TestSeeds stops")
	seed   = flag.Uint64("seed", 0, "the one seed that TestSeeds plays, with its weather")
)

// optionsOf is what a seed plays: every fifth a lone madness, every tenth a service that needs two sites, every hundredth a
// large fleet, every thousandth one of 200 nodes.
func optionsOf(seed uint64) Options {
	o := Options{Seed: seed, Lone: seed%5 == 4}
	if seed%10 == 3 {
		o.MinSites = 2
	}
	switch {
	case seed%1000 == 500:
		o.Sites, o.PerSite, o.Storm = 50, 4, 20*time.Second
	case seed%100 == 50:
		o.Sites, o.PerSite = 20, 2
	case seed%100 == 25:
		o.Blackout, o.Storm = true, 5*time.Minute
	}
	return o
}

// sayEvery is after how many seeds a long run says how far it is.
const sayEvery = 5000

// TestSeeds plays seeds and holds every step against the invariants. A seed that
// breaks one is printed; `go test ./internal/sim -run TestSeeds -seed N -v` plays it again.
func TestSeeds(t *testing.T) {
	first, last := uint64(1), uint64(*seeds)
	if *seed != 0 {
		first, last = *seed, *seed
	}
	began := time.Now()
	var next, steps, simulated, acknowledged, bad atomic.Int64
	next.Store(int64(first) - 1)
	var failed sync.Map
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for n := uint64(next.Add(1)); n <= last; n = uint64(next.Add(1)) {
				r := Run(optionsOf(n))
				steps.Add(int64(r.Steps))
				simulated.Add(int64(r.Simulated))
				acknowledged.Add(int64(r.Acknowledged))
				if len(r.Violations) > 0 || *seed != 0 {
					failed.Store(n, r)
				}
				if len(r.Violations) > 0 {
					t.Logf("seed %d fails", n) // long before the end of a long run
				}
				if len(r.Violations) > 0 && bad.Add(1) >= int64(*enough) {
					return
				}
				if n%sayEvery == 0 {
					t.Logf("%d seeds, %d failed, after %v", n, bad.Load(), time.Since(began).Round(time.Second))
				}
			}
		})
	}
	wait.Wait()
	var results []*Result
	failed.Range(func(_, r any) bool { results = append(results, r.(*Result)); return true })
	slices.SortFunc(results, func(a, b *Result) int { return int(a.Options.Seed) - int(b.Options.Seed) })
	for _, r := range results {
		if *seed != 0 {
			t.Logf("%+v\n%s", r.Options, strings.Join(r.Log, "\n"))
		}
		if len(r.Violations) > 0 {
			t.Errorf("seed %d (%d sites of %d):\n  %s", r.Options.Seed, r.Options.Sites, r.Options.PerSite, strings.Join(r.Violations, "\n  "))
		}
	}
	played := time.Duration(simulated.Load())
	t.Logf("%d seeds, %d failed: %v simulated, %d steps, %d orders acknowledged, %.0f times real time",
		last-first+1, bad.Load(), played, steps.Load(), acknowledged.Load(), played.Seconds()/time.Since(began).Seconds())
}

// TestBlackout is the Facebook test: an hour without any link between the sites, and no route goes.
func TestBlackout(t *testing.T) {
	for n, sites := range []int{2, 3, 4, 7} {
		r := Run(Options{Seed: uint64(n + 1), Sites: sites, PerSite: 1 + n%2, Storm: time.Hour, Blackout: true})
		for _, v := range r.Violations {
			t.Errorf("%d sites: %s", sites, v)
		}
		t.Logf("%d sites: %v simulated, %d steps", sites, r.Simulated, r.Steps)
	}
}

// TestReplay plays seeds twice: the same weather, the same steps.
func TestReplay(t *testing.T) {
	for n := uint64(1); n <= 6; n++ {
		first, second := Run(optionsOf(n)), Run(optionsOf(n))
		if !slices.Equal(first.Log, second.Log) || first.Steps != second.Steps || first.Acknowledged != second.Acknowledged {
			t.Errorf("seed %d: %d steps and %d orders, then %d and %d", n, first.Steps, first.Acknowledged, second.Steps, second.Acknowledged)
		}
	}
}

// TestSeedsThatFailed plays seeds that once broke an invariant, each for a reason of its own.
func TestSeedsThatFailed(t *testing.T) {
	for seed, why := range map[uint64]string{
		5911:  "a node that was frozen withdrew for what it had found before",
		9695:  "a node whose epoch was not saved did not listen to itself",
		12001: "an order over a drain over an order left without a word to the others",
		15380: "an order that ended a moment ago was on its way",
		19428: "a node that was frozen counted on a site that had died meanwhile",
		19442: "a node that was frozen passed on what its sockets had kept as if it were new",
		42170: "a site's word that settled what was held was on its way",
		88312: "a node that was frozen twice within half a minute went by what it had found before, as it should",
		89700: "the last node of a site to leave was outvoted by those that had left, and that still serve",
		21581: "a node without a disk and with a slow clock exchanged with those only who did not remember it",
	} {
		for _, v := range Run(optionsOf(seed)).Violations {
			t.Errorf("seed %d (%s): %s", seed, why, v)
		}
	}
}
