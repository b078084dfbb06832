package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// together is two sites that announce a prefix together, to one BIRD.
const together = `
drain: {depreference: 4s, stop: 20s}
bgp:
  asn: 64500
  port: 1795
  prefixes: [{prefix: 192.0.2.0/24, requires: [web], min_sites: 1, warm_up: 1500ms}]
  peers: {a: [{address: 127.9.2.254, asn: 64496}], b: [{address: 127.9.2.254, asn: 64496}]}
`

const birdOfBoth = `
log stderr { fatal, bug };
router id 127.9.2.254;
protocol device { scan time 60; }
template bgp node {
	local 127.9.2.254 port 1795 as 64496;
	strict bind yes;
	multihop 2;
	error wait time 1, 2;
	connect delay time 1;
	ipv4 { import all; export none; };
}
protocol bgp pharos_a from node { neighbor 127.9.2.1 port 1795 as 64500; }
protocol bgp pharos_b from node { neighbor 127.9.2.2 port 1795 as 64500; }
`

// A watcher is a BIRD and what it had of 192.0.2.0/24 from each node, look by look.
type watcher struct {
	t      *testing.T
	socket string
}

// startBIRD runs BIRD on this machine until the test ends.
func startBIRD(t *testing.T, config string) *watcher {
	t.Helper()
	program := findProgram(t, "bird")
	findProgram(t, "birdc")
	dir := t.TempDir()
	w := &watcher{t: t, socket: filepath.Join(dir, "ctl")}
	write(t, filepath.Join(dir, "bird.conf"), config)
	cmd := exec.Command(program, "-f", "-c", filepath.Join(dir, "bird.conf"), "-s", w.socket, "-P", filepath.Join(dir, "pid"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(t, "BIRD answers", func() bool { return w.ask("show status") != "" })
	return w
}

// findProgram returns a program of Debian's bird2. Without it the test is skipped, except in CI.
func findProgram(t *testing.T, name string) string {
	t.Helper()
	for _, p := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed, and in CI nothing is skipped", name)
	}
	t.Skipf("%s is not installed (Debian: bird2)", name)
	return ""
}

func (w *watcher) ask(question string) string {
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, findProgram(w.t, "birdc"), "-s", w.socket, question).Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// has returns what BIRD holds from a site: "gone", "preferred" or "leaving".
func (w *watcher) has(site string) string {
	out := w.ask("show route 192.0.2.0/24 all protocol pharos_" + site)
	switch {
	case !strings.Contains(out, "192.0.2.0/24"):
		return "gone"
	case strings.Contains(out, "(65535,0)") && strings.Contains(out, "64500 64500"):
		return "leaving"
	default:
		return "preferred"
	}
}

// A stage is what was seen and for how long.
type stage struct {
	what   string
	lasted time.Duration
}

// follow looks until it has seen the last of these, and returns what it saw.
func (w *watcher) follow(site, last string) []stage {
	w.t.Helper()
	var seen []stage
	began := time.Now()
	eventually(w.t, site+" is "+last, func() bool {
		now := w.has(site)
		if len(seen) == 0 || seen[len(seen)-1].what != now {
			if len(seen) > 0 {
				seen[len(seen)-1].lasted = time.Since(began)
			}
			seen, began = append(seen, stage{what: now}), time.Now()
		}
		return now == last && len(seen) > 1
	})
	return seen
}

func whats(stages []stage) (out []string) {
	for _, s := range stages {
		out = append(out, s.what)
	}
	return out
}

// A drain takes a prefix out in stages that a real router sees, an undrain brings it back after
// its warm-up, and the minimum refuses to drain the last site.
func TestDrainInStages(t *testing.T) {
	const network = "127.9.52."
	bird := startBIRD(t, at(network, birdOfBoth))
	newBackend(t, network+"11:9000", "one", released())
	two := newBackend(t, network+"12:9000", "two", released())
	p := &pair{dirA: t.TempDir(), dirB: t.TempDir(), network: network}
	p.config = at(network, bothSites+together)
	p.config = strings.Replace(p.config, "www: {service: web}", "www: {service: web, ttl: 2s}", 1)
	key := newKeyText(t)
	for _, dir := range []string{p.dirA, p.dirB} {
		write(t, filepath.Join(dir, "gossip.key"), key+"\n")
	}
	p.begin(t)
	for _, site := range []string{"a", "b"} {
		eventually(t, "the route of "+site+" is there", func() bool { return bird.has(site) == "preferred" })
	}

	for pattern, stated := range map[string]bool{"": false, "192.0.2.0/24/a": true} {
		got, err := p.a.check(t.Context(), admin.CheckRequest{Target: pattern, Local: true})
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(got.Targets, func(c admin.TargetCheck) bool { return strings.HasPrefix(c.Target, "192.0.2.0/24/") }) != stated {
			t.Errorf("check %q: %+v, want what sites state of themselves: %v", pattern, got.Targets, stated)
		}
	}
	order := func(o health.Order, scope string) error {
		_, err := p.b.override(t.Context(), ask(o, scope))
		return err
	}
	stages := &stageLog{from: p.b}
	stop := stages.start(t)
	defer stop()
	eventually(t, "each counts on the other, so a drain is permitted", func() bool { return order(health.OrderDrain, "site/a") == nil })
	seen := bird.follow("a", "gone")
	stages.await(t, "done")
	if seen[0].what != "preferred" { // a slow look
		seen = append([]stage{{what: "preferred", lasted: time.Minute}}, seen...)
	}
	if got := whats(seen); !slices.Equal(got, []string{"preferred", "leaving", "gone"}) {
		t.Fatalf("the router saw %v", seen)
	}
	if seen[0].lasted < time.Second || seen[1].lasted < 2*time.Second {
		t.Errorf("stages too short: %v", seen)
	}
	t.Logf("drain: %v", seen)
	if err := order(health.OrderDrain, "site/b"); err == nil || !strings.Contains(err.Error(), "prefix 192.0.2.0/24 would be served by 0 sites, it needs 1") {
		t.Errorf("draining the last site: got %v", err)
	}

	// The last site dies: it stays, less preferred, until the other is back.
	two.healthy.Store(false)
	eventually(t, "the last site is the last resort", func() bool { return bird.has("b") == "leaving" })
	began := time.Now()
	if err := order(health.OrderNone, "site/a"); err != nil {
		t.Fatal(err)
	}
	seen = bird.follow("a", "preferred")
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("back after %s, its warm-up is longer: %v", took, seen)
	}
	if at := slices.IndexFunc(seen, func(s stage) bool { return s.what == "preferred" }); at < 0 {
		t.Errorf("the site that returns: %v", seen)
	}
	stages.await(t, "") // it is back: nothing to say of it
	stop()
	if got, want := strings.Join(stages.prefix, " "), "unanswered depreferred waiting done returning"; got != want {
		t.Errorf("b says of a's prefix: %s, want %s", got, want)
	}
	// A check that comes through the VIP makes it finish for a moment, at any time.
	if s := stages.service; len(s) < 2 || s[0] != "unanswered" || s[len(s)-1] != "done" {
		t.Errorf("b says of a's service: %v, want unanswered, …, done", s)
	}
	if stages.early {
		t.Error("a was answered again before its route was back")
	}
	eventually(t, "the dead site goes", func() bool { return bird.has("b") == "gone" })

	// A stop is gentle, too.
	stopped := make(chan error, 1)
	go func() { stopped <- p.a.stop() }()
	seen = bird.follow("a", "gone")
	if got := whats(seen); !slices.Equal(got[len(got)-2:], []string{"leaving", "gone"}) {
		t.Errorf("a stop: %v", seen)
	}
	if err := <-stopped; err != nil {
		t.Error(fmt.Errorf("stop: %w", err))
	}
}

