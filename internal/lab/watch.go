package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/steer"
)

// StaleAfter is how long after the nodes of a site know that it is down every
// other node must have stopped answering with it.
const StaleAfter = 2 * time.Second

// watchEvery is how often each node is asked for its status.
const watchEvery = 250 * time.Millisecond

// A watch knows, from the nodes' own status, since when which site has been
// down in the eyes of its own nodes, and to whom they could have told it.
type watch struct {
	lab *Lab

	mu sync.Mutex // guards the rest
	// down is since when all living nodes of a site have said that no backend of
	// a service is up there; absent = they do not.
	down map[siteService]time.Time
	// open is since when news from a site could reach a node, by whatever way.
	open map[siteNode]time.Time
	// suspects are answers since the last look that name a site which was down
	// then: the site may have come back since, and the next look tells.
	suspects []suspect
	stale    Figures // Stale and Notes alone
}

// maxSuspects bounds watch.suspects: more in one look tell no more.
const maxSuspects = 10_000

// A suspect is an answer that names a site which was down by the last look.
type suspect struct {
	site siteService
	down time.Time
	note string
}

type siteService struct{ site, service string }

type siteNode struct {
	site string
	node int
}

func newWatch(l *Lab) *watch {
	return &watch{lab: l, down: map[siteService]time.Time{}, open: map[siteNode]time.Time{}}
}

// Run watches until ctx ends.
func (w *watch) Run(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		w.see(w.lab.statuses(ctx), w.lab.reachable(), time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// see takes one look: what the nodes say (nil for those that say nothing) and
// who reaches whom.
func (w *watch) see(statuses []*admin.Status, reach [][]bool, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	down, open := map[siteService]time.Time{}, map[siteNode]time.Time{}
	said := map[siteService][2]int{} // up, down
	for i, st := range statuses {
		if st == nil {
			continue
		}
		site := w.lab.siteOf(i)
		for _, svc := range st.Services {
			for _, at := range svc.Sites {
				if at.Site != site {
					continue
				}
				n := said[siteService{site, svc.Name}]
				// What is ordered is not a failure and has a bound of its own; a VIP that
				// others do not reach is their knowledge, not the site's.
				if !at.Eligible && !svc.FailOpen && at.Why == steer.ReasonBackendsDown {
					n[1]++
				} else {
					n[0]++
				}
				said[siteService{site, svc.Name}] = n
			}
		}
		for j := range statuses {
			if reach[i][j] {
				open[siteNode{site, j}] = now
			}
		}
	}
	for key, n := range said {
		if n[0] == 0 && n[1] > 0 {
			down[key] = now
		}
	}
	w.down, w.open = lasting(w.down, down), lasting(w.open, open)
	for _, s := range w.suspects {
		if since, still := w.down[s.site]; still && since.Equal(s.down) {
			w.stale.Stale++
			w.stale.note(s.note)
		}
	}
	w.suspects = nil
}

// lasting keeps the old time of what is still so.
func lasting[K comparable](old, now map[K]time.Time) map[K]time.Time {
	for key := range now {
		if since, ok := old[key]; ok {
			now[key] = since
		}
	}
	return now
}

// answered takes the sites that a node named at a moment. Those that it should
// not have named are counted once the next look confirms that they are down.
func (w *watch) answered(node int, service string, sites []string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	limit := at.Add(-StaleAfter - watchEvery) // the look may be this late
	for _, site := range sites {
		key := siteService{site, service}
		down, isDown := w.down[key]
		open, isOpen := w.open[siteNode{site, node}]
		if isDown && isOpen && down.Before(limit) && open.Before(limit) && len(w.suspects) < maxSuspects {
			w.suspects = append(w.suspects, suspect{key, down, fmt.Sprintf("%s: %s answered for service %s with site %s, whose nodes know that it is down",
				at.Format("15:04:05.000"), w.lab.nodes[node].name, service, site)})
		}
	}
}

// result returns the stale answers.
func (w *watch) result() Figures {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stale.clone()
}

// reachable tells for each pair of nodes whether news gets from the first to
// the second, directly or through other living nodes.
func (l *Lab) reachable() [][]bool {
	n := len(l.nodes)
	lives := make([]bool, n)
	member := make([]int, n)
	for i, p := range l.nodes {
		lives[i] = p.lives()
		member[i], _ = l.layout.node(p.name) // it is one
	}
	reach := make([][]bool, n)
	for i := range reach {
		reach[i] = make([]bool, n)
		for j := range reach[i] {
			reach[i][j] = lives[i] && lives[j] && (i == j || l.filter.passes(member[i], member[j]))
		}
	}
	for k := range n {
		for i := range n {
			for j := range n {
				reach[i][j] = reach[i][j] || reach[i][k] && reach[k][j]
			}
		}
	}
	return reach
}

// fingerprint writes what a node's plan says of the fleet: everything that must
// be the same on every node, and nothing that is a node's own.
func fingerprint(st *admin.Status) string {
	var b strings.Builder
	for _, svc := range st.Services {
		fmt.Fprintf(&b, "%s open=%t\n", svc.Name, svc.FailOpen)
		for _, site := range svc.Sites {
			fmt.Fprintf(&b, " %s %t %s\n", site.Site, site.Eligible, site.Why)
			for _, t := range slices.Concat(site.VIPs, site.Backends) {
				fmt.Fprintf(&b, "  %s %s active=%t\n", t.Address, t.Status, t.Active)
			}
		}
	}
	return b.String()
}

// agreedFor is how long plans must be the same to count: at the moment of
// healing they may be the same because nobody has noticed it yet.
const agreedFor = time.Second

// Agree waits until every node serves and all plans are the same, and stay so
// for a second. It returns how long it took until then, or what still differs
// after limit.
func (l *Lab) Agree(ctx context.Context, limit time.Duration) (time.Duration, error) {
	start := time.Now()
	since := start // the plans have been the same
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		wrong := l.disagreement(ctx)
		switch {
		case wrong != "" && time.Since(start) > limit:
			return time.Since(start), fmt.Errorf("the nodes' plans still differ after %s: %s", limit, wrong)
		case wrong != "":
			since = time.Now()
		case time.Since(since) >= agreedFor:
			return since.Sub(start), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Since(start), ctx.Err()
		}
	}
}

// disagreement returns one line in which two nodes' plans differ, "" if none does.
func (l *Lab) disagreement(ctx context.Context) string {
	if wrong, dead := l.unsteady(ctx); dead != nil || wrong != "" {
		if dead != nil {
			return dead.Error()
		}
		return wrong
	}
	statuses := l.statuses(ctx)
	first := ""
	for i, st := range statuses {
		if st == nil {
			return fmt.Sprintf("node %s does not answer", l.nodes[i].name)
		}
		own := fingerprint(st)
		if i == 0 {
			first = own
			continue
		}
		if own != first {
			a, b := differ(first, own)
			return fmt.Sprintf("%s says %q, %s says %q", l.nodes[0].name, a, l.nodes[i].name, b)
		}
	}
	return ""
}

// differ returns the first lines that are not the same.
func differ(a, b string) (string, string) {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return strings.TrimSpace(as[i]), strings.TrimSpace(bs[i])
		}
	}
	return fmt.Sprint(len(as), " lines"), fmt.Sprint(len(bs), " lines")
}
