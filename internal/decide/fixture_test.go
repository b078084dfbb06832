package decide

import (
	"slices"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// epoch0 is the epoch that the cores of these tests begin with.
const epoch0 = 7

// t0 is when they begin.
var t0 = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// threeSites is a fleet of three sites with a service at each.
const threeSites = `
cluster: {name: t}
sites:
  a: {location: FRA, nodes: {a1: 127.9.1.1, a2: 127.9.1.4}}
  b: {location: SIN, nodes: {b1: 127.9.1.2}}
  c: {location: IAD, nodes: {c1: 127.9.1.3}}
services:
  web:
    check: {tcp: {}, vip_port: 80}
    backends: {a: ["10.0.0.1:80", "10.0.0.2:80"], b: ["10.0.0.3:80"], c: ["10.0.0.4:80"]}
    vip: {a: 198.51.100.1, b: 198.51.100.2, c: 198.51.100.3}
zones: {t.test: {records: "@ 300 IN SOA ns1 root 1 3600 600 86400 60\n@ 300 IN NS ns1\nns1 300 IN A 192.0.2.1\n", names: {www: {service: web}}}}
`

// topologyOf compiles a configuration for a node.
func topologyOf(t testing.TB, text, node string) *steer.Topology {
	t.Helper()
	cfg, err := config.Parse("pharos.yaml", []byte(text), config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	topology, err := steer.Compile(cfg, nil, node)
	if err != nil {
		t.Fatal(err)
	}
	return topology
}

// A bench is a core and the checks that it is told of.
type bench struct {
	*Core
	now    time.Time
	states []health.Status
}

func newBench(t testing.TB, node string, change ...func(*Options)) *bench {
	t.Helper()
	o := Options{Name: node, Topology: topologyOf(t, threeSites, node), Epoch: epoch0}
	for _, c := range change {
		c(&o)
	}
	return &bench{Core: New(o), now: t0, states: make([]health.Status, len(o.Topology.Layout.Targets))}
}

// look observes d later, and decides.
func (b *bench) look(d time.Duration) (*health.Report, Step) {
	b.now = b.now.Add(d)
	r := b.Observe(b.states, 0, b.now)
	return r, b.Step(health.Moment{Now: b.now})
}

// all says s of every target that this node probes.
func (b *bench) all(s health.Status) {
	for _, p := range b.Topology().Probes(b.name) {
		i, _ := b.Topology().Layout.Index(p.Target)
		b.states[i] = s
	}
}

// hear merges what another node says now: s of everything that it probes.
func (b *bench) hear(t testing.TB, node string, seq uint64, s health.Status) *health.Report {
	t.Helper()
	topology := topologyOf(t, threeSites, node)
	r := health.NewReport(node, topology.Layout)
	r.Epoch, r.Seq = 1, seq
	for _, p := range topology.Probes(node) {
		i, _ := topology.Layout.Index(p.Target)
		r.Set(i, s)
	}
	if got := b.Merge(r, 0, b.now); got != health.OutcomeNew {
		t.Fatalf("report %d of %s: %s", seq, node, got)
	}
	return r
}

func scopeOf(t testing.TB, text string) health.Scope {
	t.Helper()
	s, err := health.ParseScope(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// order is what an operator at b orders.
func (b *bench) order(t testing.TB, scope string, o health.Order, lasts time.Duration) health.Override {
	t.Helper()
	v := health.Override{Scope: scopeOf(t, scope), Order: o, By: "anna", At: b.now, Keeper: b.SelfSite()}
	if v.Scope.Site != "" {
		v.Keeper = v.Scope.Site
	}
	if lasts != 0 {
		v.Until = b.now.Add(lasts)
	}
	return v
}

// give writes orders and returns them as they are told to the others.
func (b *bench) give(t testing.TB, orders ...health.Override) []health.Override {
	t.Helper()
	written, err := b.WriteAll(orders)
	if err != nil {
		t.Fatal(err)
	}
	return written
}

// texts are orders as "scope order", in their order.
func texts(orders []health.Override) (out []string) {
	for _, v := range orders {
		out = append(out, v.Scope.String()+" "+v.Order.String())
	}
	return out
}

// answered are the sites that the first service is answered with.
func answered(p *steer.Plan) (out []string) {
	for k := range p.Services[0].Sites {
		if p.Services[0].Sites[k].Eligible {
			out = append(out, p.Topology.SiteName(0, k))
		}
	}
	slices.Sort(out)
	return out
}
