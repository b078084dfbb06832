package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
)

// A mouthpiece is a decider's prober and gossip: what is found goes in, what is reported comes out.
type mouthpiece struct {
	fakeGossip
	changed chan struct{}
	said    chan *health.Report

	mu     sync.Mutex // guards states
	states []probe.State
}

func (m *mouthpiece) Changed() <-chan struct{} { return m.changed }
func (m *mouthpiece) Publish(r *health.Report) { m.said <- r }
func (m *mouthpiece) States(dst []probe.State) []probe.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append(dst, m.states...)
}

// find has one check find another status.
func (m *mouthpiece) find(i int, s health.Status) {
	m.mu.Lock()
	m.states[i].Status = s
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// BenchmarkPublish measures the time from what a check found, a change, to the report that goes to the other nodes
// (ns/op) and to the plan that this node goes by, among 1,000 targets.
func BenchmarkPublish(b *testing.B) {
	const services = 250
	var text, names strings.Builder
	for i := range services {
		fmt.Fprintf(&text, "  s%d:\n    check: {tcp: {}, vip_port: 80}\n    backends: {a: [\"127.9.1.3:%d\"], b: [\"127.9.1.4:%[2]d\"]}\n    vip: {a: 127.10.%[3]d.5, b: 127.11.%[3]d.6}\n", i, 1000+i, i)
		fmt.Fprintf(&names, "w%d: {service: s%[1]d}, ", i)
	}
	head, tail, _ := strings.Cut(twoSites, "  web:\n")
	_, tail, _ = strings.Cut(tail, "zones:")
	config := strings.NewReplacer("www: {service: web}", names.String(), "requires: [web]", "requires: [s0]").Replace(head + text.String() + "zones:" + tail)
	d := deciderBenchOf(b, b.TempDir(), config)
	m := &mouthpiece{changed: make(chan struct{}, 1), said: make(chan *health.Report, 1), states: d.prober.states}
	m.synced = make(chan struct{})
	d.decider.prober, d.decider.gossip = m, m
	changing := -1
	for i := range m.states {
		m.states[i].Status = health.StatusUp
		if m.states[i].Target.Kind == health.KindBackend {
			changing = i
		}
	}
	plans, unwatch := d.board.Watch()
	defer unwatch()
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	<-m.said
	at, _ := d.setup.Topology.Layout.Index(m.states[changing].Target)
	status, planned := health.StatusUp, time.Duration(0)
	for b.Loop() {
		status = health.StatusUp + health.StatusDown - status
		began := time.Now()
		m.find(changing, status)
		for (<-m.said).Get(at) != status {
		}
		b.StopTimer()
		for d.board.Load() == nil || d.board.Load().View.Verdicts[at].Status != status {
			select {
			case <-plans:
			case <-m.said:
			}
		}
		planned += time.Since(began)
		b.StartTimer()
	}
	b.ReportMetric(float64(planned.Nanoseconds())/float64(b.N), "plan-ns/op")
	stop()
	for {
		select {
		case <-m.said:
		case <-ended:
			return
		}
	}
}
