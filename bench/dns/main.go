// Command dns measures what one DNS answer costs in pharos and in other
// servers, in the same run on the same machine: CPU time of all processes of the
// server per query, with the server pinned to one core and the load to another.
//
// All servers serve one zone of 10,000 static names; gdnsd and Knot also
// steer 10,000 names by the same country database as pharos. As Knot's geo module looks at every query of its zone,
// whether steered or not, Knot is there a second time without it. Workloads are
// static names, steered names with a different EDNS client subnet in each query,
// names that do not exist, and TCP. Rounds are interleaved; the medians are
// printed as a Markdown table.
//
// It needs taskset and whichever peers are there (Debian: gdnsd, knot,
// knot-module-geoip, nsd, pdns-server, pdns-backend-bind, bind9); what is
// missing is left out and said so. CoreDNS is built from its Go module by
// -fetch, once. Queries go to loopback only.
//
//	go run ./bench/dns -fetch
//	go run ./bench/dns -pharos bin/pharos -rounds 5 -queries 200000
//
// With -reload it measures something else: what queries wait while each server
// reads a large zone again.
//
//	go run ./bench/dns -reload 1000000 -rounds 3
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/bench/rig"
)

func main() {
	beProbe()
	beNeighbour()
	var o options
	flag.StringVar(&o.pharos, "pharos", "bin/pharos", "the binary to measure")
	flag.IntVar(&o.rounds, "rounds", 5, "interleaved rounds, 1 to 50")
	flag.IntVar(&o.queries, "queries", 200_000, "queries of each workload a round, 10,000 to 5,000,000")
	flag.StringVar(&o.only, "only", "", "servers to measure, separated by commas; all by default")
	flag.StringVar(&o.work, "workloads", "", "workloads to play, separated by commas; all by default")
	flag.IntVar(&o.reload, "reload", 0, "measure what queries wait while a zone of so many records is read again, 10,010 to 5,000,000, instead of all else")
	keep := flag.String("keep", "", "Markdown file to keep the table in, between the lines for dns")
	fetch := flag.Bool("fetch", false, "build CoreDNS and end")
	flag.Parse()
	if o.rounds < 1 || o.rounds > 50 || o.queries < 10_000 || o.queries > 5_000_000 || o.reload != 0 && (o.reload < names+10 || o.reload > 5_000_000) {
		flag.Usage()
		os.Exit(3)
	}
	if err := run(o, *keep, *fetch); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	pharos          string
	only, work      string
	rounds, queries int
	reload          int
}

func run(o options, keep string, fetch bool) error {
	if fetch {
		return fetchCoreDNS()
	}
	if runtime.NumCPU() < 2 {
		return errors.New("two cores are needed: one for the server, one for the load")
	}
	what, section := measure, "dns"
	if o.reload > 0 {
		what, section = measureReloads, "dns-reload"
	}
	text, err := what(o)
	if err != nil {
		return err
	}
	fmt.Print(text)
	if keep == "" {
		return nil
	}
	return rig.Keep(keep, section, text)
}

// measure starts every server and plays every workload to each in turn.
func measure(o options) (string, error) {
	dir, err := os.MkdirTemp("", "pharos-bench")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
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
		if o.only != "" && !strings.Contains(","+o.only+",", ","+p.name+",") {
			continue
		}
		if !p.installed() {
			missing = append(missing, p.name)
			continue
		}
		r, err := p.start()
		if err != nil {
			return "", fmt.Errorf("start %s: %w", p.name, err)
		}
		results = append(results, r)
	}
	if err := rig.Pin(rig.LoadCore); err != nil {
		return "", err
	}
	watch, err := watchAll(results)
	if err != nil {
		return "", err
	}
	// The order that all sites are up is obeyed a moment after the start.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Second) {
		if err = agree(results); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return "", err
		}
	}
	for round := range o.rounds {
		for i := range workloads {
			if o.work != "" && !strings.Contains(","+o.work+",", ","+workloads[i].name+",") {
				continue
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, o.rounds, workloads[i].name)
			if err := playAll(turned(results, round), &workloads[i], o.queries); err != nil {
				return "", err
			}
		}
	}
	return report(results, watch, missing)
}

// turned begins with another server in each round, so that none always comes after the same.
func turned(results []*result, round int) []*result {
	at := round % max(1, len(results))
	return slices.Concat(results[at:], results[:at])
}

func watchAll(results []*result) (*rig.Watch, error) {
	programs := make([]*rig.Process, len(results))
	for i, r := range results {
		programs[i] = r.process
	}
	return rig.NewWatch(programs)
}

// playAll plays one workload to all servers, one after the other.
func playAll(results []*result, w *workload, queries int) error {
	for _, r := range results {
		if err := again(func() error { return r.play(w, queries) }); err != nil {
			return fmt.Errorf("%s, %s: %w", r.peer.name, w.name, err)
		}
	}
	for range turns {
		for _, r := range results {
			if err := r.wait(w); err != nil {
				return fmt.Errorf("%s, %s: %w", r.peer.name, w.name, err)
			}
		}
	}
	return nil
}

// plays is how often a play that fails is tried: a machine that stands still for seconds ends one too, and need not end the run.
const plays = 3

func again(play func() error) (err error) {
	for range plays {
		if err = play(); err == nil {
			return nil
		}
		fmt.Fprintf(os.Stderr, "once more: %v\n", err)
	}
	return err
}
