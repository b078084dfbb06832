package l7

import (
	"crypto/tls"
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
	// HTTP2 counts client connections that speak HTTP/2, Floods2 those, and connections to backends, that were ended
	// because the peer made work for nothing.
	HTTP2, Floods2 uint64
	// HTTP3 counts connections that speak HTTP/3, Refused3 those that were too many, or too many a second; Active3 are open.
	HTTP3, Refused3 uint64
	Active3         int64
	// Floods3 counts those that were ended because the client made work for nothing.
	Floods3 uint64
	// Handshakes counts TLS handshakes: full, resumed, failed.
	Handshakes [handshakeKinds]uint64
	// RefusedCertificates counts changed certificate files that could not be used,
	// StapleFailures OCSP responses that could not be fetched.
	RefusedCertificates, StapleFailures uint64
	// Refusals counts what broke a limit, by its name in the metrics.
	Refusals map[string]uint64
	// LogLines counts lines of access logs, LogDropped those that the disk was too slow
	// for, LogFailures times that it could not be written.
	LogLines, LogDropped, LogFailures uint64
}

const (
	handshakeFull = iota
	handshakeResumed
	handshakeFailed
	handshakeKinds
)

var handshakeTexts = [handshakeKinds]string{"full", "resumed", "failed"}

// shaken counts a TLS handshake.
func (m *metrics) shaken(state tls.ConnectionState, err error) {
	switch {
	case err != nil:
		m.handshakes[handshakeFailed].Add(1)
	case state.DidResume:
		m.handshakes[handshakeResumed].Add(1)
	default:
		m.handshakes[handshakeFull].Add(1)
	}
}

// metrics counts on the way and is read when scraped.
type metrics struct {
	server *Server

	classes  [6]atomic.Uint64
	own      [112]atomic.Uint64
	retries  atomic.Uint64
	cut      atomic.Uint64
	upgrades atomic.Uint64
	http2    atomic.Uint64
	floods2  atomic.Uint64
	http3    atomic.Uint64
	refused3 atomic.Uint64
	floods3  atomic.Uint64
	active3  atomic.Int64

	handshakes   [handshakeKinds]atomic.Uint64
	certificates atomic.Uint64 // files that were refused
	shed         [shedCount]atomic.Uint64

	requests, replies *prometheus.Desc
	shakes, expiry    *prometheus.Desc
	values            []value
}

type value struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(Stats) uint64
}

func newMetrics(server *Server) *metrics {
	m := &metrics{
		server: server,
		shakes: prometheus.NewDesc("pharos_l7_handshakes_total",
			"TLS handshakes, by how they ended.", []string{"result"}, nil),
		expiry: prometheus.NewDesc("pharos_l7_certificate_expiry_timestamp_seconds",
			"Until when a certificate that is served is valid.", []string{"listener", "file"}, nil),
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
	add(counter, "http2_connections_total", "Client connections that speak HTTP/2.", func(s Stats) uint64 { return s.HTTP2 })
	add(counter, "http2_floods_total", "HTTP/2 connections, of clients and to backends, ended because the peer made work for nothing.",
		func(s Stats) uint64 { return s.Floods2 })
	add(counter, "http3_connections_total", "Client connections that speak HTTP/3.", func(s Stats) uint64 { return s.HTTP3 })
	add(counter, "http3_refused_connections_total", "Attempts to connect by HTTP/3 refused because there were too many connections, or too many a second; a client makes several.",
		func(s Stats) uint64 { return s.Refused3 })
	add(counter, "http3_floods_total", "HTTP/3 connections of clients ended because they made work for nothing.", func(s Stats) uint64 { return s.Floods3 })
	add(prometheus.GaugeValue, "http3_active_connections", "Client connections of HTTP/3 open.",
		func(s Stats) uint64 { return uint64(max(s.Active3, 0)) })
	add(counter, "refused_certificates_total", "Certificate, CA and revocation files that changed and could not be used.",
		func(s Stats) uint64 { return s.RefusedCertificates })
	add(counter, "staple_failures_total", "OCSP responses that could not be fetched.",
		func(s Stats) uint64 { return s.StapleFailures })
	add(counter, "access_log_lines_total", "Lines of access logs.", func(s Stats) uint64 { return s.LogLines })
	add(counter, "access_log_dropped_lines_total", "Lines dropped because the disk did not keep up.", func(s Stats) uint64 { return s.LogDropped })
	add(counter, "access_log_failures_total", "Failures to write or open access logs.", func(s Stats) uint64 { return s.LogFailures })
	add(counter, "upgrades_total", "Connections that changed protocol.", func(s Stats) uint64 { return s.Upgrades })
	return m
}

func (m *metrics) answered(status int) { m.classes[status/100].Add(1) }

func (m *metrics) replied(status int) { m.own[status-400].Add(1) }

func (m *metrics) stats() Stats {
	s := Stats{
		FrontStats:          m.server.front.Stats(),
		RefusedCertificates: m.certificates.Load(), StapleFailures: m.server.stapler.Failures(),
		Retries: m.retries.Load(), Cut: m.cut.Load(), Upgrades: m.upgrades.Load(), HTTP2: m.http2.Load(), Floods2: m.floods2.Load(), HTTP3: m.http3.Load(), Refused3: m.refused3.Load(), Active3: m.active3.Load(), Floods3: m.floods3.Load(),
	}
	for i := range m.classes {
		s.Answered[i] = m.classes[i].Load()
	}
	for i := range m.own {
		s.Replied[i] = m.own[i].Load()
	}
	s.Refusals = make(map[string]uint64, shedCount)
	for why := shedNone + 1; why < shedCount; why++ {
		s.Refusals[shedTexts[why]] = m.shed[why].Load()
	}
	s.LogLines, s.LogDropped, s.LogFailures = m.server.logs.stats()
	for i := range m.handshakes {
		s.Handshakes[i] = m.handshakes[i].Load()
	}
	return s
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.requests
	ch <- m.replies
	ch <- m.shakes
	ch <- m.expiry
	for _, d := range []*prometheus.Desc{
		descRequests, descDuration, descRequestBytes, descResponseBytes, descRouteInFlight, descBackend, descRefused,
	} {
		ch <- d
	}
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
	for i, n := range s.Handshakes {
		ch <- prometheus.MustNewConstMetric(m.shakes, prometheus.CounterValue, float64(n), handshakeTexts[i])
	}
	for why := shedNone + 1; why < shedCount; why++ {
		ch <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(s.Refusals[shedTexts[why]]), shedTexts[why])
	}
	m.server.meters.collect(ch)
	told := make(map[[2]string]bool) // one file may be named twice
	for _, c := range m.server.Certificates() {
		if key := [2]string{c.Listener, c.File}; !told[key] {
			told[key] = true
			ch <- prometheus.MustNewConstMetric(m.expiry, prometheus.GaugeValue, float64(c.NotAfter.Unix()), c.Listener, c.File)
		}
	}
	for _, v := range m.values {
		ch <- prometheus.MustNewConstMetric(v.desc, v.kind, float64(v.read(s)))
	}
}
