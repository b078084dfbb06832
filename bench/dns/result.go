package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/bench/rig"
)

// A result is one server under measurement and its figures.
type result struct {
	peer    *peer
	process *rig.Process
	loading time.Duration // from start to the first answer
	idle    rig.Memory    // before the first query

	cpu, rate    map[string]*rig.Figures // µs CPU a query, queries a second; by workload
	p50, p99     map[string]*rig.Figures // µs, at loadShare of the rate
	lost, wanted int
	disturbed    int // turns, the last try of which had to do
}

// Latency is measured in short turns: what the machine does meanwhile falls on all
// servers alike, and the median of many turns leaves it out. A turn that says more
// of the machine than of the server is played again.
const (
	turns    = 15
	turn     = 100 * time.Millisecond
	tries    = 8    // of a turn
	disturbs = 0.06 // of all cores, taken by other programs or kept back by the hypervisor
	absence  = 0.01 // of the turn, in which the load itself did not run
)

// loadShare is the part of a server's own highest rate at which latency is measured.
const loadShare = 0.7

// play measures one workload: as many queries as the server takes.
func (r *result) play(w *workload, queries int) error {
	if w.steered && !r.peer.steers {
		return nil
	}
	queries /= w.cost
	before, err := r.process.CPU()
	if err != nil {
		return err
	}
	got, err := w.load(r.peer.addr, w, queries)
	if err != nil {
		return err
	}
	after, err := r.process.CPU()
	if err != nil {
		return err
	}
	if got.answered == 0 {
		return fmt.Errorf("no answers:\n%s", r.process.Log())
	}
	r.wanted += got.asked
	r.lost += got.asked - got.answered
	rate := float64(got.answered) / got.took.Seconds()
	figures(r.cpu, w.name).Add((after - before).Seconds() * 1e6 / float64(got.answered))
	figures(r.rate, w.name).Add(rate / 1000)
	return nil
}

// wait measures a turn of one workload's latency, below the highest rate.
func (r *result) wait(w *workload) error {
	if !w.latency || w.steered && !r.peer.steers {
		return nil
	}
	rate := figures(r.rate, w.name).Median() * 1000 * loadShare
	var seen latency
	for try := range tries {
		watch, err := rig.NewWatch([]*rig.Process{r.process})
		if err != nil {
			return err
		}
		last := try+1 == tries
		if seen, err = paced(r.peer.addr, w, rate, int(rate*turn.Seconds())); err != nil {
			if last {
				fmt.Fprintf(os.Stderr, "%s, %s: a turn is left out: %v\n", r.peer.name, w.name, err)
				r.disturbed++
				return nil
			}
			continue
		}
		taken, kept, err := watch.Others()
		if err != nil {
			return err
		}
		if taken+kept < disturbs && seen.away < absence*turn.Seconds()*1e6 {
			break
		}
		if last {
			r.disturbed++
		}
	}
	figures(r.p50, w.name).Add(seen.p50)
	figures(r.p99, w.name).Add(seen.p99)
	return nil
}

func figures(by map[string]*rig.Figures, name string) *rig.Figures {
	if by[name] == nil {
		by[name] = new(rig.Figures)
	}
	return by[name]
}

// report prints one table for CPU time, one for the rest.
func report(results []*result, watch *rig.Watch, missing []string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s Medians, in brackets the least and the largest.\n\nCPU time of all processes of the server, µs a query:\n\n", rig.Machine(), watch)
	cpu := rig.Table{Columns: []string{"server"}}
	rate := rig.Table{Columns: []string{"server"}}
	latency := rig.Table{Columns: []string{"server"}}
	for _, w := range workloads {
		cpu.Columns = append(cpu.Columns, w.name)
		rate.Columns = append(rate.Columns, w.name)
		if w.latency {
			latency.Columns = append(latency.Columns, w.name+" p50", w.name+" p99")
		}
	}
	memory := rig.Table{Columns: []string{"server", "ready after", "MB PSS loaded", "MB PSS after the load", "MB RSS after the load", "queries without an answer"}}
	disturbed := 0
	var versions []string
	for _, r := range results {
		if v := r.peer.version(); v != "" {
			versions = append(versions, r.peer.name+" "+v)
		}
		disturbed += r.disturbed
		c, q, l := []string{r.peer.name}, []string{r.peer.name}, []string{r.peer.name}
		for _, w := range workloads {
			c = append(c, figures(r.cpu, w.name).Spread("%.2f"))
			q = append(q, figures(r.rate, w.name).Spread("%.0f"))
			if w.latency {
				l = append(l, figures(r.p50, w.name).Spread("%.0f"), figures(r.p99, w.name).Spread("%.0f"))
			}
		}
		cpu.Row(c...)
		rate.Row(q...)
		latency.Row(l...)
		m, err := r.process.Memory()
		if err != nil {
			return "", err
		}
		mb := func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/(1<<20)) }
		memory.Row(r.peer.name, r.loading.Round(time.Millisecond).String(), mb(r.idle.PSS), mb(m.PSS), mb(m.RSS), fmt.Sprintf("%d of %d", r.lost, r.wanted))
	}
	fmt.Fprintf(&b, "%s\nThroughput, thousand answers a second (one core):\n\n%s", cpu.String(), rate.String())
	fmt.Fprintf(&b, "\nLatency at %.0f %% of the server's own throughput, µs, in turns of %v; %d turns were disturbed each of %d times:\n\n%s",
		loadShare*100, turn, disturbed, tries, latency.String())
	fmt.Fprintf(&b, "\nStart and memory, all processes; %d static names, and %d steered ones where the server steers:\n\n%s", names, names, memory.String())
	fmt.Fprintf(&b, "\nVersions: %s.\n", strings.Join(versions, ", "))
	if len(missing) > 0 {
		fmt.Fprintf(&b, "\nNot installed, so not measured: %s.\n", strings.Join(missing, ", "))
	}
	return b.String(), nil
}
