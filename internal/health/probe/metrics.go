package probe

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the package's. Labels: kind (tcp, http, https) and result (ok,
// fail, inconclusive).
type metrics struct {
	probes   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	late     prometheus.Counter
	inFlight prometheus.Gauge
	checks   prometheus.Gauge
}

// newMetrics returns unregistered metrics.
func newMetrics() *metrics {
	return &metrics{
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pharos_probe_probes_total", Help: "Probes that ended, by kind of check and result.",
		}, []string{"kind", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pharos_probe_duration_seconds", Help: "How long probes took, by kind of check.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"kind"}),
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pharos_probe_late_total", Help: "Probes that started more than 100 ms after they were due.",
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pharos_probe_in_flight_probes", Help: "Probes running now.",
		}),
		checks: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pharos_probe_configured_checks", Help: "Checks on the schedule.",
		}),
	}
}

// register adds the metrics to reg, all or none; nil is no registry.
func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	var errs []error
	var added []prometheus.Collector
	for _, c := range []prometheus.Collector{m.probes, m.duration, m.late, m.inFlight, m.checks} {
		if err := reg.Register(c); err != nil {
			errs = append(errs, err)
			continue
		}
		added = append(added, c)
	}
	if len(errs) > 0 {
		for _, c := range added {
			reg.Unregister(c)
		}
	}
	return errors.Join(errs...)
}

// observe counts one probe.
func (m *metrics) observe(k Kind, r Result) {
	result := "fail"
	switch {
	case r.Inconclusive:
		result = "inconclusive"
	case r.OK():
		result = "ok"
	}
	m.probes.WithLabelValues(k.String(), result).Inc()
	m.duration.WithLabelValues(k.String()).Observe(r.Latency.Seconds())
}
