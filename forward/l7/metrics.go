package l7

import (
	"strconv"
	"sync/atomic"

	"github.com/pharos-lb/pharos/forward"
	"github.com/prometheus/client_golang/prometheus"
)

// Stats is a Server at one moment.
type Stats struct {
	forward.FrontStats
	// Answered counts requests answered by backends, by the first digit of the status.
	Answered [6]uint64
	// Replied counts requests answered by this server itself, by status less 400.
	Replied [112]uint64
	// Retries counts requests sent again because an idle connection had died, Cut
	// answers that could not be finished, Upgrades connections that changed protocol.
	Retries, Cut, Upgrades uint64
}

// metrics counts on the way and is read when scraped.
type metrics struct {
	front *forward.Front[settings]

	classes  [6]atomic.Uint64
	own      [112]atomic.Uint64
	retries  atomic.Uint64
	cut      atomic.Uint64
	upgrades atomic.Uint64

	requests, replies *prometheus.Desc
	values            []value
}

type value struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(Stats) uint64
}

func newMetrics(front *forward.Front[settings]) *metrics {
	m := &metrics{
		front: front,
		requests: prometheus.NewDesc("pharos_l7_answered_requests_total",
			"Requests answered by backends, by class of status.", []string{"class"}, nil),
		replies: prometheus.NewDesc("pharos_l7_own_replies_total",
			"Requests answered by this server itself, by status.", []string{"status"}, nil),
	}
	add := func(kind prometheus.ValueType, name, help string, read func(Stats) uint64) {
		m.values = append(m.values, value{prometheus.NewDesc("pharos_l7_"+name, help, nil, nil), kind, read})
	}
	counter := prometheus.CounterValue
	add(prometheus.GaugeValue, "active_connections", "Client connections open.",
		func(s Stats) uint64 { return uint64(max(s.Active, 0)) })
	add(counter, "accepted_connections_total", "Client connections accepted.", func(s Stats) uint64 { return s.Accepted })
	add(counter, "refused_connections_total", "Client connections closed because there were too many.",
		func(s Stats) uint64 { return s.Refused })
	add(counter, "accept_errors_total", "Failures to accept.", func(s Stats) uint64 { return s.AcceptErrors })
	add(counter, "retried_requests_total", "Requests sent again because an idle upstream connection had died.",
		func(s Stats) uint64 { return s.Retries })
	add(counter, "cut_responses_total", "Answers that broke off after part of them had been sent.",
		func(s Stats) uint64 { return s.Cut })
	add(counter, "upgrades_total", "Connections that changed protocol.", func(s Stats) uint64 { return s.Upgrades })
	return m
}

func (m *metrics) answered(status int) { m.classes[status/100].Add(1) }

func (m *metrics) replied(status int) { m.own[status-400].Add(1) }

func (m *metrics) stats() Stats {
	s := Stats{
		FrontStats: m.front.Stats(),
		Retries:    m.retries.Load(), Cut: m.cut.Load(), Upgrades: m.upgrades.Load(),
	}
	for i := range m.classes {
		s.Answered[i] = m.classes[i].Load()
	}
	for i := range m.own {
		s.Replied[i] = m.own[i].Load()
	}
	return s
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.requests
	ch <- m.replies
	for _, v := range m.values {
		ch <- v.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.stats()
	for i, n := range s.Answered {
		if i > 0 {
			ch <- prometheus.MustNewConstMetric(m.requests, prometheus.CounterValue, float64(n), strconv.Itoa(i)+"xx")
		}
	}
	for i, n := range s.Replied {
		if n > 0 {
			ch <- prometheus.MustNewConstMetric(m.replies, prometheus.CounterValue, float64(n), strconv.Itoa(400+i))
		}
	}
	for _, v := range m.values {
		ch <- prometheus.MustNewConstMetric(v.desc, v.kind, float64(v.read(s)))
	}
}
