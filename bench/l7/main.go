// Command l7 measures what one HTTP request costs in pharos and in other proxies,
// in the same run on the same machine: CPU time of all processes of the proxy per
// request, with the proxy pinned to one core, the load and the backend to another; and
// the memory that an idle connection holds.
//
// All forward to one nginx with files of 1 KiB and 1 MiB, over kept HTTP/1.1 connections,
// without an access log, with one worker and one ECDSA certificate. Workloads are
// kept connections, a connection for each request, TLS with HTTP/1.1 and HTTP/2, full
// handshakes without resumption, and large bodies. Rounds are interleaved; the medians
// are printed as a Markdown table.
//
// It needs taskset and nginx; HAProxy and Caddy (Debian: haproxy, caddy) are left out and
// said so where they are missing. Requests go to loopback only.
//
//	go run ./bench/l7 -pharos bin/pharos -rounds 5 -seconds 1
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/bench/rig"
)

type options struct {
	pharos, only string
	loads        string
	rounds       int
	span         time.Duration
	idle         int
}

func main() {
	var o options
	flag.StringVar(&o.pharos, "pharos", "bin/pharos", "the binary to measure")
	flag.IntVar(&o.rounds, "rounds", 5, "interleaved rounds, 1 to 50")
	flag.DurationVar(&o.span, "span", time.Second, "how long each workload runs in a round, 100ms to 1m")
	flag.IntVar(&o.idle, "idle", 2000, "idle connections whose memory is measured, 100 to 8000")
	flag.StringVar(&o.only, "only", "", "proxies to measure, separated by commas; all by default")
	flag.StringVar(&o.loads, "loads", "", "workloads to play, separated by commas; all by default")
	keep := flag.String("keep", "", "Markdown file to keep the table in, between the lines for l7")
	flag.Parse()
	if o.loads != "" {
		workloads = slices.DeleteFunc(workloads, func(w workload) bool {
			return !slices.Contains(strings.Split(o.loads, ","), w.name)
		})
	}
	if len(workloads) == 0 || o.rounds < 1 || o.rounds > 50 || o.span < 100*time.Millisecond || o.span > time.Minute || o.idle < 100 || o.idle > 8000 {
		flag.Usage()
		os.Exit(3)
	}
	if err := run(o, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options, keep string) error {
	if runtime.NumCPU() < 2 {
		return errors.New("two cores are needed: one for the proxy, one for the load")
	}
	dir, err := os.MkdirTemp("", "pharos-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		return err
	}
	backend, err := rig.Start(rig.LoadCore, "nginx", "-c", filepath.Join(dir, "backend.conf"))
	if err != nil {
		return err
	}
	defer backend.Stop()
	if err := listening(backend); err != nil {
		return fmt.Errorf("backend: %w\n%s", err, backend.Log())
	}
	text, err := measure(o, dir)
	if err != nil {
		return err
	}
	fmt.Print(text)
	if keep == "" {
		return nil
	}
	return rig.Keep(keep, "l7", text)
}

// A result is what was measured of one proxy.
type result struct {
	peer    peer
	process *rig.Process
	cost    []rig.Figures // by workload
	idle    [2]string     // memory of a plain and of a TLS connection
}

func measure(o options, dir string) (string, error) {
	var results []*result
	var missing []string
	defer func() {
		for _, r := range results {
			r.process.Stop()
		}
	}()
	for _, p := range peers(dir, o.pharos) {
		if o.only != "" && !strings.Contains(","+o.only+",", ","+p.name+",") {
			continue
		}
		if _, err := exec.LookPath(p.command[0]); err != nil {
			missing = append(missing, p.name)
			continue
		}
		process, err := rig.Start(rig.ServerCore, p.command[0], p.command[1:]...)
		if err != nil {
			return "", fmt.Errorf("start %s: %w", p.name, err)
		}
		r := &result{peer: p, process: process, cost: make([]rig.Figures, len(workloads))}
		results = append(results, r)
		if err := ready(p, process); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", p.name, err, process.Log())
		}
	}
	if err := rig.Pin(rig.LoadCore); err != nil {
		return "", err
	}
	for range o.rounds {
		for i, w := range workloads {
			for _, r := range results {
				before, err := r.process.CPU()
				if err != nil {
					return "", err
				}
				n, err := w.play(r.peer, o.span)
				if err != nil {
					return "", fmt.Errorf("%s, %s: %w", r.peer.name, w.name, err)
				}
				after, err := r.process.CPU()
				if err != nil {
					return "", err
				}
				r.cost[i].Add((after - before).Seconds() * 1e6 / float64(n))
			}
		}
	}
	for _, r := range results {
		for i, tls := range []bool{false, true} {
			n, err := weigh(r, tls, o.idle)
			if err != nil {
				return "", fmt.Errorf("%s, idle connections: %w", r.peer.name, err)
			}
			r.idle[i] = fmt.Sprintf("%.1f", n)
		}
	}
	return report(results, missing), nil
}

// listening waits until the backend does.
func listening(backend *rig.Process) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", backendPort))
		if err == nil {
			return c.Close()
		}
		if backend.Exited() || time.Now().After(deadline) {
			return err
		}
	}
}

// ready waits until a proxy forwards.
func ready(p peer, process *rig.Process) error {
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if process.Exited() {
			return errors.New("it has ended")
		}
		if err = probe(p); err == nil {
			return nil
		}
	}
	return err
}

func report(results []*result, missing []string) string {
	columns := []string{"proxy"}
	for _, w := range workloads {
		columns = append(columns, w.name)
	}
	table := rig.Table{Columns: append(columns, "idle, KiB", "idle TLS, KiB")}
	for _, r := range results {
		row := []string{r.peer.name}
		for i := range r.cost {
			row = append(row, r.cost[i].Spread("%.1f"))
		}
		table.Row(append(row, r.idle[:]...)...)
	}
	text := rig.Machine() + "\nCPU µs of the proxy per request, medians (least to most); 1 KiB bodies unless the name says otherwise.\n\n" + table.String()
	if len(missing) > 0 {
		text += "\nNot installed: " + strings.Join(missing, ", ") + ".\n"
	}
	return text
}
