package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The reasons why work is refused while every backend has all it may have. They are
// wrapped with the service's name.
var (
	ErrFull      = errors.New("every backend is at its limit")
	ErrLineFull  = errors.New("every backend is at its limit, and so is the queue")
	ErrLineWaits = errors.New("waited too long for a backend below its limit")
	ErrLineStays = errors.New("the queue has not been empty for so long that nobody may wait long in it")
)

// Limited reports whether work got no backend because of Policy.Limit.
func Limited(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, ErrLineFull) || errors.Is(err, ErrLineWaits) || errors.Is(err, ErrLineStays)
}

// A line is who waits for a lease of a service, first come, first served.
type line struct {
	length  atomic.Int32 // of waiting; read without the lock on the way of every lease
	full    atomic.Uint64
	late    atomic.Uint64
	shed    atomic.Uint64
	waited  atomic.Uint64
	mu      sync.Mutex // guards the rest
	waiting []chan struct{}
	since   time.Time // when somebody joined an empty line; zero = it is empty
}

// hurry is by how much less may be waited in a line that stays: more comes than is done, so that to wait longer helps nobody, and
// those who are served soon get all there is (CoDel's idea, by the form in Maurer, "Fail at Scale", ACM Queue 13(8), 2015).
const hurry = 8

// patience is how long who joins at now may wait, usual as a rule. A line that has had somebody in it for as long as that is
// no burst any more.
func (l *line) patience(now time.Time, usual time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.since.IsZero() && now.Sub(l.since) >= usual {
		return usual / hurry
	}
	return usual
}

// counted has everybody know the length. The caller holds mu.
func (l *line) counted() {
	l.length.Store(int32(len(l.waiting)))
	switch {
	case len(l.waiting) == 0:
		l.since = time.Time{}
	case l.since.IsZero():
		l.since = time.Now()
	}
}

// join goes to the end, false if there are most already.
func (l *line) join(most int) (chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= most {
		return nil, false
	}
	turn := make(chan struct{}, 1)
	l.waiting = append(l.waiting, turn)
	l.counted()
	return turn, true
}

// again goes back to the front: it was its turn, and somebody else was faster.
func (l *line) again(turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = slices.Insert(l.waiting, 0, turn)
	l.counted()
}

// leave goes away. If its turn has come meanwhile, it is the next one's.
func (l *line) leave(turn chan struct{}) {
	l.mu.Lock()
	i := slices.Index(l.waiting, turn)
	if i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		l.counted()
	}
	l.mu.Unlock()
	if i < 0 {
		l.call()
	}
}

// call tells the first that it may try.
func (l *line) call() {
	if l.length.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return
	}
	l.waiting[0] <- struct{}{} // it has room: whoever is called is no longer in the line
	l.waiting = slices.Delete(l.waiting, 0, 1)
	l.counted()
}

// callAll tells everybody: the backends or their limits have changed.
func (l *line) callAll() {
	for range l.length.Load() {
		l.call()
	}
}

// wait queues until reserve succeeds, in the newest edition each time.
func (r *Registry) wait(ctx context.Context, g *group, limit Limit, service string, terms Terms) (*Backend, error) {
	if limit.Queue <= 0 {
		g.line.full.Add(1)
		return nil, fmt.Errorf("%w for service %q", ErrFull, service)
	}
	turn, ok := g.line.join(limit.Queue)
	if !ok {
		g.line.full.Add(1)
		return nil, fmt.Errorf("%w for service %q (%d wait)", ErrLineFull, service, limit.Queue)
	}
	g.line.waited.Add(1)
	patience := g.line.patience(time.Now(), limit.Wait)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	// One may have ended before we joined; of those who wait the first is to have it.
	for g.line.call(); ; g.line.again(turn) {
		select {
		case <-turn:
		case <-timer.C:
			g.line.leave(turn)
			if patience < limit.Wait {
				g.line.shed.Add(1)
				return nil, fmt.Errorf("%w: service %q (%s)", ErrLineStays, service, patience)
			}
			g.line.late.Add(1)
			return nil, fmt.Errorf("%w for service %q (%s)", ErrLineWaits, service, limit.Wait)
		case <-ctx.Done():
			g.line.leave(turn)
			return nil, ctx.Err()
		}
		p := r.Load().pools[service]
		if p == nil || len(p.active) == 0 {
			g.line.call()
			return nil, fmt.Errorf("%w for service %q", ErrNoBackend, service)
		}
		if b := p.reserve(terms.Key, terms.Datagram, nil); b != nil {
			return b, nil
		}
	}
}

// reserve picks a backend and begins a lease of it; nil when all that are left are full.
func (p *pool) reserve(key uint64, datagram bool, tried []*Backend) *Backend {
	for range maxRaces {
		b := p.pick(key, datagram, tried)
		if b == nil {
			return nil
		}
		if b.begin() {
			p.zoned.count(b)
			return b
		}
	}
	return nil
}

// maxRaces is how often another may be faster to take a backend's last lease.
const maxRaces = 16

// A Queue is who waits for the backends of a service at one moment.
type Queue struct {
	Service string
	Waiting int
	// Waited, Full, Late and Shed count those who had to queue, found no room in the queue, waited in vain, and
	// were sent away soon because the queue did not empty.
	Waited, Full, Late, Shed uint64
	// OverRate counts what Limit.Rate had no room for.
	OverRate uint64
	// Zoned: there are availability zones; Stayed counts what went to backends in this node's, Crossed to others.
	Zoned           bool
	Stayed, Crossed uint64
	// Overflowed counts what went to other sites' VIPs.
	Overflowed uint64
}

// Queues returns the queues of every service, sorted by it.
func (r *Registry) Queues() []Queue {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Queue, 0, len(r.groups))
	for _, g := range r.groups {
		out = append(out, Queue{
			Service: g.service, Waiting: int(g.line.length.Load()),
			Waited: g.line.waited.Load(), Full: g.line.full.Load(), Late: g.line.late.Load(), Shed: g.line.shed.Load(), OverRate: g.overRate.Load(),
			Stayed: g.stayed.Load(), Crossed: g.crossed.Load(), Overflowed: g.spilled.Load(),
		})
		q := &out[len(out)-1]
		if e := r.edition.Load(); e != nil && e.pools[g.service] != nil {
			q.Zoned = e.pools[g.service].zoned != nil
		}
	}
	slices.SortFunc(out, func(a, b Queue) int { return cmp.Compare(a.Service, b.Service) })
	return out
}
