package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// Options say what is played. Zero fields are chosen by the seed.
type Options struct {
	// Seed determines everything.
	Seed uint64
	// Sites and PerSite are the size of the fleet.
	Sites, PerSite int
	// Storm is how long the bad weather lasts; default 60 s.
	Storm time.Duration
	// MinSites is the minimum of sites of the service that is everywhere; default 1.
	MinSites int
	// Lone has nothing happen but one mad node, or one mad site: by itself it
	// must change no verdict on anybody else.
	Lone bool
	// Blackout has nothing happen but that every link between sites is cut for the
	// whole storm: no route may be withdrawn for that.
	Blackout bool
}

// A Result is what came of a run.
type Result struct {
	Options Options
	// Violations are the broken invariants, each with its time and node; at most
	// maxViolations.
	Violations []string
	// Simulated is the time played, Steps how often a node decided or judged.
	Simulated time.Duration
	Steps     int
	// Acknowledged counts the operators' orders that a majority held.
	Acknowledged int
	// Log is what the weather did, one line each.
	Log []string
}

const (
	// warmUp is how long the fleet has to come up in good weather, calm how long it
	// has to agree after the storm.
	warmUp = 12 * time.Second
	calm   = 50 * time.Second
	// agreeWithin is when all must agree after the storm.
	agreeWithin   = 30 * time.Second
	maxViolations = 20
	// maxSites and maxPerSite bound the fleets that seeds choose; Options may ask for more.
	maxSites, maxPerSite = 7, 3
)

// start is the world's time at the beginning of every run.
var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// Run plays one seed.
func Run(o Options) *Result {
	w := newWorld(o)
	w.at(0, w.bringUp)
	switch {
	case o.Lone:
		w.planLoneMadness()
	case o.Blackout:
		w.planBlackout()
	default:
		w.planWeather()
	}
	end := warmUp + w.o.Storm + calm
	w.end = end
	w.at(warmUp+w.o.Storm, w.clear)
	w.at(warmUp+w.o.Storm+agreeWithin, w.checkAgreement)
	w.at(warmUp+w.o.Storm+agreeWithin+time.Second, w.drill)
	w.at(end, w.checkAgreement)
	w.at(end, w.checkTruth)
	w.play()
	return &Result{Options: w.o, Violations: w.violations, Simulated: end, Steps: w.steps, Acknowledged: w.acknowledged, Log: w.log}
}

// An event happens at a time; those of one time in the order they were made.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// events is a heap of four children a node, the next event first. container/heap would put
// every event into an interface: a tenth of a run's time.
type events []event

func (q *events) push(e event) {
	*q = append(*q, e)
	h := *q
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
}

func (q *events) pop() event {
	h := *q
	first, last := h[0], h[len(h)-1]
	h[len(h)-1] = event{}
	h = h[:len(h)-1]
	*q = h
	if len(h) == 0 {
		return first
	}
	i := 0
	for {
		least := 4*i + 1
		if least >= len(h) {
			break
		}
		for k := least + 1; k < min(4*i+5, len(h)); k++ {
			if h[k].before(&h[least]) {
				least = k
			}
		}
		if !h[least].before(&last) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = last
	return first
}

// A world is one run.
type world struct {
	o      Options
	random *rand.Rand
	now    time.Duration // since start
	queue  events
	seq    uint64
	steps  int
	end    time.Duration // of the run; a check that has to wait puts it off

	fleet    *fleet
	machines []*machine
	net      network
	// backendDown is the truth on the backends, by position in the layout.
	backendDown []bool
	// honestDown is when an honest observer last found a target down; -1 = never.
	honestDown []time.Duration
	history    health.History
	standings  map[netip.Prefix][]standing // by site
	stormy     bool
	// mad: somebody was mad in this run. acknowledged counts the orders that were.
	mad          bool
	ordered      []health.Scope // what operators ordered something for, in time's order
	acknowledged int
	lone         int // the site of the lone mad machine; -1 = nobody
	violations   []string
	log          []string
}

// newWorld draws what the options leave open.
func newWorld(o Options) *world {
	random := rand.New(rand.NewPCG(o.Seed, 0x70686172))
	if o.Sites == 0 {
		o.Sites = 2 + random.IntN(maxSites-1)
		if o.Lone {
			o.Sites = 4 + random.IntN(maxSites-3)
		}
	}
	if o.PerSite == 0 {
		o.PerSite = 1 + random.IntN(maxPerSite)
	}
	if o.Storm == 0 {
		o.Storm = time.Minute
	}
	w := &world{o: o, random: random, fleet: fleetOf(o.Sites, o.PerSite, max(o.MinSites, 1)), lone: -1, standings: map[netip.Prefix][]standing{}}
	targets := len(w.fleet.layout.Targets)
	w.backendDown = make([]bool, targets)
	w.honestDown = make([]time.Duration, targets)
	for i := range w.honestDown {
		w.honestDown[i] = -1
	}
	for i, name := range w.fleet.nodes {
		w.machines = append(w.machines, newMachine(w, i, name))
	}
	w.net = newNetwork(len(w.machines))
	return w
}

// at has f happen at a time of the run.
func (w *world) at(t time.Duration, f func()) {
	w.seq++
	w.queue.push(event{max(t, w.now), w.seq, f})
}

// in has f happen after d.
func (w *world) in(d time.Duration, f func()) { w.at(w.now+d, f) }

// play lets everything happen up to the end.
func (w *world) play() {
	for len(w.queue) > 0 && w.queue[0].at <= w.end && len(w.violations) < maxViolations {
		e := w.queue.pop()
		w.now = e.at
		e.do()
	}
}

// between draws a duration.
func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.random.Int64N(int64(most-least)+1))
}

func (w *world) chance(p float64) bool { return w.random.Float64() < p }

// violated records a broken invariant.
func (w *world) violated(m *machine, format string, args ...any) {
	who := "fleet"
	if m != nil {
		who = m.name
	}
	if len(w.violations) < maxViolations {
		w.violations = append(w.violations, fmt.Sprintf("%v %s: ", w.now, who)+fmt.Sprintf(format, args...))
	}
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%v ", w.now)+fmt.Sprintf(format, args...))
}

// bringUp starts every machine within a second.
func (w *world) bringUp() {
	for _, m := range w.machines {
		w.in(w.between(0, time.Second), func() { m.boot() })
	}
}
