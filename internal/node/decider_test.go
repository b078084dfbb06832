package node

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
	"github.com/pharos-lb/pharos/internal/steer"
)

const twoSites = `
cluster: {name: t}
sites:
  a: {location: FRA, nodes: {a1: 127.9.1.1}}
  b: {location: SIN, nodes: {b1: 127.9.1.2}}
services:
  web:
    check: {tcp: {}, vip_port: 80}
    backends: {a: ["127.9.1.3:80"], b: ["127.9.1.4:80"]}
    vip: {a: 127.9.1.5, b: 127.9.1.6}
zones: {t.test: {records: "@ 300 IN SOA ns1 root 1 3600 600 86400 60\n@ 300 IN NS ns1\nns1 300 IN A 127.0.0.1\n", names: {www: {service: web}}}}
bgp:
  asn: 64500
  prefixes: [{prefix: 192.0.2.0/24, requires: [web]}]
  peers: {a: [{address: 127.9.1.7, asn: 64501}]}
`

// fakeProber says what the test sets.
type fakeProber struct {
	changed chan struct{}
	states  []probe.State
}

func (f *fakeProber) Changed() <-chan struct{}               { return f.changed }
func (f *fakeProber) States(dst []probe.State) []probe.State { return append(dst, f.states...) }

// fakeGossip keeps what was published.
type fakeGossip struct {
	synced    chan struct{}
	published []*health.Report
	orders    [][]health.Override
	vouched   map[health.Scope]bool
}

func (f *fakeGossip) Publish(r *health.Report) { f.published = append(f.published, r) }
func (f *fakeGossip) PublishOverrides(all []health.Override, _ uint64) {
	f.orders = append(f.orders, all)
}
func (f *fakeGossip) Vouched(v health.Override) bool { return f.vouched[v.Scope] }
func (f *fakeGossip) Synced() <-chan struct{}        { return f.synced }

type deciderBench struct {
	*decider
	board  *steer.Board
	prober *fakeProber
	gossip *fakeGossip
	now    time.Time
}

// load makes a1's setup of a configuration.
func load(t testing.TB, config string) *Setup {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pharos.yaml")
	write(t, file, config)
	setup, err := Load(file, "a1")
	if err != nil {
		t.Fatal(err)
	}
	return setup
}

func newDeciderBench(t *testing.T, stateDir string) *deciderBench {
	t.Helper()
	return deciderBenchOf(t, stateDir, twoSites)
}

func deciderBenchOf(t testing.TB, stateDir, config string) *deciderBench {
	t.Helper()
	setup := load(t, config)
	b := &deciderBench{
		board:  &steer.Board{},
		prober: &fakeProber{changed: make(chan struct{}, 1)},
		gossip: &fakeGossip{synced: make(chan struct{})},
		now:    time.Unix(1_700_000_000, 0),
	}
	b.decider = newDecider(setup, testState(t, stateDir), 7, slog.New(slog.DiscardHandler), b.board,
		newMetrics(prometheus.NewRegistry(), "test"))
	b.decider.prober, b.decider.gossip = b.prober, b.gossip
	for _, p := range setup.Topology.Probes("a1") {
		b.prober.states = append(b.prober.states, probe.State{Target: p.Target, Weight: fullWeight})
	}
	return b
}

func (b *deciderBench) set(kind health.Kind, s health.Status) {
	for i := range b.prober.states {
		if b.prober.states[i].Target.Kind == kind {
			b.prober.states[i].Status = s
		}
	}
}

// report is what another node says: s of every target of a kind.
func (b *deciderBench) report(observer string, epoch, seq uint64, kind health.Kind, s health.Status) *health.Report {
	r := health.NewReport(observer, b.setup.Topology.Layout)
	r.Epoch, r.Seq = epoch, seq
	for i, target := range b.setup.Topology.Layout.Targets {
		if target.Kind == kind {
			r.Set(i, s)
		}
	}
	return r
}

// verdict is what is held of the service's first target of a kind at a site.
func (b *deciderBench) verdict(kind health.Kind, site string) health.Verdict {
	return b.view.Load().Of(b.targetOf(kind, site))
}

func (b *deciderBench) targetOf(kind health.Kind, site string) health.Target {
	for _, target := range b.setup.Topology.Layout.Targets {
		if target.Kind == kind && target.Site == site && target.Service == "web" {
			return target
		}
	}
	return health.Target{}
}

