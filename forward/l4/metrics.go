package l4

import (
	"errors"
	"sync/atomic"

	"github.com/pharos-lb/pharos/forward"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts on the way and is read when scraped.
type metrics struct {
	front *forward.Front[Listener]

	noBackend     atomic.Uint64
	connectFailed atomic.Uint64
	idle          atomic.Uint64
	up, down      atomic.Uint64

	values []value
}

type value struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(Stats) uint64
}

func newMetrics(front *forward.Front[Listener]) *metrics {
	m := &metrics{front: front}
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
	add(counter, "up_bytes_total", "Bytes to backends, counted when a connection ends.", func(s Stats) uint64 { return s.Up })
	add(counter, "down_bytes_total", "Bytes to clients, counted when a connection ends.", func(s Stats) uint64 { return s.Down })
	return m
}

func (m *metrics) unserved(err error) {
	for _, absent := range []error{forward.ErrNoPlan, forward.ErrNoPool, forward.ErrNoBackend} {
		if errors.Is(err, absent) {
			m.noBackend.Add(1)
			return
		}
	}
	m.connectFailed.Add(1)
}

func (m *metrics) served(t *forward.Tunnel, err error) {
	m.up.Add(uint64(t.Up))
	m.down.Add(uint64(t.Down))
	if errors.Is(err, forward.ErrIdle) {
		m.idle.Add(1)
	}
}

func (m *metrics) stats() Stats {
	return Stats{
		FrontStats: m.front.Stats(),
		NoBackend:  m.noBackend.Load(), ConnectFailed: m.connectFailed.Load(), Idle: m.idle.Load(),
		Up: m.up.Load(), Down: m.down.Load(),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range m.values {
		ch <- v.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.stats()
	for _, v := range m.values {
		ch <- prometheus.MustNewConstMetric(v.desc, v.kind, float64(v.read(s)))
	}
}
