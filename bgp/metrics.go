package bgp

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one Speaker. Labels are bounded: there is none.
type metrics struct {
	registerer prometheus.Registerer

	up          prometheus.Gauge
	restarts    prometheus.Counter
	lapses      prometheus.Counter
	states      prometheus.Counter
	logDropped  prometheus.Counter
	peers       prometheus.Gauge
	established prometheus.Gauge
	guests      prometheus.Gauge
	strangers   prometheus.Counter
	bfdSessions prometheus.Gauge
	bfdUp       prometheus.Gauge
	bfdFailures prometheus.Counter
	desired     prometheus.Gauge
	installed   prometheus.Gauge
	refused     prometheus.Gauge
	quarantined prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_bgp_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "pharos_bgp_" + name, Help: help})
	}
	m := &metrics{
		registerer:  r,
		up:          gauge("child_up", "1 while the BGP child process runs."),
		restarts:    counter("child_restarts_total", "Times the BGP child died or had to be killed; a steady rate is a crash loop."),
		lapses:      counter("lease_lapses_total", "Times the BGP child withdrew everything because its lease was not renewed."),
		states:      counter("states_total", "Desired states handed to the BGP child."),
		logDropped:  counter("log_dropped_total", "Log lines of the BGP child that were not logged."),
		peers:       gauge("peers", "Peers configured."),
		established: gauge("peers_established", "Peers with an established session."),
		guests:      gauge("dynamic_peers_established", "Established sessions of routers that connected from a prefix of peers."),
		strangers:   counter("strangers_total", "Connections refused because they came from no peer, or from a prefix of peers that was full."),
		bfdSessions: gauge("bfd_sessions", "BFD sessions configured."),
		bfdUp:       gauge("bfd_sessions_up", "BFD sessions that are up."),
		bfdFailures: counter("bfd_failures_total", "Times a BFD session that was up failed, and its BGP session was reset."),
		desired:     gauge("routes_desired", "Routes that should be announced."),
		installed:   gauge("routes_installed", "Routes announced."),
		refused:     gauge("routes_refused", "Routes that cannot be announced; the status says why."),
		quarantined: gauge("peers_quarantined", "Peers left out for a while because what they sent ended the BGP process."),
	}
	if r == nil {
		return m, nil
	}
	for i, c := range m.all() {
		if err := r.Register(c); err != nil {
			for _, done := range m.all()[:i] {
				r.Unregister(done)
			}
			return nil, fmt.Errorf("bgp: register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.up, m.restarts, m.lapses, m.states, m.logDropped, m.peers, m.established, m.guests, m.strangers, m.bfdSessions, m.bfdUp, m.bfdFailures,
		m.desired, m.installed, m.refused, m.quarantined,
	}
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all() {
		m.registerer.Unregister(c)
	}
}
