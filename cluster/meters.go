package cluster

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The reasons for which something received or to be sent is dropped.
const (
	dropMalformed = "malformed"  // not a frame, or not a report
	dropVersion   = "version"    // of a newer pharos
	dropOversize  = "oversize"   // larger than any frame may be
	dropQueue     = "queue_full" // the oldest in the inbox made room
	dropTable     = "table_full" // more observers than maxObservers
	dropStale     = "stale"      // older than forgetAfter
	dropKey       = "key"        // not encrypted with a key of ours
	dropLabel     = "label"      // of another cluster
	dropStreams   = "streams"    // too many or too large TCP streams
	dropCourier   = "courier"    // the member's last TCP delivery is not done yet
	dropSend      = "send"       // sending failed
	dropMembers   = "members"    // more members than maxMembers, or a bad address
	dropTruncated = "truncated"  // did not fit into the table that was sent
	dropRefused   = "refused"    // published by the wrong observer or not newer
	dropNoise     = "protocol"   // other complaints of the membership protocol
	dropSignature = "signature"  // not signed with the key of the node that it says it is from
	dropSection   = "section"    // a section of a state that a newer pharos added
	dropQuestion  = "question"   // more questions than are asked, taken or answered
	dropAnswer    = "answer"     // to no question that is open
)

// dropReasons lists every reason, so that each is exported from the start.
func dropReasons() []string {
	return []string{
		dropMalformed, dropVersion, dropOversize, dropQueue, dropTable, dropStale, dropKey, dropLabel,
		dropStreams, dropCourier, dropSend, dropMembers, dropTruncated, dropRefused, dropNoise,
		dropSignature, dropSection, dropQuestion, dropAnswer,
	}
}

// meters are the metrics of a Node.
type meters struct {
	messages  *prometheus.CounterVec // direction, kind
	bytes     *prometheus.CounterVec // direction, protocol
	dropped   *prometheus.CounterVec // reason
	delivered prometheus.Counter
	conflicts *prometheus.CounterVec // what
	joins     *prometheus.CounterVec // outcome
	exchanges *prometheus.CounterVec // outcome
	// duplicates are no drops: what arrives by several ways is one after the first.
	duplicates *prometheus.CounterVec // what
	repairs    prometheus.Counter

	registerer prometheus.Registerer
	registered []prometheus.Collector
}

func newMeters() *meters {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "pharos", Subsystem: "cluster", Name: name, Help: help,
		}, labels)
	}
	m := &meters{
		messages:   counter("messages_total", "Frames sent and received, by kind.", "direction", "kind"),
		bytes:      counter("bytes_total", "Payload bytes of gossip sent and received, without IP and UDP or TCP headers.", "direction", "protocol"),
		dropped:    counter("dropped_total", "Things dropped, by reason.", "reason"),
		conflicts:  counter("conflicts_total", "Two nodes with one name (name), or two reports with one epoch and sequence number (report).", "what"),
		joins:      counter("joins_total", "Attempts to join a configured node.", "outcome"),
		exchanges:  counter("exchanges_total", "Tables exchanged by push/pull.", "outcome"),
		duplicates: counter("duplicates_total", "Reports and overrides received that are not newer than what is held: come by a second way, late, or replayed.", "what"),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "pharos", Subsystem: "cluster", Name: "repairs_total",
			Help: "Whole sets of overrides sent to members that kept reporting another one.",
		}),
		delivered: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "pharos", Subsystem: "cluster", Name: "delivered_total",
			Help: "Reports handed to the decider.",
		}),
	}
	for _, reason := range dropReasons() {
		m.dropped.WithLabelValues(reason)
	}
	for _, what := range []string{"name", "report"} {
		m.conflicts.WithLabelValues(what)
	}
	for _, what := range []string{"report", "override"} {
		m.duplicates.WithLabelValues(what)
	}
	for _, outcome := range []string{"done", "failed"} {
		m.joins.WithLabelValues(outcome)
		m.exchanges.WithLabelValues(outcome)
	}
	for _, direction := range []string{"in", "out"} {
		for _, kind := range frameKinds() {
			m.messages.WithLabelValues(direction, kind.String())
		}
		for _, protocol := range []string{"udp", "tcp"} {
			m.bytes.WithLabelValues(direction, protocol)
		}
	}
	return m
}

// register exports m and what can be read off n. A nil registerer exports nothing.
func (m *meters) register(r prometheus.Registerer, n *Node) error {
	if r == nil {
		return nil
	}
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "pharos", Subsystem: "cluster", Name: name, Help: help, ConstLabels: labels,
		}, value)
	}
	collectors := []prometheus.Collector{
		m.messages, m.bytes, m.dropped, m.delivered, m.conflicts, m.joins, m.exchanges, m.duplicates, m.repairs,
		gauge("members", "Other nodes, by presence.", prometheus.Labels{"state": "present"}, func() float64 {
			present, _ := n.roster.count()
			return float64(present)
		}),
		gauge("members", "Other nodes, by presence.", prometheus.Labels{"state": "gone"}, func() float64 {
			_, gone := n.roster.count()
			return float64(gone)
		}),
		gauge("exchange_age_seconds", "Time since the last table was received by push/pull, or since the start if none was.", nil, func() float64 {
			return n.exchangeAge(time.Now()).Seconds()
		}),
		gauge("gossip_queue_length", "Reports and overrides waiting to be passed on.", nil, func() float64 {
			return float64(n.news.queued())
		}),
	}
	m.registerer = r
	for _, c := range collectors {
		if err := r.Register(c); err != nil {
			m.unregister()
			return fmt.Errorf("register cluster metrics: %w", err)
		}
		m.registered = append(m.registered, c)
	}
	return nil
}

// unregister undoes register.
func (m *meters) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
	m.registered = nil
}
