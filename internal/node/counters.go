package node

import (
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// A carriedCounter is what a counter stood at in the process that this one has replaced.
type carriedCounter struct {
	Name, Help string
	Labels     []string // names and values in turns, in the order of names
	Value      float64
}

// counters are this node's metrics as they are scraped: counters go on where the process before this one
// stopped, since one that falls is taken for a restart, and for as many events as it then has.
// It is a prometheus.Gatherer.
type counters struct {
	registry prometheus.Gatherer // immutable

	mu     sync.Mutex // guards the rest
	before map[string]carriedCounter
	frozen []*dto.MetricFamily // what is scraped from now on; nil = what is
}

// Gather implements prometheus.Gatherer.
func (c *counters) Gather() ([]*dto.MetricFamily, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen != nil {
		return c.frozen, nil
	}
	return c.gather()
}

// gather returns what is, and what was. mu is held.
func (c *counters) gather() ([]*dto.MetricFamily, error) {
	families, err := c.registry.Gather()
	if len(c.before) == 0 {
		return families, err
	}
	seen := make(map[string]bool, len(c.before))
	at := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		at[f.GetName()] = f
		if f.GetType() != dto.MetricType_COUNTER {
			continue
		}
		for _, m := range f.Metric {
			key := counterKey(f.GetName(), labelsOf(m))
			if was, ok := c.before[key]; ok {
				seen[key] = true
				*m.Counter.Value += was.Value
			}
		}
	}
	for key, was := range c.before { // what has not happened here yet
		if seen[key] {
			continue
		}
		f := at[was.Name]
		if f == nil {
			f = &dto.MetricFamily{Name: &was.Name, Help: &was.Help, Type: dto.MetricType_COUNTER.Enum()}
			at[was.Name] = f
			families = append(families, f)
		} else if f.GetType() != dto.MetricType_COUNTER {
			continue
		}
		m := &dto.Metric{Counter: &dto.Counter{Value: &was.Value}}
		for i := 0; i+1 < len(was.Labels); i += 2 {
			m.Label = append(m.Label, &dto.LabelPair{Name: &was.Labels[i], Value: &was.Labels[i+1]})
		}
		f.Metric = append(f.Metric, m)
	}
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return families, err
}

// freeze has every scrape get what is now, and returns its counters for the process that goes on with them. An error is
// about metrics that could not be gathered; all others are returned.
func (c *counters) freeze() ([]carriedCounter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	families, err := c.gather()
	c.frozen = families
	var all []carriedCounter
	for _, f := range families {
		if f.GetType() != dto.MetricType_COUNTER || !strings.HasPrefix(f.GetName(), "pharos_") {
			continue
		}
		for _, m := range f.Metric {
			if v := m.GetCounter().GetValue(); v > 0 {
				all = append(all, carriedCounter{f.GetName(), f.GetHelp(), labelsOf(m), v})
			}
		}
	}
	return all, err
}

// thaw ends freeze: nobody goes on with them.
func (c *counters) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = nil
}

// adopt goes on with another process's counters.
func (c *counters) adopt(all []carriedCounter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = make(map[string]carriedCounter, len(all))
	for _, was := range all {
		c.before[counterKey(was.Name, was.Labels)] = was
	}
}

// labelsOf lists names and values in turns.
func labelsOf(m *dto.Metric) []string {
	labels := make([]string, 0, 2*len(m.Label))
	for _, l := range m.Label {
		labels = append(labels, l.GetName(), l.GetValue())
	}
	return labels
}

func counterKey(name string, labels []string) string {
	return name + "\x00" + strings.Join(labels, "\x00")
}
