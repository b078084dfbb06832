package node

import (
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
}

func (f *fakeGossip) Publish(r *health.Report) { f.published = append(f.published, r) }
func (f *fakeGossip) Synced() <-chan struct{}  { return f.synced }

type deciderBench struct {
	*decider
	board  *steer.Board
	prober *fakeProber
	gossip *fakeGossip
	now    time.Time
}

func newDeciderBench(t *testing.T, stateDir string) *deciderBench {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pharos.yaml")
	if err := os.WriteFile(file, []byte(twoSites), 0o600); err != nil {
		t.Fatal(err)
	}
	setup, err := Load(file, "a1")
	if err != nil {
		t.Fatal(err)
	}
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
		b.prober.states = append(b.prober.states, probe.State{Target: p.Target})
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
		b.redecide = true
		b.step(b.now)
		return b.board.Load().Routes[0].Announce
	}
	if announced() {
		t.Error("announced with nothing known")
	}
	b.facts.Ready = true
	if announced() {
		t.Error("announced without evidence")
	}
	b.set(health.KindBackend, health.StatusUp)
	if !announced() {
		t.Error("not announced although ready and up")
	}
	b.facts.Ready = false
	if announced() {
		t.Error("announced while the listeners are closed")
	}
	b.facts.Ready = true
	b.set(health.KindBackend, health.StatusDown)
	if announced() {
		t.Error("announced with every backend down")
	}
}

// The last known good opens the gates at once, but announces nothing by itself.
func TestLastKnownGood(t *testing.T) {
	dir := t.TempDir()
	first := newDeciderBench(t, dir)
	first.set(health.KindBackend, health.StatusUp)
	first.set(health.KindVIP, health.StatusUp)
	first.step(first.now)
	data, err := health.EncodeView(first.view.Load())
	if err != nil {
		t.Fatal(err)
	}
	if err := first.state.replace(viewFile, data); err != nil {
		t.Fatal(err)
	}
	first.state.close()

	second := newDeciderBench(t, dir)
	second.facts.Ready = true
	second.step(second.now)
	if !isClosed(second.allKnown) {
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
	if got := len(b.gossip.published); got != 1 {
		t.Fatalf("got %d reports, want 1", got)
	}
	b.set(health.KindBackend, health.StatusUp)
	b.step(b.now.Add(20 * time.Millisecond))
	b.step(b.now.Add(1100 * time.Millisecond))
	if got := len(b.gossip.published); got != 3 {
		t.Fatalf("got %d reports, want 3", got)
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
	if next, err := b.state.nextEpoch(time.Unix(0, 0)); err != nil || next != 902 {
		t.Errorf("epoch after a restart: got %d, %v, want 902", next, err)
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
	b.step(b.now)
	generation := b.board.Load().Generation
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
	if plan.Generation != generation {
		t.Errorf("silence published plan %d after %d", plan.Generation, generation)
	}
}
