// Command dns measures what one DNS answer costs in pharos and in gdnsd, in the
// same run on the same machine: CPU time of the server process per query, with
// the server pinned to one core and the load to another.
//
// Two workloads: a static name, and a name steered by country with a different
// EDNS client subnet in every query, both servers reading the same country
// data. Rounds are interleaved; the medians are printed as a Markdown table.
// It needs gdnsd and taskset (Debian: gdnsd, util-linux) and sends its queries
// to loopback only.
//
//	go run ./bench/dns -pharos bin/pharos -rounds 5 -queries 200000
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

func main() {
	binary := flag.String("pharos", "bin/pharos", "the binary to measure")
	rounds := flag.Int("rounds", 5, "interleaved rounds, 1 to 50")
	queries := flag.Int("queries", 200_000, "queries of each workload a round, 1,000 to 5,000,000")
	flag.Parse()
	if *rounds < 1 || *rounds > 50 || *queries < 1000 || *queries > 5_000_000 {
		flag.Usage()
		os.Exit(3)
	}
	if err := measure(*binary, *rounds, *queries); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A result is one server's medians.
type result struct {
	name         string
	start        time.Duration
	rssKB        int
	cpu          map[string][]float64 // µs a query, by workload
	rate         map[string][]float64 // queries a second
	lost, wanted int
}

func measure(binary string, rounds, queries int) (err error) {
	if runtime.NumCPU() < 2 {
		return errors.New("two cores are needed: one for the server, one for the load")
	}
	dir, err := os.MkdirTemp("", "pharos-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	servers, err := prepare(dir, binary)
	if err != nil {
		return err
	}
	results := make([]*result, len(servers))
	for i, s := range servers {
		results[i] = &result{name: s.name, cpu: map[string][]float64{}, rate: map[string][]float64{}}
		if results[i].start, err = s.startUp(); err != nil {
			return fmt.Errorf("start %s: %w", s.name, err)
		}
		defer s.stop()
	}
	for range rounds {
		for i, s := range servers {
			for _, w := range workloads {
				if err := results[i].run(s, w, queries); err != nil {
					return fmt.Errorf("%s, %s: %w", s.name, w.name, err)
				}
			}
		}
	}
	for i, s := range servers {
		results[i].rssKB = s.memory()
	}
	report(results)
	return nil
}

func (r *result) run(s *server, w workload, queries int) error {
	before, err := s.cpuTime()
	if err != nil {
		return err
	}
	start := time.Now()
	answered, err := w.load(s.addr, queries)
	if err != nil {
		return err
	}
	took := time.Since(start)
	after, err := s.cpuTime()
	if err != nil {
		return err
	}
	r.wanted += queries
	r.lost += queries - answered
	r.cpu[w.name] = append(r.cpu[w.name], (after-before).Seconds()*1e6/float64(answered))
	r.rate[w.name] = append(r.rate[w.name], float64(answered)/took.Seconds())
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func report(results []*result) {
	fmt.Print("| server | start-up | memory |")
	for _, w := range workloads {
		fmt.Printf(" %s, µs CPU a query (min–max) | queries/s |", w.name)
	}
	fmt.Print(" lost |\n|---|---|---|")
	for range workloads {
		fmt.Print("---|---|")
	}
	fmt.Println("---|")
	for _, r := range results {
		fmt.Printf("| %s | %s | %.1f MB |", r.name, r.start.Round(time.Millisecond), float64(r.rssKB)/1024)
		for _, w := range workloads {
			cpu := r.cpu[w.name]
			fmt.Printf(" %.2f (%.2f–%.2f) | %.0f |", median(cpu), slices.Min(cpu), slices.Max(cpu), median(r.rate[w.name]))
		}
		fmt.Printf(" %d of %d |\n", r.lost, r.wanted)
	}
}
