package probe

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the package's. Labels: kind (Kind.String) and result (ok, fail,
// inconclusive).
type metrics struct {
	probes   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	late     prometheus.Counter
	inFlight prometheus.Gauge
	checks   prometheus.Gauge
	rows     prometheus.Counter
	// suppressed, flapping and weights are about what targets state.
	suppressed prometheus.Counter
	flapping   prometheus.Gauge
	weights    prometheus.Counter
	// commands, crowded and survivors are about Exec checks.
	commands  prometheus.Gauge
	crowded   prometheus.Counter
	survivors prometheus.Counter
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
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pharos_probe_traffic_failures_total", Help: "Rows of failed traffic that counted as a failed probe each.",
		}),
		suppressed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pharos_probe_suppressed_rises_total", Help: "Times that a target would have come up but changes too often.",
		}),
		flapping: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pharos_probe_flapping_targets", Help: "Targets held down because they change too often.",
		}),
		weights: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pharos_probe_weight_changes_total", Help: "Changes of the weight that targets ask for.",
		}),
		commands: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pharos_probe_running_commands", Help: "Commands of exec checks running now.",
		}),
		crowded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pharos_probe_crowded_commands_total", Help: "Exec checks that said nothing because too many commands were running.",
		}),
		survivors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pharos_probe_surviving_processes_total", Help: "Processes of exec checks that did not end although they were killed.",
		}),
	}
}

// all returns every metric.
func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.probes, m.duration, m.late, m.inFlight, m.checks, m.rows,
		m.suppressed, m.flapping, m.weights, m.commands, m.crowded, m.survivors,
	}
}

// registerAll adds metrics to reg, all or none; nil is no registry.
func registerAll(reg prometheus.Registerer, metrics ...prometheus.Collector) error {
	if reg == nil {
		return nil
	}
	var errs []error
	var added []prometheus.Collector
	for _, c := range metrics {
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
