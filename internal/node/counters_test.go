package node

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// a process's counters, two of which it has counted with.
func countedWith(events, errors float64) *counters {
	r := prometheus.NewRegistry()
	all := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pharos_events_total", Help: "Events."}, []string{"kind"})
	open := prometheus.NewGauge(prometheus.GaugeOpts{Name: "pharos_open", Help: "Open."})
	r.MustRegister(all, open)
	open.Set(7)
	if events > 0 {
		all.WithLabelValues("good").Add(events)
	}
	if errors > 0 {
		all.WithLabelValues("bad").Add(errors)
	}
	return &counters{registry: r}
}

// reading is what is scraped, as "kind value" in order.
func reading(t *testing.T, c *counters) string {
	t.Helper()
	families, err := c.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, f := range families {
		for _, m := range f.Metric {
			labels := strings.Join(labelsOf(m), "=")
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			text, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, f.GetName()+"{"+labels+"} "+string(text))
		}
	}
	return strings.Join(parts, ", ")
}

// TestCountersGoOn: over two upgrades no counter falls, one that has not counted yet is there, gauges are
// this process's own, and from the hand-over on the old process says what it has handed over.
func TestCountersGoOn(t *testing.T) {
	first := countedWith(10, 2)
	handed := frozen(t, first)
	over := func(c []carriedCounter) (back []carriedCounter) { // as it goes from process to process
		raw, err := json.Marshal(c)
		if err == nil {
			err = json.Unmarshal(raw, &back)
		}
		if err != nil {
			t.Fatal(err)
		}
		return back
	}
	second := countedWith(5, 0)
	second.adopt(over(handed))
	for range 2 { // a scrape changes nothing
		if got, want := reading(t, second), "pharos_events_total{kind=good} 15, pharos_events_total{kind=bad} 2, pharos_open{} 7"; got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
	third := countedWith(0, 1)
	third.adopt(over(frozen(t, second)))
	if got, want := reading(t, third), "pharos_events_total{kind=bad} 3, pharos_events_total{kind=good} 15, pharos_open{} 7"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	before := reading(t, first)
	for _, collector := range []string{"frozen", "thawed"} {
		if collector == "thawed" {
			first.thaw()
		}
		if got := reading(t, first); got != before {
			t.Errorf("%s: got %s, want %s", collector, got, before)
		}
	}
}

// TestLateCounters: what the old process counts after it has handed over reaches the new one, once, and the one after that.
func TestLateCounters(t *testing.T) {
	first, second, third := countedWith(10, 0), countedWith(5, 0), countedWith(1, 0)
	second.adopt(frozen(t, first))
	third.adopt(frozen(t, second))
	late := func(c *counters, kind string) {
		all := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pharos_events_total", Help: "Events."}, []string{"kind"})
		var already prometheus.AlreadyRegisteredError
		if err := c.registry.(*prometheus.Registry).Register(all); !errors.As(err, &already) {
			t.Fatal(err)
		}
		already.ExistingCollector.(*prometheus.CounterVec).WithLabelValues(kind).Inc()
	}
	late(first, "good")
	late(first, "bad")
	for range 2 { // the second time there is nothing more
		second.add(first.grown())
		third.add(second.grown())
	}
	late(first, "good")
	second.add(first.grown())
	third.add(second.grown())
	if got, want := reading(t, third), "pharos_events_total{kind=good} 18, pharos_events_total{kind=bad} 1, pharos_open{} 7"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := reading(t, second), "pharos_events_total{kind=good} 15, pharos_open{} 7"; got != want {
		t.Errorf("the second is scraped: got %s, want %s", got, want)
	}
}

// frozen is what a process hands over.
func frozen(t *testing.T, c *counters) []carriedCounter {
	t.Helper()
	all, err := c.freeze()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What cannot be gathered keeps no other counter from going on.
func TestCountersGoOnWithoutOne(t *testing.T) {
	c := countedWith(10, 2)
	broken := prometheus.NewDesc("pharos_broken", "Broken.", nil, nil)
	c.registry.(*prometheus.Registry).MustRegister(prometheus.CollectorFunc(func(ch chan<- prometheus.Metric) {
		ch <- prometheus.NewInvalidMetric(broken, errors.New("broken"))
	}))
	all, err := c.freeze()
	if err == nil || len(all) != 2 {
		t.Errorf("handed over %v, error %v", all, err)
	}
}
