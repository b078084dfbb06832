package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// FailoverOptions are what the failover of a lab with routers is played with.
type FailoverOptions struct {
	// Rounds is how often each thing is broken, 1 … 100.
	Rounds int
	// Site is where; "" = the first with routers.
	Site string
	// Users: wait for what the lab's resolver makes of it, too, as long as its answers live.
	Users bool
}

// A FailoverReport is how long the routers of a site took to follow, in the order in
// which it was tried.
type FailoverReport struct {
	Prefix netip.Prefix       `json:"prefix"`
	Site   string             `json:"site"`
	Node   string             `json:"node"`
	Steps  []*FailoverFigures `json:"steps"`
	// Reached and Missed are connections of the client to the anycast address, through
	// the transit; Gap is the longest time without one.
	Reached int           `json:"reached"`
	Missed  int           `json:"missed"`
	Gap     time.Duration `json:"gap_ns"`
	// Asked and Unanswered are DNS queries to the site's nodes while a speaker was
	// killed.
	Asked      int `json:"asked"`
	Unanswered int `json:"unanswered"`
	// Resolved are questions of a client of the site to the lab's resolver, Unresolved those without an address, Moved how
	// long after its backends' death the client was led to another site.
	Resolved   int           `json:"resolved,omitempty"`
	Unresolved int           `json:"unresolved,omitempty"`
	Moved      time.Duration `json:"moved_ns,omitempty"`
	// WarmUp is how long what was out has to be well before it is announced again.
	WarmUp time.Duration `json:"warm_up_ns,omitempty"`
	Failed []string      `json:"failed"`
}

// FailoverFigures are the times of one thing that was tried.
type FailoverFigures struct {
	What  string          `json:"what"`
	Limit time.Duration   `json:"limit_ns"` // 0 = none
	Took  []time.Duration `json:"took_ns"`  // sorted; one for each round and router
}

// OK reports whether everything was as it is to be.
func (r *FailoverReport) OK() bool { return len(r.Failed) == 0 }

// Text is the report for people.
func (r *FailoverReport) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at the routers of %s (node %s), by the kernels' tables:\n\n", r.Prefix, r.Site, r.Node)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tMEDIAN\tP99\tLIMIT\tTIMES")
	for _, f := range r.Steps {
		if len(f.Took) == 0 {
			continue
		}
		limit := "-"
		if f.Limit > 0 {
			limit = f.Limit.String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", f.What, f.quantile(50).Round(100*time.Microsecond), f.quantile(99).Round(100*time.Microsecond), limit, len(f.Took))
	}
	w.Flush()
	if r.Reached+r.Missed > 0 {
		fmt.Fprintf(&b, "\nThe client reached the anycast address through the transit %d of %d times; the longest gap was %s.\n",
			r.Reached, r.Reached+r.Missed, r.Gap.Round(time.Millisecond))
	}
	if r.Asked > 0 {
		fmt.Fprintf(&b, "While the speaker was dead %d of %d DNS queries were answered.\n", r.Asked-r.Unanswered, r.Asked)
	}
	if r.Resolved > 0 {
		fmt.Fprintf(&b, "Through the resolver a client of the site was led elsewhere after %s; %d of %d questions were answered.\n",
			r.Moved.Round(100*time.Millisecond), r.Resolved-r.Unresolved, r.Resolved)
	}
	for _, f := range r.Failed {
		b.WriteString("FAILED " + f + "\n")
	}
	return b.String()
}

func (f *FailoverFigures) quantile(percent int) time.Duration {
	return f.Took[min(len(f.Took)*percent/100, len(f.Took)-1)]
}

// A failover is one under way.
type failover struct {
	lab     *Lab
	report  *FailoverReport
	service string
	routers []string
	full    int // next hops of a router while all is well
	bfd     config.BFD
	users   *users // nil: nobody is asked
}

// Limits of what the routers take, and how long is waited for what never comes.
const (
	withdrawnWithin = 100 * time.Millisecond // from the verdict
	deadWithin      = time.Second            // from kill -9
	checkMargin     = 350 * time.Millisecond // beyond the time of the check
	leaseMargin     = time.Second            // beyond the lease, from SIGSTOP
	silentMargin    = 600 * time.Millisecond // beyond the detection time of BFD
	patienceOfOne   = 40 * time.Second
)

