package forward

import "github.com/prometheus/client_golang/prometheus"

// A collector reads the Registry when it is scraped, so that the hot path pays
// nothing for it. Labels are bounded by the configuration.
type collector struct{ registry *Registry }

// The descriptions are built per scrape rather than kept in globals.
type descriptions struct {
	inFlight, idle, active, share, leases, connects, failures, reuses, stale, dropped, outcomes *prometheus.Desc
	ejected, ejections, held, latency, queue, refused, overflowed, zoned, short                 *prometheus.Desc
}

func describe() descriptions {
	labels := []string{"service", "backend"}
	d := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("pharos_forward_"+name, help, append(labels[:2:2], more...), nil)
	}
	return descriptions{
		inFlight: d("inflight_leases", "L4 connections and L7 requests that the backend is carrying."),
		idle:     d("idle_connections", "Upstream connections waiting to be used again."),
		active:   d("active_backend", "1 while the newest plan gives the backend new connections."),
		share:    d("weight_share_ratio", "How much of its weight counts: less than 1 in a slow start."),
		leases:   d("leases_total", "L4 connections and L7 requests given to the backend."),
		connects: d("connects_total", "Connections opened to the backend."),
		failures: d("connect_failures_total", "Connections to the backend that could not be opened."),
		reuses:   d("reuses_total", "Times that an idle connection was used again."),
		stale:    d("stale_connections_total", "Idle connections found dead when they were to be used."),
		dropped:  d("idle_dropped_total", "Connections closed because enough idle ones were kept."),
		outcomes: d("outcomes_total", "How leases ended.", "outcome"),

		ejected:   d("ejected_backend", "1 while it is passed over for what became of its work here."),
		ejections: d("ejections_total", "Ejections, by what for.", "reason"),
		held:      d("ejections_held_total", "Ejections that did not happen because too many others were ejected."),
		latency:   d("latency_seconds", "The moving average of how long the backend takes, where it is measured."),
		queue:     prometheus.NewDesc("pharos_forward_queued_leases", "Units of work that wait for a backend below its limit.", []string{"service"}, nil),
		overflowed: prometheus.NewDesc("pharos_forward_overflowed_leases_total",
			"Units of work that the pool had nobody for, and that went to another site's VIP.", []string{"service"}, nil),
		short: prometheus.NewDesc("pharos_forward_refused_descriptors_total",
			"Connections, sessions and pipes that did not come to be because their descriptor is kept for the rest of the node.", nil, nil),
		zoned: prometheus.NewDesc("pharos_forward_zone_leases_total",
			"Units of work given to backends in this node's availability zone (own), and in others (other).", []string{"service", "zone"}, nil),
		refused: prometheus.NewDesc("pharos_forward_limited_total",
			"Units of work refused because every backend was at its limit: full (no room in the queue), late (waited too long) or delay (the queue does not empty); or for the rate of the service.", []string{"service", "reason"}, nil),
	}
}

func (d descriptions) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		d.inFlight, d.idle, d.active, d.share, d.leases, d.connects, d.failures, d.reuses, d.stale, d.dropped, d.outcomes,
		d.ejected, d.ejections, d.held, d.latency, d.queue, d.refused, d.overflowed, d.zoned, d.short,
	}
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range describe().all() {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	d := describe()
	ch <- prometheus.MustNewConstMetric(d.short, prometheus.CounterValue, float64(c.registry.intake.short.Load()))
	for _, s := range c.registry.Snapshot() {
		backend := s.Address.String()
		send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, more ...string) {
			ch <- prometheus.MustNewConstMetric(desc, kind, value, append([]string{s.Service, backend}, more...)...)
		}
		active := 0.0
		if s.Active {
			active = 1
		}
		send(d.inFlight, prometheus.GaugeValue, float64(s.InFlight))
		send(d.idle, prometheus.GaugeValue, float64(s.Idle))
		send(d.active, prometheus.GaugeValue, active)
		send(d.share, prometheus.GaugeValue, s.Share)
		send(d.leases, prometheus.CounterValue, float64(s.Leases))
		send(d.connects, prometheus.CounterValue, float64(s.Connects))
		send(d.failures, prometheus.CounterValue, float64(s.ConnectFailures))
		send(d.reuses, prometheus.CounterValue, float64(s.Reuses))
		send(d.stale, prometheus.CounterValue, float64(s.Stale))
		send(d.dropped, prometheus.CounterValue, float64(s.IdleDropped))
		for o, n := range s.Outcomes {
			send(d.outcomes, prometheus.CounterValue, float64(n), Outcome(o).String())
		}
		ejected := 0.0
		if s.EjectedFor != "" {
			ejected = 1
		}
		send(d.ejected, prometheus.GaugeValue, ejected)
		send(d.held, prometheus.CounterValue, float64(s.EjectionsHeld))
		for why, n := range s.Ejections {
			send(d.ejections, prometheus.CounterValue, float64(n), why)
		}
		if s.Latency > 0 {
			send(d.latency, prometheus.GaugeValue, s.Latency.Seconds())
		}
	}
	for _, q := range c.registry.Queues() {
		ch <- prometheus.MustNewConstMetric(d.queue, prometheus.GaugeValue, float64(q.Waiting), q.Service)
		ch <- prometheus.MustNewConstMetric(d.refused, prometheus.CounterValue, float64(q.Full), q.Service, "full")
		ch <- prometheus.MustNewConstMetric(d.refused, prometheus.CounterValue, float64(q.Late), q.Service, "late")
		ch <- prometheus.MustNewConstMetric(d.refused, prometheus.CounterValue, float64(q.Shed), q.Service, "delay")
		ch <- prometheus.MustNewConstMetric(d.refused, prometheus.CounterValue, float64(q.OverRate), q.Service, "rate")
		if q.Zoned {
			ch <- prometheus.MustNewConstMetric(d.zoned, prometheus.CounterValue, float64(q.Stayed), q.Service, "own")
			ch <- prometheus.MustNewConstMetric(d.zoned, prometheus.CounterValue, float64(q.Crossed), q.Service, "other")
		}
		ch <- prometheus.MustNewConstMetric(d.overflowed, prometheus.CounterValue, float64(q.Overflowed), q.Service)
	}
}