// pass is one step d later.
func (b *deciderBench) pass(d time.Duration) {
	b.now = b.now.Add(d)
	b.step(b.now)
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// Nothing may open before there is something true to say.
func TestGatesWaitForVerdicts(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	step := func(wantPools, wantAll bool, what string) {
		t.Helper()
		b.now = b.now.Add(100 * time.Millisecond)
		b.step(b.now)
		if got := isClosed(b.poolsKnown); got != wantPools {
			t.Errorf("%s: pools known %v, want %v", what, got, wantPools)
		}
		if got := isClosed(b.allKnown); got != wantAll {
			t.Errorf("%s: all known %v, want %v", what, got, wantAll)
		}
	}
	step(false, false, "nothing probed")
	b.set(health.KindVIP, health.StatusUp)
	step(false, false, "only the other site's VIP")
	b.set(health.KindBackend, health.StatusUnknown)
	step(false, false, "backends undecided")
	b.set(health.KindBackend, health.StatusDown)
	step(true, false, "own backends decided, gossip not heard")
	close(b.gossip.synced)
	step(true, true, "everything")
}

// A route needs open listeners and something measured up, here and now.
func TestRouteNeedsReadinessAndEvidence(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	announced := func() bool {
		b.now = b.now.Add(100 * time.Millisecond)
		b.step(b.now)
		return b.board.Load().Routes[0].Announce
	}
	if announced() {
		t.Error("announced with nothing known")
	}
	b.core.SetReady(true)
	if announced() {
		t.Error("announced without evidence")
	}
	b.set(health.KindBackend, health.StatusUp)
	if !announced() {
		t.Error("not announced although ready and up")
	}
	b.core.SetReady(false)
	if announced() {
		t.Error("announced while the listeners are closed")
	}
	b.core.SetReady(true)
	b.set(health.KindBackend, health.StatusDown)
	if announced() {
		t.Error("announced with every backend down")
	}
}

// save has the saver write what was handed to it, then ends this life.
func (b *deciderBench) save(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.views.Run(ctx); err != nil {
		t.Fatal(err)
	}
	b.state.close()
}

// The last known good opens the gates at once, but announces nothing by itself.
func TestLastKnownGood(t *testing.T) {
	dir := t.TempDir()
	first := newDeciderBench(t, dir)
	first.set(health.KindBackend, health.StatusUp)
	first.set(health.KindVIP, health.StatusUp)
	first.step(first.now)
	first.save(t)

	second := newDeciderBench(t, dir)
	second.core.SetReady(true)
	second.step(second.now)
	if !isClosed(second.poolsKnown) || !isClosed(second.allKnown) {
		t.Error("the last known good did not open the gates")
	}
	plan := second.board.Load()
	if !plan.Services[0].Sites[0].Eligible {
		t.Error("the last known good is not answered with")
	}
	if plan.Routes[0].Announce {
		t.Error("announced on yesterday's evidence")
	}
	second.set(health.KindBackend, health.StatusUp)
	second.step(second.now.Add(100 * time.Millisecond))
	if !second.board.Load().Routes[0].Announce {
		t.Error("not announced after the first probe of this life")
	}
}

// What is on disk opens the gates for what it knows of, and for nothing else.
func TestPartialLastKnownGood(t *testing.T) {
	for _, tt := range []struct {
		name       string
		saved      health.Kind
		pools, all bool
	}{
		{"only the other site's VIP", health.KindVIP, false, false},
		{"only this site's backend", health.KindBackend, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			first := newDeciderBench(t, dir)
			first.set(tt.saved, health.StatusUp)
			first.step(first.now)
			first.save(t)
			second := newDeciderBench(t, dir)
			second.step(second.now)
			if got := isClosed(second.poolsKnown); got != tt.pools {
				t.Errorf("pools known %v, want %v", got, tt.pools)
			}
			if got := isClosed(second.allKnown); got != tt.all {
				t.Errorf("all known %v, want %v", got, tt.all)
			}
		})
	}
}

func TestCorruptLastKnownGoodIsSetAside(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, viewFile), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newDeciderBench(t, dir)
	b.step(b.now)
	if isClosed(b.allKnown) {
		t.Error("a corrupt file opened the gates")
	}
	if _, err := os.Stat(filepath.Join(dir, viewFile+".corrupt")); err != nil {
		t.Errorf("the corrupt file was not kept: %v", err)
	}
}