// Failover breaks one site after the other way, on a lab that has been started, and
// measures what its routers do.
func (l *Lab) Failover(ctx context.Context, opts FailoverOptions) (*FailoverReport, error) {
	if opts.Rounds < 1 || opts.Rounds > 100 {
		return nil, fmt.Errorf("%d rounds: want 1 to 100", opts.Rounds)
	}
	f, err := l.planFailover(opts.Site)
	if err != nil {
		return nil, err
	}
	if err := f.ready(ctx); err != nil {
		return nil, err
	}
	if opts.Users {
		f.users = l.findUsers(ctx, f.service, f.report.Site)
		f.users.introduce(ctx)
	}
	inner, cancel := context.WithCancel(ctx)
	var client sync.WaitGroup
	client.Go(func() { f.visit(inner) })
	defer client.Wait()
	defer cancel()
	for range opts.Rounds {
		if err := f.round(ctx); err != nil {
			return f.report, err
		}
	}
	cancel()
	client.Wait()
	f.judge()
	return f.report, nil
}

// planFailover picks what is to be broken.
func (l *Lab) planFailover(site string) (*failover, error) {
	f := &failover{lab: l, report: &FailoverReport{Failed: []string{}}}
	for _, r := range l.layout.Routers {
		if r.Name != transitName && (site == "" || r.Site == site) {
			site = r.Site
			f.routers, f.full = append(f.routers, r.Name), len(r.Sessions)-1
			f.bfd = r.Sessions[0].bfd()
		}
	}
	for _, p := range l.layout.Config.BGP.Prefixes {
		if len(p.Requires) > 0 && (len(p.Sites) == 0 || slices.Contains(p.Sites, site)) && f.service == "" {
			f.report.Prefix, f.service = p.Prefix, p.Requires[0]
		}
	}
	for _, m := range l.layout.Members {
		if m.Role == RoleNode && m.Site == site && f.report.Node == "" {
			f.report.Node, f.report.Site = m.Name, site
		}
	}
	if len(f.routers) == 0 || f.service == "" || f.report.Node == "" {
		return nil, errors.New("no failover: it takes a site with routers and nodes, and a prefix that requires a service")
	}
	f.report.WarmUp = warmUp(l.layout.Config, f.report.Prefix)
	for _, what := range []struct {
		what  string
		limit time.Duration
	}{
		{stepOrder, withdrawnWithin},
		{stepDead, f.deadLimit()},
		{stepKill, deadWithin},
		{stepFreeze, l.layout.Config.BGP.Lease + leaseMargin},
		{stepSpeaker, deadWithin},
		{stepSilent, f.bfd.Interval*time.Duration(f.bfd.Multiplier) + silentMargin},
		{stepWarm, 0},
		{stepBack, 0},
	} {
		f.report.Steps = append(f.report.Steps, &FailoverFigures{What: what.what, Limit: what.limit})
	}
	return f, nil
}

// The steps.
const (
	stepOrder   = "order \"down\" -> route gone"
	stepDead    = "backends dead -> route gone"
	stepKill    = "kill -9 of the node -> its next hop gone"
	stepFreeze  = "SIGSTOP of the node -> its next hop gone"
	stepSpeaker = "kill -9 of the speaker -> its next hop gone"
	stepSilent  = "the node falls silent (BFD) -> its next hop gone"
	stepWarm    = "service well again -> route back"
	stepBack    = "node or speaker well again -> next hop back"
)

// deadLimit is how long a dead service may keep its route: the time of its check and a
// little.
func (f *failover) deadLimit() time.Duration {
	for _, s := range f.lab.layout.Config.Services {
		if s.Name == f.service {
			c := s.Check
			return c.Every + c.Every/10 + time.Duration(c.Fall-1)*(c.Recheck+c.Recheck/10) + checkMargin
		}
	}
	return 0
}

// ready waits for all routers of the site to have all next hops, and for the transit
// to have the route.
func (f *failover) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patienceOfOne)
	defer cancel()
	for _, name := range append([]string{transitName}, f.routers...) {
		want := f.full
		if name == transitName {
			want = 1
		}
		s, err := f.lab.routes.await(ctx, name, f.report.Prefix, func(s RouteState) bool { return s.Hops >= want })
		if err != nil {
			return errors.Join(fmt.Errorf("router %s has %d of %d next hops to %s: %w", name, s.Hops, want, f.report.Prefix, err), f.lab.routersAlive())
		}
	}
	return nil
}

