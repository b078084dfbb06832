package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/bench/rig"
)

// How a reload is watched.
const (
	probeEvery  = 200 * time.Microsecond
	serialEvery = 100                    // probes; one of so many asks for the SOA record
	settled     = 500 * time.Millisecond // still watched once the new zone answers
	reloadLimit = 3 * time.Minute
)

// reloaders make a server read its zone again, and say when it was told.
var reloaders = map[string]func(dir string, r *result) (time.Time, error){
	"pharos": func(dir string, r *result) (time.Time, error) {
		return command(r.peer.args[0], "reload", "--socket", filepath.Join(dir, "pharos.sock"))
	},
	"gdnsd": func(dir string, _ *result) (time.Time, error) {
		return command("gdnsdctl", "-c", filepath.Join(dir, "gdnsd"), "reload-zones")
	},
	"Knot": hangUp,
	"NSD":  hangUp,
	"BIND": hangUp,
}

func hangUp(_ string, r *result) (time.Time, error) {
	return time.Now(), syscall.Kill(r.process.PID(), syscall.SIGHUP)
}

// command runs a program until it succeeds: a server that has just begun to answer
// may not be ready for it. It returns when the run that did began.
func command(args ...string) (time.Time, error) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Second) {
		began := time.Now()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err == nil {
			return began, nil
		}
		if time.Now().After(deadline) {
			return began, fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
	}
}

// A watched is what a probe saw, µs.
type watched struct {
	p50, p99, p9999, most rig.Figures
	late                  rig.Figures // the longest that the probe itself was late
	lost, unsure          rig.Figures // queries
}

// add takes one run, of which at least one query was answered.
func (w *watched) add(seen sight) {
	latencies := seen.Latencies
	slices.Sort(latencies)
	w.lost.Add(float64(seen.Asked - len(latencies)))
	w.unsure.Add(float64(seen.Unsure))
	w.late.Add(seen.Late)
	at := func(share float64) float64 {
		return latencies[min(int(float64(len(latencies))*share), len(latencies)-1)]
	}
	w.p50.Add(at(0.5))
	w.p99.Add(at(0.99))
	w.p9999.Add(at(0.9999))
	w.most.Add(latencies[len(latencies)-1])
}

// A reloads is what was measured of one server's: while it read the zone, while nothing happened, and while a neighbour was busy.
type reloads struct {
	during, calm, beside watched
	took                 rig.Figures // s
}

// measureReloads has each server read a zone of so many records again and again
// and measures what queries wait meanwhile. Server and probe share all cores. What is
// waited while nothing is read is the floor that the machine sets, and what is waited while a program that has nothing to do
// with the server keeps one core busy is what a server adds nothing to that reads its zone without holding up a query.
func measureReloads(o options) (string, error) {
	dir, err := os.MkdirTemp("", "pharos-bench")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		return "", err
	}
	serial := uint32(1)
	if err := writeZone(dir, serial, o.reload); err != nil {
		return "", err
	}
	rig.Hurry() // where it is allowed
	var results []*result
	defer func() {
		for _, r := range results {
			r.process.Stop()
		}
	}()
	var missing []string
	for _, p := range peers(dir, o.pharos) {
		if reloaders[p.name] == nil || o.only != "" && !strings.Contains(","+o.only+",", ","+p.name+",") {
			continue
		}
		if !p.installed() {
			missing = append(missing, p.name)
			continue
		}
		p.steers, p.cores = false, rig.AllCores
		r, err := p.start()
		if err != nil {
			return "", fmt.Errorf("start %s: %w", p.name, err)
		}
		results = append(results, r)
	}
	seen := make([]reloads, len(results))
	watch, err := watchAll(results)
	if err != nil {
		return "", err
	}
	for round := range o.rounds {
		for i, r := range results {
			name := r.peer.name
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, o.rounds, name)
			serial++
			if err := writeZone(dir, serial, o.reload); err != nil {
				return "", err
			}
			during, err := probe(r.peer.addr, serial, func() (time.Time, error) { return reloaders[name](dir, r) })
			if err != nil {
				return "", fmt.Errorf("%s: %w\n%s", name, err, r.process.Log())
			}
			// What the machine has queries wait is seen for as long.
			span := during.lasted + settled
			calm, err := probe(r.peer.addr, 0, func() (time.Time, error) { time.Sleep(span); return time.Time{}, nil })
			if err != nil {
				return "", fmt.Errorf("%s: %w", name, err)
			}
			near, err := probe(r.peer.addr, 0, func() (time.Time, error) { return time.Time{}, beside(span) })
			if err != nil {
				return "", fmt.Errorf("%s: %w", name, err)
			}
			seen[i].during.add(during)
			seen[i].calm.add(calm)
			seen[i].beside.add(near)
			seen[i].took.Add(during.lasted.Seconds())
		}
	}
	return reportReloads(o, results, watch, seen, missing)
}

// writeZone writes the zone for every server.
func writeZone(dir string, serial uint32, records int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "$TTL 300\n$ORIGIN bench.test.\n@ IN SOA ns1 root %d 3600 600 86400 60\n@ IN NS ns1\nns1 IN A 127.8.0.1\n", serial)
	for i := range records - 3 {
		fmt.Fprintf(&b, "%s IN A 10.%d.%d.%d\n", label('s', i), i>>16&255, i>>8&255, i&255)
	}
	var errs []error
	for _, name := range []string{"zone", "gdnsd/zones/bench.test", "knot/zone"} {
		file := filepath.Join(dir, name)
		err := os.WriteFile(file+".new", []byte(b.String()), 0o644)
		errs = append(errs, err, os.Rename(file+".new", file)) // nobody reads half a zone
	}
	return errors.Join(errs...)
}

func reportReloads(o options, results []*result, watch *rig.Watch, seen []reloads, missing []string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, over loopback; server and probe on all cores. %s\n%d records, %d reloads each; a query every %v. Medians of the rounds, in brackets the least and the largest; µs. Late is how long the probe itself did not run at most. What a query waits is counted from when it was sent to when the kernel had the answer, and so without that; unsure are those in whose sending the probe stood still, which are left out. Calm and neighbour are what was waited for as long while nothing was read, and while a program that has nothing to do with the server kept one core busy.\n\n",
		rig.Host(), watch, o.reload, o.rounds, probeEvery)
	table := rig.Table{Columns: []string{"server", "p50", "p99", "p99.99", "longest", "probe late", "lost", "unsure", "calm: p99.99", "calm: longest", "neighbour: p99.99", "neighbour: longest", "reload took, s", "MB PSS after"}}
	for i, r := range results {
		m, err := r.process.Memory()
		if err != nil {
			return "", err
		}
		w, c, n := &seen[i].during, &seen[i].calm, &seen[i].beside
		table.Row(r.peer.name, w.p50.Spread("%.0f"), w.p99.Spread("%.0f"), w.p9999.Spread("%.0f"), w.most.Spread("%.0f"), w.late.Spread("%.0f"), w.lost.Spread("%.0f"), w.unsure.Spread("%.0f"),
			c.p9999.Spread("%.0f"), c.most.Spread("%.0f"), n.p9999.Spread("%.0f"), n.most.Spread("%.0f"), seen[i].took.Spread("%.1f"), fmt.Sprintf("%.0f", float64(m.PSS)/(1<<20)))
	}
	b.WriteString(table.String())
	if len(missing) > 0 {
		fmt.Fprintf(&b, "\nNot installed, so not measured: %s.\n", strings.Join(missing, ", "))
	}
	return b.String(), nil
}