// A stageLog is the stages of the drain of site a, one after the other, as another node tells them.
type stageLog struct {
	from *running

	mu              sync.Mutex // guards the rest
	prefix, service []string
	now             string // of the prefix; "" = nothing
	early           bool   // answered with a while its route is not back
}

// start asks all the time until the function that it returns is called, which may be twice.
func (l *stageLog) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			plan := l.from.board.Load()
			list := l.from.drains(ctx)
			if slices.Contains(list.Silent, "a1") {
				continue
			}
			l.note(list, plan)
		}
	})
	return func() { cancel(); asking.Wait() }
}

func (l *stageLog) note(list *admin.DrainList, plan *steer.Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	add := func(to *[]string, stage string) {
		if len(*to) == 0 || (*to)[len(*to)-1] != stage {
			*to = append(*to, stage)
		}
	}
	l.now = ""
	for _, d := range list.Drains {
		switch {
		case d.Node != "a1":
		case strings.HasPrefix(d.What, "prefix"):
			l.now = d.Stage
			add(&l.prefix, d.Stage)
		default:
			add(&l.service, d.Stage)
		}
	}
	l.early = l.early || l.now == admin.StageReturning && plan.Services[0].Sites[0].Eligible && plan.Services[0].Sites[0].Why == steer.ReasonNone
}

// await waits until the prefix is at a stage.
func (l *stageLog) await(t *testing.T, stage string) {
	t.Helper()
	eventually(t, "stage "+stage, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.now == stage && len(l.prefix) > 0
	})
}