// A harm is one way to break the site.
type harm struct {
	what       string
	hops       int // left when it has been noticed
	harm, heal func() error
}

// back is which times the way back belongs to: what must warm up is told apart.
func (h harm) back() string {
	switch h.what {
	case stepOrder, stepDead:
		return stepWarm
	}
	return stepBack
}

// round breaks everything once.
func (f *failover) round(ctx context.Context) error {
	l, node, pool := f.lab, f.report.Node, f.service+"@"+f.report.Site
	p := l.nodes[l.index[node]]
	fault := func(f Fault) func() error {
		return func() error { _, err := l.Do(f); return err }
	}
	for _, step := range []harm{
		{stepOrder, 0, f.order(ctx, health.OrderDown), f.order(ctx, health.OrderNone)},
		{stepDead, 0, fault(Fault{Kind: FaultBackend, A: pool}), fault(Fault{Kind: FaultBackend, A: pool, Up: true})},
		{stepKill, f.full - 1, fault(Fault{Kind: FaultKill, A: node}), p.start},
		{stepFreeze, f.full - 1, fault(Fault{Kind: FaultFreeze, A: node}), fault(Fault{Kind: FaultThaw, A: node})},
		{stepSpeaker, f.full - 1, func() error { return f.killSpeaker(ctx) }, func() error { return nil }},
		{stepSilent, f.full - 1, func() error { return f.silence(true) }, func() error { return f.silence(false) }},
	} {
		if step.what == stepSilent && f.bfd.Interval == 0 {
			continue // it would take the hold time
		}
		asked := func() {}
		if step.what == stepSpeaker {
			asked = f.ask(ctx)
		}
		began := time.Now()
		if err := step.harm(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		f.measure(ctx, step.what, began, func(s RouteState) bool { return s.Hops <= step.hops })
		if step.what == stepDead {
			f.users.await(ctx, false, f.report)
		}
		healed := time.Now()
		if err := step.heal(); err != nil {
			return fmt.Errorf("%s, and back: %w", step.what, err)
		}
		f.measure(ctx, step.back(), healed, func(s RouteState) bool { return s.Hops >= f.full })
		asked()
		if step.what == stepDead {
			f.users.await(ctx, true, f.report)
		}
		if err := l.AwaitSteady(ctx, SteadyWithin); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// measure waits for every router of the site and notes how long each took.
func (f *failover) measure(ctx context.Context, what string, began time.Time, wanted func(RouteState) bool) {
	ctx, cancel := context.WithTimeout(ctx, patienceOfOne)
	defer cancel()
	at := slices.IndexFunc(f.report.Steps, func(s *FailoverFigures) bool { return s.What == what })
	for _, name := range f.routers {
		s, err := f.lab.routes.await(ctx, name, f.report.Prefix, wanted)
		if err != nil {
			f.report.Failed = append(f.report.Failed, fmt.Sprintf("%s: not at %s within %s", what, name, patienceOfOne))
			continue
		}
		took := max(s.Since.Sub(began), 0)
		f.report.Steps[at].Took = append(f.report.Steps[at].Took, took)
		f.lab.say("%s: %s at %s, %d next hops left", what, took.Round(100*time.Microsecond), name, s.Hops)
	}
}

// judge holds the figures against their limits.
func (f *failover) judge() {
	for _, s := range f.report.Steps {
		slices.Sort(s.Took)
		if len(s.Took) > 0 && s.Limit > 0 && s.quantile(99) > s.Limit {
			f.report.Failed = append(f.report.Failed, fmt.Sprintf("%s: %s, want %s at most", s.What, s.quantile(99), s.Limit))
		}
	}
	f.judgeWarmUp()
	if f.report.Unanswered > 0 {
		f.report.Failed = append(f.report.Failed, fmt.Sprintf("%d DNS queries were not answered while the speaker was dead", f.report.Unanswered))
	}
}

// judgeWarmUp holds how soon the route was back against how long the service has to be well before.
func (f *failover) judgeWarmUp() {
	at := slices.IndexFunc(f.report.Steps, func(s *FailoverFigures) bool { return s.What == stepWarm })
	if back := f.report.Steps[at].Took; len(back) > 0 && back[0] < f.report.WarmUp {
		f.report.Failed = append(f.report.Failed, fmt.Sprintf("%s: after %s, the warm-up is %s", stepWarm, back[0], f.report.WarmUp))
	}
}

// order returns what gives an order for the pool.
func (f *failover) order(ctx context.Context, o health.Order) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(ctx, orderWithin)
		defer cancel()
		scope := health.Scope{Kind: health.ScopePool, Service: f.service, Site: f.report.Site}
		_, err := admin.NewClient(f.lab.nodes[f.lab.index[f.report.Node]].socket()).Override(ctx, admin.OverrideRequest{
			Scopes: []string{scope.String()}, Order: o, By: "lab", Reason: "failover",
		})
		return err
	}
}

// killSpeaker kills the node's BGP child.
func (f *failover) killSpeaker(ctx context.Context) error {
	st, err := admin.NewClient(f.lab.nodes[f.lab.index[f.report.Node]].socket()).Status(ctx)
	if err != nil {
		return err
	}
	if st.Speaker == nil || st.Speaker.PID <= 1 {
		return fmt.Errorf("node %s has no speaker", f.report.Node)
	}
	f.lab.say("killed the speaker of %s", f.report.Node)
	return syscall.Kill(st.Speaker.PID, syscall.SIGKILL)
}

// silence has the site's routers hear nothing of the node any more, while the links
// stay up and the node hears them; or has them hear it again.
func (f *failover) silence(on bool) error {
	nft := f.lab.filter.nft
	for _, r := range f.lab.routers {
		if !slices.Contains(f.routers, r.plan.Name) {
			continue
		}
		for _, s := range r.plan.Sessions {
			if s.Name != f.report.Node {
				continue
			}
			text := "table inet silence {}\ndelete table inet silence\n"
			if on {
				text += fmt.Sprintf("table inet silence {\nchain in {\ntype filter hook input priority 0;\niifname %q drop\n}\n}\n", s.Link)
			}
			if err := runNft(nft, r.space, text); err != nil {
				return err
			}
		}
	}
	f.lab.say("the routers of %s hear %s: %t", f.report.Site, f.report.Node, !on)
	return nil
}

// pause is the time between two questions or visits.
const pause = 20 * time.Millisecond

// ask asks the node's DNS for a steered name until the function that it returns is
// called.
func (f *failover) ask(ctx context.Context) (stop func()) {
	name := ""
	for _, z := range f.lab.layout.Config.Zones {
		if len(z.Names) > 0 && name == "" {
			name = strings.TrimSuffix(z.Names[0].FQDN, ".")
		}
	}
	if name == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			answers, err := f.lab.Query(ctx, Question{Name: name, Node: f.report.Node, IPv6: f.lab.isIPv6(name)})
			if ctx.Err() != nil {
				return
			}
			f.report.Asked++
			if err != nil || len(answers) != 1 || len(answers[0].Addresses) == 0 {
				f.report.Unanswered++
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// door is where the client can reach the service through the transit.
func (f *failover) door() (at netip.AddrPort, ok bool) {
	cfg := f.lab.layout.Config
	port := slices.IndexFunc(cfg.Listeners, func(l config.Listener) bool { return l.Bind.Host == "vip" })
	for _, s := range cfg.Services {
		for _, a := range s.Anycast {
			if f.report.Prefix.Contains(a) && port >= 0 {
				return netip.AddrPortFrom(a, cfg.Listeners[port].Bind.Port), true
			}
		}
	}
	return at, false
}

// visit has the client connect to the anycast address again and again.
func (f *failover) visit(ctx context.Context) {
	at, ok := f.door()
	if !ok {
		return
	}
	client, err := f.lab.net.client(netip.Addr{})
	if err != nil {
		return
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := client.do(func() error {
			conn, err := net.DialTimeout("tcp", at.String(), 500*time.Millisecond)
			if err == nil {
				err = conn.Close()
			}
			return err
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.report.Missed++
			continue
		}
		f.report.Reached++
		f.report.Gap = max(f.report.Gap, time.Since(last))
		last = time.Now()
	}
}
