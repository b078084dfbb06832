package l4

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts on the way and is read when scraped.
type metrics struct {
	active       atomic.Int64
	accepted     atomic.Uint64
	acceptErrors atomic.Uint64
	up, down     atomic.Uint64
	untracked    atomic.Uint64
	drops        [dropCount]atomic.Uint64

	values  []value
	dropped *prometheus.Desc
}

type value struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(Stats) uint64
}

func newMetrics() *metrics {
	m := &metrics{}
	add := func(kind prometheus.ValueType, name, help string, read func(Stats) uint64) {
		m.values = append(m.values, value{prometheus.NewDesc("pharos_l4_"+name, help, nil, nil), kind, read})
	}
	counter := prometheus.CounterValue
	add(prometheus.GaugeValue, "active_connections", "Connections being forwarded.",
		func(s Stats) uint64 { return uint64(max(s.Active, 0)) })
	add(counter, "accepted_connections_total", "Connections accepted.", func(s Stats) uint64 { return s.Accepted })
	add(counter, "refused_connections_total", "Connections closed because there were too many.",
		func(s Stats) uint64 { return s.Refused })
	add(counter, "accept_errors_total", "Failures to accept.", func(s Stats) uint64 { return s.AcceptErrors })
	add(counter, "no_backend_connections_total", "Connections reset because there was no backend.",
		func(s Stats) uint64 { return s.NoBackend })
	add(counter, "connect_failed_connections_total", "Connections reset because no backend could be reached.",
		func(s Stats) uint64 { return s.ConnectFailed })
	add(counter, "idle_connections_total", "Connections ended because both directions were silent.",
		func(s Stats) uint64 { return s.Idle })
	add(counter, "untracked_clients_total", "Connections of clients that the table of clients had no room for: served, not limited.",
		func(s Stats) uint64 { return s.Untracked })
	add(counter, "up_bytes_total", "Bytes to backends, counted when a connection ends.", func(s Stats) uint64 { return s.Up })
	add(counter, "down_bytes_total", "Bytes to clients, counted when a connection ends.", func(s Stats) uint64 { return s.Down })
	m.dropped = prometheus.NewDesc("pharos_l4_dropped_connections_total",
		"Connections refused, or ended by pharos, by reason.", []string{"reason"}, nil)
	return m
}

func (m *metrics) drop(why drop) { m.drops[why].Add(1) }

func (m *metrics) stats() Stats {
	s := Stats{
		Accepted: m.accepted.Load(), AcceptErrors: m.acceptErrors.Load(),
		Up: m.up.Load(), Down: m.down.Load(), Untracked: m.untracked.Load(),
	}
	s.Active = m.active.Load()
	for why := dropNone + 1; why < dropCount; why++ {
		s.drops[why] = m.drops[why].Load()
	}
	s.Refused = s.drops[dropTooMany]
	s.NoBackend, s.ConnectFailed, s.Idle = s.drops[dropNoBackend], s.drops[dropConnectFailed], s.drops[dropIdle]
	return s
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range m.values {
		ch <- v.desc
	}
	ch <- m.dropped
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.stats()
	for _, v := range m.values {
		ch <- prometheus.MustNewConstMetric(v.desc, v.kind, float64(v.read(s)))
	}
	for why := dropNone + 1; why < dropCount; why++ {
		ch <- prometheus.MustNewConstMetric(m.dropped, prometheus.CounterValue, float64(s.drops[why]), why.String())
	}
}
