package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/pharos-lb/pharos/internal/health"
)

// patience is how long tests wait for what must happen. It is generous: only
// failures wait for it.
const patience = 20 * time.Second

// TestMain fails if any goroutine outlives the tests. memberlist does not join
// its own at shutdown; they end after the probe that they are in.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		var err error
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			if err = goleak.Find(); err == nil {
				break
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func fastPace() *pace {
	return &pace{
		report:   100 * time.Millisecond,
		gap:      5 * time.Millisecond,
		steady:   100 * time.Millisecond,
		retry:    []time.Duration{0, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond},
		pushPull: 500 * time.Millisecond,
		probe:    200 * time.Millisecond,
		rtt:      100 * time.Millisecond,
		stream:   2 * time.Second,
		leave:    600 * time.Millisecond,
		reclaim:  100 * time.Millisecond,
		dead:     300 * time.Millisecond,
		discover: 200 * time.Millisecond,
		repair:   50 * time.Millisecond,
		tolerate: 100 * time.Millisecond,
		resend:   200 * time.Millisecond,
	}
}

// post is one delivery.
type post struct {
	report *health.Report
	age    time.Duration
	at     time.Time
}

// mailbox collects deliveries and checks that they only get newer.
type mailbox struct {
	t    testing.TB
	self string

	mu      sync.Mutex
	newest  map[string]post
	count   map[string]int
	changed chan struct{} // closed and replaced by every delivery
}

func newMailbox(t testing.TB, self string) *mailbox {
	return &mailbox{
		t: t, self: self,
		newest: make(map[string]post), count: make(map[string]int), changed: make(chan struct{}),
	}
}

func (m *mailbox) deliver(r *health.Report, age time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.newest[r.Observer]; ok && old.report.Newer(r) {
		m.t.Errorf("%s: delivered (%d, %d) of %s after (%d, %d)",
			m.self, r.Epoch, r.Seq, r.Observer, old.report.Epoch, old.report.Seq)
	}
	if age < 0 {
		m.t.Errorf("%s: delivered with age %v", m.self, age)
	}
	m.newest[r.Observer] = post{r, age, time.Now()}
	m.count[r.Observer]++
	close(m.changed)
	m.changed = make(chan struct{})
}

// get returns the newest delivery of observer and how many there were.
func (m *mailbox) get(observer string) (post, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.newest[observer], m.count[observer]
}

// wait waits until a report of observer satisfies ok.
func (m *mailbox) wait(observer string, ok func(*health.Report) bool) post {
	m.t.Helper()
	timeout := time.After(patience)
	for {
		m.mu.Lock()
		p, changed := m.newest[observer], m.changed
		m.mu.Unlock()
		if p.report != nil && ok(p.report) {
			return p
		}
		select {
		case <-changed:
		case <-timeout:
			m.t.Fatalf("%s: no such report of %s within %v; have %+v", m.self, observer, patience, p.report)
		}
	}
}

// atLeast waits for a report of observer with that epoch and seq or a larger one.
func (m *mailbox) atLeast(observer string, epoch, seq uint64) post {
	m.t.Helper()
	want := &health.Report{Epoch: epoch, Seq: seq}
	return m.wait(observer, func(r *health.Report) bool { return !want.Newer(r) })
}

// rig is a running Node of a test.
type rig struct {
	*Node
	t    testing.TB
	mail *mailbox
	reg  *prometheus.Registry
	stop context.CancelFunc
	done chan error
}

// start runs a node with the options' gaps filled in.
func start(t testing.TB, opt Options) *rig {
	t.Helper()
	r := build(t, opt)
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.done <- r.Run(ctx) }()
	t.Cleanup(r.crash)
	return r
}

// build makes a node as start does, without running it.
func build(t testing.TB, opt Options) *rig {
	t.Helper()
	r := &rig{t: t, mail: newMailbox(t, opt.Name), reg: prometheus.NewRegistry(), done: make(chan error, 1)}
	if !opt.Bind.IsValid() {
		opt.Bind = netip.MustParseAddrPort("127.0.0.1:0")
	}
	if opt.pace == nil {
		opt.pace = fastPace()
	}
	if opt.Epoch == 0 {
		opt.Epoch = 1
	}
	if opt.Deliver == nil {
		opt.Deliver = r.mail.deliver
	}
	opt.Registerer = r.reg
	n, err := New(opt)
	if err != nil {
		t.Fatalf("New(%s): %v", opt.Name, err)
	}
	r.Node = n
	return r
}

// crash ends the node without a word and waits for it.
func (r *rig) crash() {
	r.Close()
	if r.stop != nil {
		<-r.done
		r.stop()
		r.stop = nil
	}
}

// say publishes a report with one state for its single target.
func (r *rig) say(epoch, seq uint64, s health.Status) {
	report := &health.Report{Observer: r.opt.Name, Epoch: epoch, Seq: seq, Layout: 7, Config: 9}
	report.Set(0, s)
	r.Publish(report)
}

// metric returns the value of a metric whose labels include all of want, summed.
func (r *rig) metric(name string, want ...string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := make(map[string]bool)
			for _, l := range m.GetLabel() {
				labels[l.GetValue()] = true
			}
			if !slices.ContainsFunc(want, func(w string) bool { return !labels[w] }) {
				found = true
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	if !found {
		r.t.Fatalf("no metric %s %v", name, want)
	}
	return sum
}

func (r *rig) dropped(reason string) float64 { return r.metric("pharos_cluster_dropped_total", reason) }

// member returns what r shows of a member.
func (r *rig) member(name string) Member {
	for _, m := range r.Members() {
		if m.Name == name {
			return m
		}
	}
	return Member{}
}

// until polls for what no delivery announces.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// trio starts fra, iad and sin; each knows those before it.
func trio(t testing.TB, opt Options) (fra, iad, sin *rig) {
	t.Helper()
	if opt.Keys == nil {
		opt.Keys = [][]byte{testKey(1)}
	}
	opt.Label = "test"
	opt.Name = "fra"
	fra = start(t, opt)
	opt.Name, opt.Seeds = "iad", []netip.AddrPort{fra.Addr()}
	iad = start(t, opt)
	opt.Name, opt.Seeds = "sin", []netip.AddrPort{fra.Addr()}
	sin = start(t, opt)
	return fra, iad, sin
}

// acquainted waits until every node has every other as a member.
func acquainted(t testing.TB, rigs ...*rig) {
	t.Helper()
	for _, r := range rigs {
		until(t, fmt.Sprintf("%s knows %d others", r.opt.Name, len(rigs)-1), func() bool {
			return r.Status().Present == len(rigs)-1
		})
	}
}

// everybodyHas waits until every node has such a report of every other.
func everybodyHas(rigs []*rig, epoch, seq uint64) {
	for _, to := range rigs {
		for _, from := range rigs {
			if to != from {
				to.mail.atLeast(from.opt.Name, epoch, seq)
			}
		}
	}
}

func testKey(b byte) []byte {
	key := make([]byte, 32)
	for i := range key {
		key[i] = b
	}
	return key
}
