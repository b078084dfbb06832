package forward

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An ejectReason says what a backend was ejected for.
type ejectReason uint8

const (
	ejectNot ejectReason = iota
	ejectErrors
	ejectSuccessRate
	ejectLatency
	ejectReasonCount
)

var ejectTexts = [ejectReasonCount]string{"", "errors", "success-rate", "latency"}

// String returns the reason as metrics label it.
func (e ejectReason) String() string { return ejectTexts[min(e, ejectReasonCount-1)] }

// Defaults of Ejection.
const (
	defaultEjectWindow  = 10 * time.Second
	defaultEjectFor     = 30 * time.Second
	defaultEjectMax     = 5 * time.Minute
	defaultEjectShare   = 0.5
	defaultEjectMinWork = 20
	// leastCompared is how many backends with enough work a median is taken of.
	leastCompared = 3
)

// withDefaults fills in what is zero.
func (e Ejection) withDefaults() Ejection {
	e.Window = cmp.Or(e.Window, defaultEjectWindow)
	e.For = cmp.Or(e.For, defaultEjectFor)
	e.MaxFor = max(cmp.Or(e.MaxFor, defaultEjectMax), e.For)
	e.MaxShare = cmp.Or(e.MaxShare, defaultEjectShare)
	e.MinWork = cmp.Or(e.MinWork, defaultEjectMinWork)
	return e
}

// A record is what a backend's work has come to, for ejection.
type record struct {
	until atomic.Int64 // registry time at which an ejection ends; 0 = not ejected
	why   atomic.Uint32
	row   atomic.Int32 // failures in a row
	good  atomic.Uint32
	bad   atomic.Uint32
	count [ejectReasonCount]atomic.Uint64
	held  atomic.Uint64 // ejections that MaxShare did not allow

	mu    sync.Mutex // guards the rest
	times float64    // how often it was ejected, as far as that is not forgiven
	last  int64      // registry time at which the newest ejection ends
}

// note counts an outcome and reports whether it is the last of so many failures in a row.
func (r *record) note(ok bool, most int) bool {
	if ok {
		if r.row.Load() != 0 {
			r.row.Store(0)
		}
		r.good.Add(1)
		return false
	}
	r.bad.Add(1)
	return r.row.Add(1) >= int32(most) && most > 0
}

// ejected reports whether it is passed over now. It looks at the clock only if it was ejected.
func (b *Backend) ejected() bool {
	until := b.record.until.Load()
	if until == 0 {
		return false
	}
	if b.registry.now() < until {
		return true
	}
	if b.record.until.CompareAndSwap(until, 0) {
		b.record.row.Store(0)
	}
	return false
}

// judge lets an outcome count for ejection.
func (b *Backend) judge(ok bool) {
	policy := b.policy.Load()
	if policy == nil || !policy.Eject.on() {
		return
	}
	if b.record.note(ok, policy.Eject.Errors) && !b.ejected() {
		b.registry.eject(b, &policy.Eject, ejectErrors)
	}
}

// eject passes b over for a while, unless too many of its pool are already.
func (r *Registry) eject(b *Backend, e *Ejection, why ejectReason) {
	r.ejecting.Lock()
	defer r.ejecting.Unlock()
	p := r.edition.Load().pools[b.id.service]
	if p == nil || b.ejected() {
		return
	}
	out := 0
	for _, other := range p.active {
		if other.ejected() {
			out++
		}
	}
	n := len(p.active)
	if n < 2 || (out > 0 && float64(out+1) > e.MaxShare*float64(n)) {
		b.record.held.Add(1)
		return
	}
	now := r.now()
	rec := &b.record
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.times = max(rec.times-float64(max(now-rec.last, 0))/float64(e.For), 0)
	lasts := time.Duration(min(float64(e.For)*math.Exp2(rec.times), float64(e.MaxFor)))
	rec.times = min(rec.times+1, 30)
	rec.last = now + int64(lasts)
	rec.why.Store(uint32(why))
	rec.count[why].Add(1)
	rec.until.Store(rec.last)
}

// compare looks at the success rates and latencies of every pool whose window is over.
func (r *Registry) compare() {
	e := r.edition.Load()
	if e == nil {
		return
	}
	now := r.now()
	for _, p := range e.pools {
		ej := &p.policy.Eject
		if ej.SuccessRate == 0 && ej.Latency == 0 {
			continue
		}
		if last := p.group.compared.Load(); now-last < int64(ej.Window) || !p.group.compared.CompareAndSwap(last, now) {
			continue
		}
		p.comparePool(r, ej, now)
	}
}

func (p *pool) comparePool(r *Registry, e *Ejection, now int64) {
	type seen struct {
		b             *Backend
		rate, latency float64
	}
	var all []seen
	for _, b := range p.active {
		good, bad := b.record.good.Swap(0), b.record.bad.Swap(0)
		if total := good + bad; int(total) >= e.MinWork && !b.ejected() {
			all = append(all, seen{b, float64(good) / float64(total), b.latency.at(now, false)})
		}
	}
	if len(all) < leastCompared {
		return
	}
	median := func(of func(seen) float64) float64 {
		values := make([]float64, len(all))
		for i, s := range all {
			values[i] = of(s)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	rate := median(func(s seen) float64 { return s.rate })
	slow := median(func(s seen) float64 { return s.latency })
	for _, s := range all {
		switch {
		case e.SuccessRate > 0 && s.rate < e.SuccessRate*rate:
			r.eject(s.b, e, ejectSuccessRate)
		case e.Latency > 0 && s.latency > e.Latency*slow:
			r.eject(s.b, e, ejectLatency)
		}
	}
}
