package node

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the node's own; each tier brings its own.
type metrics struct {
	generation  prometheus.Gauge
	reports     *prometheus.CounterVec
	verdicts    *prometheus.CounterVec
	reloads     *prometheus.CounterVec
	reloadOK    prometheus.Gauge
	reloadTime  prometheus.Gauge
	geoBuilt    prometheus.Gauge
	servingFrom prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, version string) *metrics {
	m := &metrics{
		generation: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_node_plan_generation", Help: "Generation of the published plan."}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pharos_node_reports_total", Help: "Health reports of other nodes, by what became of them.",
		}, []string{"outcome"}),
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pharos_node_verdict_changes_total", Help: "Verdicts that changed, by the new status.",
		}, []string{"status"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pharos_node_reloads_total", Help: "Reloads, by result.",
		}, []string{"result"}),
		reloadOK:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_node_last_reload_successful", Help: "1 when the newest reload was taken."}),
		reloadTime:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_node_last_reload_success_timestamp_seconds", Help: "When the configuration in force was loaded."}),
		geoBuilt:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_geo_data_built_timestamp_seconds", Help: "When the geo data in use was made."}),
		servingFrom: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_node_serving_since_timestamp_seconds", Help: "When this process began to answer; 0 before."}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "pharos_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	info.Set(1)
	reg.MustRegister(m.generation, m.reports, m.verdicts, m.reloads, m.reloadOK, m.reloadTime, m.geoBuilt, m.servingFrom, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}
