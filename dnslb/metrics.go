package dnslb

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/dnslb/transport"
	"github.com/pharos-lb/pharos/dnslb/wire"
)

// Reasons for a query that gets no response.
const (
	dropMalformed = iota // shorter than a header, or a response
	dropPort             // from port 0
	dropPanic            // a bug of ours
	dropSend             // the kernel refused to send
	dropOverflow         // came faster than we took it; the kernel counts
	dropReasons
)

var dropNames = [dropReasons]string{"malformed", "source_port", "internal", "send", "overflow"}

const (
	overUDP = iota
	overTCP
	transports
)

var transportNames = [transports]string{"udp", "tcp"}

func transportOf(tcp bool) int {
	if tcp {
		return overTCP
	}
	return overUDP
}

// rcodeSlots are the response codes with a counter of their own; the last
// slot takes the others.
var rcodeSlots = [...]wire.Rcode{
	wire.NoError, wire.FormErr, wire.ServFail, wire.NXDomain, wire.NotImp, wire.Refused,
	wire.YXDomain, 7, 8, wire.NotAuth, wire.BadVers,
}

// counters belong to one socket, so that no two cores write the same ones; the
// padding keeps neighbours off their cache lines.
type counters struct {
	_         [64]byte
	queries   [transports]atomic.Uint64
	responses [len(rcodeSlots)]atomic.Uint64
	dropped   [dropReasons]atomic.Uint64
	truncated atomic.Uint64
	overflow  func() uint64  // what the kernel dropped of a UDP socket; or nil
	at        netip.AddrPort // immutable: where the socket listens; invalid = not said
	_         [64]byte
}

func (c *counters) response(rcode wire.Rcode) {
	slot := int(rcode)
	if rcode == wire.BadVers || slot >= len(rcodeSlots) {
		slot = len(rcodeSlots) - 1
	}
	c.responses[slot].Add(1)
}

// merge adds what a closed socket has counted.
func (c *counters) merge(o *counters) {
	for i := range o.queries {
		c.queries[i].Add(o.queries[i].Load())
	}
	for i := range o.responses {
		c.responses[i].Add(o.responses[i].Load())
	}
	for i := range o.dropped {
		c.dropped[i].Add(o.dropped[i].Load())
	}
	c.truncated.Add(o.truncated.Load())
	if o.overflow != nil {
		c.dropped[dropOverflow].Add(o.overflow())
	}
}

// metrics collects the counters of all sockets when asked.
type metrics struct {
	tcp  transport.Counters
	open func() int
	real func() int // threads with real-time priority

	mu      sync.Mutex // guards the rest
	live    map[*counters]struct{}
	retired counters
	zones   int
	steered int

	queries, responses, dropped, truncated *prometheus.Desc
	connections, events, zoneCount, names  *prometheus.Desc
	realTime                               *prometheus.Desc
}

func newMetrics() *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("pharos_dnslb_"+name, help, labels, nil)
	}
	return &metrics{
		live:        make(map[*counters]struct{}),
		open:        func() int { return 0 },
		real:        func() int { return 0 },
		queries:     desc("queries_total", "Messages received, by transport.", "transport"),
		responses:   desc("responses_total", "Responses made, by response code.", "rcode"),
		dropped:     desc("dropped_total", "Messages without a response, and responses that could not be sent.", "reason"),
		truncated:   desc("truncated_total", "Responses with the TC bit."),
		connections: desc("tcp_connections", "Open TCP connections."),
		events:      desc("tcp_connections_total", "TCP connections, by what became of them.", "event"),
		zoneCount:   desc("zones", "Zones served."),
		realTime:    desc("realtime_threads", "UDP threads that have real-time priority at the moment."),
		names:       desc("steered_names", "Steered names served."),
	}
}

// socket returns counters for a new socket. overflow tells what the kernel has
// dropped of it; nil for TCP.
func (m *metrics) socket(overflow func() uint64) *counters {
	return m.socketAt(netip.AddrPort{}, overflow)
}

// socketAt is socket for one that listens at an address.
func (m *metrics) socketAt(at netip.AddrPort, overflow func() uint64) *counters {
	c := &counters{overflow: overflow, at: at}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live[c] = struct{}{}
	return c
}

// retire keeps what a socket counted after it is gone.
func (m *metrics) retire(c *counters) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.live[c]; ok {
		delete(m.live, c)
		m.retired.merge(c)
	}
}

func (m *metrics) total() *counters {
	sum := new(counters)
	m.mu.Lock()
	defer m.mu.Unlock()
	sum.merge(&m.retired)
	for c := range m.live {
		sum.merge(c)
	}
	return sum
}

func (m *metrics) setZones(zones, steered int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.zones, m.steered = zones, steered
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.queries, m.responses, m.dropped, m.truncated, m.connections, m.events, m.zoneCount, m.names, m.realTime,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	sum := m.total()
	for i, name := range transportNames {
		counter(m.queries, sum.queries[i].Load(), name)
	}
	for i, rcode := range rcodeSlots {
		if name := rcode.String(); name != "other" {
			counter(m.responses, sum.responses[i].Load(), name)
		}
	}
	for i, name := range dropNames {
		counter(m.dropped, sum.dropped[i].Load(), name)
	}
	counter(m.truncated, sum.truncated.Load())
	gauge(m.connections, m.open())
	gauge(m.realTime, m.real())
	counter(m.events, m.tcp.Accepted.Load(), "accepted")
	counter(m.events, m.tcp.Evicted.Load(), "evicted")
	counter(m.events, m.tcp.Refused.Load(), "refused")
	counter(m.events, m.tcp.Crowded.Load(), "crowded")
	counter(m.events, m.tcp.Short.Load(), "descriptors")
	counter(m.events, m.tcp.Slow.Load(), "slow")
	counter(m.events, m.tcp.Stalled.Load(), "stalled")
	counter(m.events, m.tcp.Idle.Load(), "idle")
	counter(m.events, m.tcp.Malformed.Load(), "malformed")
	counter(m.events, m.tcp.Memory.Load(), "memory")
	counter(m.events, m.tcp.AcceptErrors.Load(), "accept_error")
	m.mu.Lock()
	zones, steered := m.zones, m.steered
	m.mu.Unlock()
	gauge(m.zoneCount, zones)
	gauge(m.names, steered)
}
