package node

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

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
	told   map[string]float64  // what the process that goes on with them has been told of each

	ended chan struct{} // closed when the process before counts nothing more
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
	c.frozen, c.told = families, make(map[string]float64)
	return c.growth(families), err
}

// grown returns by how much counters have grown since freeze, and since grown was called before.
func (c *counters) grown() []carriedCounter {
	c.mu.Lock()
	defer c.mu.Unlock()
	families, _ := c.gather() // what cannot be read was not handed over either
	return c.growth(families)
}

// growth returns what was not told of yet, and notes that it is. mu is held.
func (c *counters) growth(families []*dto.MetricFamily) (all []carriedCounter) {
	for _, f := range families {
		if f.GetType() != dto.MetricType_COUNTER || !strings.HasPrefix(f.GetName(), "pharos_") {
			continue
		}
		for _, m := range f.Metric {
			labels, v := labelsOf(m), m.GetCounter().GetValue()
			key := counterKey(f.GetName(), labels)
			if more := v - c.told[key]; more > 0 {
				c.told[key] = v
				all = append(all, carriedCounter{f.GetName(), f.GetHelp(), labels, more})
			}
		}
	}
	return all
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

// add counts what the process before has counted since it handed over.
func (c *counters) add(all []carriedCounter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.before == nil {
		c.before = make(map[string]carriedCounter, len(all))
	}
	for _, more := range all {
		key := counterKey(more.Name, more.Labels)
		more.Value += c.before[key].Value
		c.before[key] = more
	}
}

// tellCounters tells the new process now and then what this one, which finishes what it has, counts meanwhile.
func (n *Node) tellCounters(ctx context.Context) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.tellGrowth()
		}
	}
}

// tellGrowth tells it once. Nobody may be there any more to be told: then nobody misses it.
func (n *Node) tellGrowth() {
	all := n.counters.grown()
	if len(all) > 0 && n.heir.Send(msgCounted, countedBody{all}, nil, tellLimit) != nil {
		n.heir.Close() // half a message may have gone
	}
}

// hearCounters adds what the old process still counts, until that has ended.
func (n *Node) hearCounters(ctx context.Context) error {
	conn := n.opts.Takeover
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		m, err := conn.Receive(forever)
		if err != nil { // it has ended
			close(n.counters.ended)
			<-ctx.Done()
			return nil
		}
		var counted countedBody
		if m.Kind == msgCounted && m.Decode(&counted) == nil {
			n.counters.add(counted.Counters)
		}
		m.Close()
	}
}

// forever is longer than any process has been running.
const forever = 100 * 365 * 24 * time.Hour

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
