// Command l4 measures what forwarding costs in pharos, HAProxy (mode tcp, with
// and without splice) and nginx (stream), in the same run on the same machine:
// CPU time of the proxy per request, per connection and per gigabyte, memory per
// idle connection, and for UDP per datagram and reply.
//
// Each proxy runs on one core; the load and the backend, which are this program,
// on another. Rounds are interleaved; medians with the least and the largest are
// printed as a Markdown table. It needs taskset and, each if it is to be
// compared with, haproxy and nginx with libnginx-mod-stream (Debian). Traffic
// stays on loopback.
//
//	go run ./bench/l4 -pharos bin/pharos -rounds 5
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/bench/rig"
	"golang.org/x/sys/unix"
)

// UDP is added to pharos' configuration by these.
const (
	pharosUDPServices  = `  udp: {check: {tcp: {}, every: 1h}, backends: {fra: ["127.9.0.9:9001"]}}`
	pharosUDPListeners = `  - {bind: "127.9.0.1:7002", udp: {service: udp, idle: 30s}}
  - {bind: "127.9.0.1:7003", udp: {service: udp, idle: 5s, responses: 1}}
  - {bind: "127.9.0.1:7004", udp: {service: udp, idle: 30s, offload: kernel}}`
)

var columns = []struct{ key, title, format string }{
	{"small", "request of 1 KiB, µs CPU", "%.1f"},
	{"small99", "p99, µs", "%.0f"},
	{"new", "new connection, µs CPU", "%.1f"},
	{"rate", "connections a CPU second", "%.0f"},
	{"bulk", "GB a CPU second", "%.2f"},
	{"idle", "idle connection, bytes", "%.0f"},
	{"udp", "UDP, µs CPU", "%.2f"},
	{"udpall", "UDP, µs CPU with client and backend", "%.2f"},
	{"udpmore", "of it more than without a proxy", "%.2f"},
	{"oneshot", "UDP one-shot, µs CPU", "%.2f"},
}

func main() {
	binary := flag.String("pharos", "bin/pharos", "the binary to measure")
	rounds := flag.Int("rounds", 5, "interleaved rounds, 1 to 50")
	n := flag.Int("n", 20_000, "requests of each kind a round, 1,000 to 1,000,000")
	idles := flag.Int("idle", 10_000, "idle connections, 100 to 15,000; measured once")
	only := flag.String("only", "", "workloads, comma-separated: small,new,bulk,idle,udp,oneshot; default all")
	keep := flag.String("keep", "", "Markdown file to keep the table in, between the lines for l4")
	flag.Parse()
	if *rounds < 1 || *rounds > 50 || *n < 1000 || *n > 1_000_000 || *idles < 100 || *idles > 15_000 {
		flag.Usage()
		os.Exit(3)
	}
	b := bench{rounds: *rounds, n: *n, idles: *idles, keep: *keep}
	if *only != "" {
		b.only = strings.Split(*only, ",")
	}
	if err := b.run(*binary); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	rounds, n, idles int
	only             []string
	keep             string // the file, or nothing
}

func (b *bench) wants(what string) bool { return b.only == nil || slices.Contains(b.only, what) }

