package vip

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	registerer      prometheus.Registerer
	wanted, missing prometheus.Gauge
	restored        prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		registerer: r,
		wanted:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_vip_wanted", Help: "VIPs that should be on the interface."}),
		missing:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_vip_missing", Help: "VIPs that are not on the interface; their prefixes are not announced."}),
		restored:   prometheus.NewCounter(prometheus.CounterOpts{Name: "pharos_vip_restored_total", Help: "Times a VIP was bound again after somebody else had removed it."}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.wanted), r.Register(m.missing), r.Register(m.restored))
}

func (m *metrics) unregister() {
	if m.registerer != nil {
		m.registerer.Unregister(m.wanted)
		m.registerer.Unregister(m.missing)
		m.registerer.Unregister(m.restored)
	}
}