// Every second a report goes out although nothing changes, and at once when something does.
func TestReportsAreSteadyAndPrompt(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	b.step(b.now)
	b.step(b.now.Add(10 * time.Millisecond))
	b.step(b.now.Add(15 * time.Millisecond))
	if got := len(b.gossip.published); got != 2 { // the second says what the first plan has it state of its route
		t.Fatalf("got %d reports, want 2", got)
	}
	b.set(health.KindBackend, health.StatusUp)
	b.step(b.now.Add(20 * time.Millisecond))
	b.step(b.now.Add(1100 * time.Millisecond))
	if got := len(b.gossip.published); got != 4 {
		t.Fatalf("got %d reports, want 4", got)
	}
	for i, r := range b.gossip.published {
		if r.Epoch != 7 || r.Seq != uint64(i+1) {
			t.Errorf("report %d: got (%d, %d), want (7, %d)", i, r.Epoch, r.Seq, i+1)
		}
	}
}

// Who was wiped learns from the others which epoch it had reached.
func TestEchoRaisesEpoch(t *testing.T) {
	dir := t.TempDir()
	b := newDeciderBench(t, dir)
	b.step(b.now)
	echo := health.NewReport("a1", b.setup.Topology.Layout)
	echo.Epoch, echo.Seq = 900, 3
	b.inbox.deliver(echo, 0)
	b.step(b.now.Add(10 * time.Millisecond))
	b.step(b.now.Add(20 * time.Millisecond))
	last := b.gossip.published[len(b.gossip.published)-1]
	if last.Epoch != 901 {
		t.Errorf("got epoch %d, want 901", last.Epoch)
	}
	if next := b.state.nextEpoch(time.Unix(0, 0)); next != 902 {
		t.Errorf("epoch after a restart: got %d, want 902", next)
	}
}

// The other site's silence changes nothing.
func TestSilenceIsNotEvidence(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	b.set(health.KindBackend, health.StatusUp)
	b.set(health.KindVIP, health.StatusUp)
	other := health.NewReport("b1", b.setup.Topology.Layout)
	other.Epoch, other.Seq = 1, 1
	for i := range b.setup.Topology.Layout.Targets {
		other.Set(i, health.StatusUp)
	}
	b.inbox.deliver(other, 0)
	b.core.SetReady(true)
	b.step(b.now)
	b.step(b.now.Add(time.Millisecond))
	before := b.board.Load().Fingerprint()
	for range 120 {
		b.now = b.now.Add(time.Second)
		b.step(b.now)
	}
	plan := b.board.Load()
	for i, site := range plan.Services[0].Sites {
		if !site.Eligible {
			t.Errorf("site %d is out after two minutes of silence: %v", i, site.Why)
		}
	}
	if plan.Fingerprint() != before {
		t.Errorf("silence changed the plan")
	}
}

// A new setup keeps what is known of the targets in both, decides by the new
// topology and tells the others at once.
func TestSwapKeepsWhatIsKnown(t *testing.T) {
	for _, tt := range []struct{ name, old, replacement string }{
		{"another service", "services:\n", "services:\n  extra: {check: {tcp: {}}, backends: {a: [\"127.9.1.3:80\"]}, vip: {a: 127.9.1.55}}\n"},
		{"the same targets", "names: {", "names: {other: {service: web}, "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			next := load(t, edit(t, twoSites, tt.old, tt.replacement))
			b := newDeciderBench(t, t.TempDir())
			b.now = time.Now()
			b.set(health.KindBackend, health.StatusUp)
			b.inbox.deliver(b.report("b1", 1, 1, health.KindVIP, health.StatusUp), 0)
			b.pass(0)

			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- b.Run(ctx) }()
			ok := b.swap(ctx, next)
			cancel()
			if err := <-ended; err != nil || !ok {
				t.Fatalf("swap %v, %v", ok, err)
			}
			if got := b.board.Load().Topology; got != next.Topology {
				t.Error("the plan is not decided by the new topology")
			}
			if b.core.Ledger().Held("b1") == nil {
				t.Error("the other node's report is forgotten")
			}
			for _, o := range b.core.Ledger().Opinions(b.targetOf(health.KindVIP, "a"), b.now) {
				if o.Status != health.StatusUp || !o.Fresh {
					t.Errorf("%s says %s (fresh: %v), want up", o.Observer, o.Status, o.Fresh)
				}
			}
			if got := b.gossip.published[len(b.gossip.published)-1]; got.Config != next.Config.Hash || got.Layout != next.Topology.Layout.Hash {
				t.Error("the newest report is not of the new configuration")
			}
			if got := b.board.Load().Facts.Own; len(got) != len(next.Topology.Layout.Targets) {
				t.Errorf("own findings on %d targets, want %d", len(got), len(next.Topology.Layout.Targets))
			}
		})
	}
}
