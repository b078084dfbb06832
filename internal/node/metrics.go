package node

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// metrics are the node's own; each tier brings its own.
type metrics struct {
	generation  prometheus.Gauge
	reports     *prometheus.CounterVec
	verdicts    *prometheus.CounterVec
	reloads     *prometheus.CounterVec
	upgrades    *prometheus.CounterVec
	reloadOK    prometheus.Gauge
	reloadTime  prometheus.Gauge
	geoBuilt    prometheus.Gauge
	servingFrom prometheus.Gauge

	overrides     prometheus.Gauge
	ordersRefused prometheus.Counter
	minority      prometheus.Gauge
	doubting      prometheus.Gauge
	distrusted    prometheus.Gauge
	unseen        prometheus.Gauge
	held          *prometheus.GaugeVec
	panics        prometheus.Gauge
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
		upgrades: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pharos_node_upgrades_total", Help: "Upgrades of this process that failed (one that does not ends it), by result.",
		}, []string{"result"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pharos_node_reloads_total", Help: "Reloads, by result.",
		}, []string{"result"}),
		reloadOK:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_node_last_reload_successful", Help: "1 when the newest reload was taken."}),
		reloadTime:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_node_last_reload_success_timestamp_seconds", Help: "When the configuration in force was loaded."}),
		geoBuilt:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_geo_data_built_timestamp_seconds", Help: "When the geo data in use was made."}),
		servingFrom: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_node_serving_since_timestamp_seconds", Help: "When this process began to answer; 0 before."}),
	}
	m.overrides = prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_node_standing_overrides", Help: "Operators' orders in force."})
	m.ordersRefused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "pharos_node_overrides_refused_total", Help: "Overrides of other nodes that could not be taken: too many, or malformed.",
	})
	m.minority = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "pharos_node_minority", Help: "1 while too few sites are heard, so that verdicts on other sites are frozen.",
	})
	m.doubting = prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_node_doubts_itself", Help: "1 while this node's own findings do not count."})
	m.held = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "pharos_node_safety_held_sites", Help: "Sites of services that a safety rule keeps in, or an order keeps out, by reason.",
	}, []string{"reason"})
	m.distrusted = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "pharos_node_distrusted_observers", Help: "Nodes whose findings on other sites do not count, because they contradict the rest.",
	})
	m.unseen = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "pharos_node_routes_unseen", Help: "Prefixes times peers that were sent a prefix which nobody sees elsewhere although others look.",
	})
	m.panics = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "pharos_node_panic_pools", Help: "Pools of all sites in which so few backends are up that those that are down get work as well.",
	})
	reg.MustRegister(m.panics, m.unseen, m.distrusted, m.overrides, m.ordersRefused, m.minority, m.doubting, m.held)
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "pharos_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	info.Set(1)
	reg.MustRegister(m.generation, m.reports, m.verdicts, m.reloads, m.upgrades, m.reloadOK, m.reloadTime, m.geoBuilt, m.servingFrom, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watchState shows what the state folder's disk refuses, and what was damaged on it.
func watchState(reg prometheus.Registerer, s *stateDir) {
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "pharos_node_damaged_state_files_total", Help: "State files that could not be read or trusted, and were set aside as .corrupt.",
	}, func() float64 { return float64(s.damaged.Load()) }))
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pharos_node_refused_state_files", Help: "Files that the disk of the state folder did not take; this node goes on without.",
	}, func() float64 { return float64(s.refused()) }))
}

// gaugeOf is 1 for true.
func gaugeOf(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// noteView keeps what the verdicts rest on.
func (m *metrics) noteView(v *health.View) {
	m.minority.Set(gaugeOf(v.Minority))
	distrusted := 0
	for _, w := range v.Witnesses {
		if w.Distrusted {
			distrusted++
		}
	}
	m.distrusted.Set(float64(distrusted))
}

// noteSafety counts the sites of services that are in or out for a reason other
// than their own merits.
func (m *metrics) noteSafety(p *steer.Plan) {
	var counts [256]int // by reason
	panics := 0
	for i := range p.Services {
		may := p.Topology.Services[i].Config.Panic > 0
		for k := range p.Services[i].Sites {
			counts[p.Services[i].Sites[k].Why]++
			if may && p.Services[i].Sites[k].Panics() {
				panics++
			}
		}
	}
	m.panics.Set(float64(panics))
	for _, r := range [...]steer.Reason{
		steer.ReasonFailOpen, steer.ReasonMinimum, steer.ReasonBudget, steer.ReasonMassFailure,
		steer.ReasonDrained, steer.ReasonOrderedDown, steer.ReasonOrderedUp,
	} {
		m.held.WithLabelValues(r.String()).Set(float64(counts[r]))
	}
}
