package udp

import (
	"sync/atomic"

	"github.com/pharos-lb/pharos/forward/l4/udp/offload"
	"github.com/prometheus/client_golang/prometheus"
)

// counters count on the way and are read when scraped.
type counters struct {
	received, answered, sessions, byID atomic.Uint64
	evicted, noBackend, refused, lost  atomic.Uint64
	opened, reused, stray, carried     atomic.Uint64
	gone, rate, clientRate, nodeRate   atomic.Uint64
	serviceRate, untracked             atomic.Uint64
}

// Stats is a Server at one moment.
type Stats struct {
	// Active is how many sessions there are.
	Active int64
	// Received and Answered count datagrams of clients and of backends, Sessions
	// those that were begun, ByID those of them that went where a connection ID said.
	Received, Answered, Sessions, ByID uint64
	// Evicted counts sessions that gave way to newer ones, NoBackend datagrams that no backend could be given, Refused sessions whose
	// backend had nobody at its port, Lost datagrams that could not be sent, Stray those
	// of backends that came after the end of their session.
	Evicted, NoBackend, Refused, Lost, Stray uint64
	// Gone counts sessions that ended because their backend was out of use.
	Gone uint64
	// Rate and ClientRate count datagrams that would have begun a session too many for Limits, ServiceRate for the rate of the service, NodeRate for
	// all listeners together, Untracked those of clients that there was no room for.
	Rate, ClientRate, ServiceRate, NodeRate, Untracked uint64
	// Opened counts sockets to backends, Reused sessions that have taken over one that another had.
	Opened, Reused uint64
	// Carried counts sessions of the process that this one has replaced.
	Carried uint64
	// LaneWanted: a listener wants the kernel to carry sessions; LaneOpen: it does. Lane is what it carries; Received and
	// Answered count its datagrams too.
	LaneWanted, LaneOpen bool
	Lane                 offload.Stats
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock() // what a lane that is closed has counted is in one place or the other
	defer s.mu.Unlock()
	c := &s.count
	st := Stats{
		Received: c.received.Load(), Answered: c.answered.Load(), Sessions: c.sessions.Load(), ByID: c.byID.Load(),
		Evicted: c.evicted.Load(), NoBackend: c.noBackend.Load(), Refused: c.refused.Load(), Lost: c.lost.Load(),
		Opened: c.opened.Load(), Reused: c.reused.Load(), Stray: c.stray.Load(), Gone: c.gone.Load(),
		Rate: c.rate.Load(), ClientRate: c.clientRate.Load(), NodeRate: c.nodeRate.Load(), ServiceRate: c.serviceRate.Load(), Untracked: c.untracked.Load(),
		Carried: c.carried.Load(), LaneWanted: s.laneWanted, Lane: s.lanePast,
	}
	if lane := s.lane.Load(); lane != nil {
		st.LaneOpen = true
		st.Lane.Add(lane.Stats())
	}
	st.Received += st.Lane.Asked
	st.Answered += st.Lane.Answered
	for _, b := range s.bindings {
		st.Active += b.active.Load()
	}
	return st
}

type collector struct{ server *Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("pharos_udp_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.server.Stats()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, float64(v), labels...)
	}
	counter := prometheus.CounterValue
	send(desc("active_sessions", "UDP sessions being forwarded."), prometheus.GaugeValue, uint64(max(s.Active, 0)))
	send(desc("sessions_total", "UDP sessions begun."), counter, s.Sessions)
	send(desc("quic_sessions_total", "UDP sessions that went where a QUIC connection ID said."), counter, s.ByID)
	send(desc("received_datagrams_total", "Datagrams of clients."), counter, s.Received)
	send(desc("answered_datagrams_total", "Datagrams of backends."), counter, s.Answered)
	send(desc("evicted_sessions_total", "UDP sessions that gave way to newer ones."), counter, s.Evicted)
	send(desc("gone_sessions_total", "UDP sessions that ended because their backend was out of use."), counter, s.Gone)
	send(desc("carried_sessions_total", "UDP sessions that were begun in a process that this one has replaced."), counter, s.Carried)
	send(desc("untracked_clients_total", "Datagrams that began a session of a client that limits.clients had no room for."), counter, s.Untracked)
	sockets := desc("backend_sockets_total", "Sockets that sessions have taken to backends: opened, or reused after another session.", "how")
	send(sockets, counter, s.Opened, "opened")
	send(sockets, counter, s.Reused, "reused")
	c.collectLane(&s, send)
	dropped := desc("dropped_datagrams_total", "Datagrams dropped, by reason.", "reason")
	send(dropped, counter, s.NoBackend, "no_backend")
	send(dropped, counter, s.Refused, "refused")
	send(dropped, counter, s.Rate, "rate")
	send(dropped, counter, s.ClientRate, "client_rate")
	send(dropped, counter, s.ServiceRate, "service_rate")
	send(dropped, counter, s.NodeRate, "node_rate")
	send(dropped, counter, s.Lost, "lost")
	send(dropped, counter, s.Stray, "stray")
}

// collectLane sends what the kernel's lane has to say, if a listener wants it.
func (c collector) collectLane(s *Stats, send func(*prometheus.Desc, prometheus.ValueType, uint64, ...string)) {
	if !s.LaneWanted {
		return
	}
	open := uint64(0)
	if s.LaneOpen {
		open = 1
	}
	counter := prometheus.CounterValue
	send(desc("offload_available", "1 if the kernel carries UDP sessions, 0 if it cannot and sockets carry all of them."), prometheus.GaugeValue, open)
	send(desc("offloaded_sessions", "UDP sessions that the kernel carries."), prometheus.GaugeValue, uint64(s.Lane.Active))
	send(desc("offload_entries_total", "UDP sessions that the kernel was given to carry, each time that they were."), counter, s.Lane.Entered)
	send(desc("offload_emptied_total", "How often all UDP sessions went back to their sockets because the network had changed."), counter, s.Lane.Emptied)
	refused := desc("offload_refused_total", "UDP sessions that the kernel could not be given, at each attempt, by reason.", "reason")
	for _, why := range offload.Refusals {
		send(refused, counter, s.Lane.Refused[why], why.String())
	}
	datagrams := desc("offloaded_datagrams_total", "Datagrams that the kernel has carried; the totals of all count them too.", "from")
	send(datagrams, counter, s.Lane.Asked, "client")
	send(datagrams, counter, s.Lane.Answered, "backend")
}