func (b *bench) run(binary string) error {
	if runtime.NumCPU() < 2 {
		return errors.New("two cores are needed: one for the server, one for the load")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Max < 4000 {
		return fmt.Errorf("%d open files are too few", limit.Max)
	}
	b.idles = min(b.idles, int(limit.Max-2000)/2) // each takes two descriptors, here and in the proxy
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("allow %d open files: %w", limit.Max, err)
	}
	dir, err := os.MkdirTemp("", "pharos-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	servers, err := prepare(dir, binary, int(min(limit.Max, 100_000)))
	if err != nil {
		return err
	}
	back, err := startBackend()
	if err != nil {
		return err
	}
	defer back.close()
	for _, s := range servers {
		if s.command == nil {
			continue
		}
		if err := s.start(); err != nil {
			return fmt.Errorf("start %s: %w", s.name, err)
		}
		defer s.process.Stop()
	}
	if err := rig.Pin(rig.LoadCore); err != nil {
		return err
	}
	runtime.GOMAXPROCS(1)
	for _, s := range servers {
		if b.wants("idle") && s.command != nil {
			if err := b.idle(s); err != nil {
				return fmt.Errorf("%s, idle: %w", s.name, err)
			}
		}
	}
	for range b.rounds {
		for _, s := range servers {
			if err := b.round(s); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		if b.wants("udp") {
			for _, s := range servers[1:] {
				if s.udp.IsValid() {
					s.add("udpmore", s.rows["udpall"].Last()-servers[0].rows["udpall"].Last())
				}
			}
		}
	}
	return b.report(servers)
}

// round measures everything once for one server.
func (b *bench) round(s *server) error {
	if b.wants("small") && s.command != nil {
		if err := s.measure("small", func() (float64, error) {
			p99, err := requests(s.tcp, b.n)
			s.add("small99", float64(p99.Nanoseconds())/1e3)
			return float64(b.n) / 1e6, err
		}); err != nil {
			return err
		}
	}
	if b.wants("new") && s.command != nil {
		if err := s.measure("new", func() (float64, error) {
			_, err := connections(s.tcp, b.n/4)
			return float64(b.n/4) / 1e6, err
		}); err != nil {
			return err
		}
	}
	if b.wants("bulk") && s.command != nil {
		if err := s.measure("bulk", func() (float64, error) {
			n, err := bulk(s.tcp)
			return float64(n) / 1e9, err
		}); err != nil {
			return err
		}
	}
	if b.wants("udp") && s.udp.IsValid() {
		if err := b.sessions(s); err != nil {
			return err
		}
	}
	if b.wants("oneshot") && s.oneShot.IsValid() {
		return s.measure("oneshot", func() (float64, error) {
			_, err := datagrams(s.oneShot, b.n, true)
			return float64(b.n) / 1e6, err
		})
	}
	return nil
}

// sessions measures datagrams that go back and forth in sessions: what the proxy takes, and what it takes together with client and
// backend, which are this process. What the kernel does for a datagram on loopback it does in the time of whoever sent it, so the
// latter holds all of it, wherever a proxy has it done.
func (b *bench) sessions(s *server) error {
	if _, err := datagrams(s.udp, 20*clients, false); err != nil { // what is done once in a process' life
		return err
	}
	var before unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &before); err != nil {
		return err
	}
	units := float64(b.n) / 1e6
	if err := s.measure("udp", func() (float64, error) {
		_, err := datagrams(s.udp, b.n, false)
		return units, err
	}); err != nil {
		return err
	}
	var after unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &after); err != nil {
		return err
	}
	all := time.Duration(after.Nano()-before.Nano()).Seconds()/units + s.rows["udp"].Last()
	s.add("udpall", all)
	return nil
}

// measure adds the CPU seconds per unit of what f did.
func (s *server) measure(what string, f func() (units float64, err error)) error {
	before, err := s.cpu()
	if err != nil {
		return err
	}
	units, err := f()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	per := (after - before).Seconds() / units
	switch what {
	case "bulk":
		s.add(what, 1/per)
	case "new":
		s.add(what, per)
		s.add("rate", 1e6/per)
	default:
		s.add(what, per)
	}
	return nil
}

// idle measures the memory of connections that are open and silent.
func (b *bench) idle(s *server) error {
	if _, err := requests(s.tcp, 1000); err != nil { // what the first ones cost is not theirs
		return err
	}
	before, err := s.process.Memory()
	if err != nil {
		return err
	}
	closeAll, err := idle(s.tcp, b.idles)
	if err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // buffers are given back
	after, err := s.process.Memory()
	closeAll()
	if err != nil {
		return err
	}
	s.add("idle", float64(after.RSS-before.RSS)/float64(b.idles))
	return nil
}

func (b *bench) report(servers []*server) error {
	t := rig.Table{Columns: []string{"proxy"}}
	for _, c := range columns {
		t.Columns = append(t.Columns, c.title)
	}
	for _, s := range servers {
		cells := []string{s.name}
		for _, c := range columns {
			cell := "–"
			if f := s.rows[c.key]; f != nil {
				cell = f.Spread(c.format)
				if f.Len() == 1 {
					cell = fmt.Sprintf(c.format, f.Median())
				}
			}
			cells = append(cells, cell)
		}
		t.Row(cells...)
	}
	text := fmt.Sprintf("%s\n\n%s", rig.Machine(), t.String())
	fmt.Print(text)
	if b.keep == "" {
		return nil
	}
	return rig.Keep(b.keep, "l4", text)
}
