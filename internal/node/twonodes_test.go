package node

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// bothSites is two sites that both run, on addresses 127.9.2.x.
const bothSites = `
cluster: {name: both, wait: 10s, secret_file: gossip.key}
sites:
  a: {location: FRA, nodes: {a1: 127.9.2.1}}
  b: {location: SIN, nodes: {b1: 127.9.2.2}}
services:
  web:
    check: {http: {path: /healthz}, every: 200ms, timeout: 150ms, rise: 1, fall: 2, recheck: 50ms}
    backends: {a: ["127.9.2.11:9000"], b: ["127.9.2.12:9000"]}
    vip: {a: 127.9.2.80, b: 127.9.2.90}
zones:
  t.test:
    records: |
      @   300 IN SOA ns1 root 1 3600 600 86400 60
      @   300 IN NS  ns1
      ns1 300 IN A   127.9.2.1
    names: {www: {service: web}}
dns: {listen: "node:5353"}
listeners:
  - {bind: "vip:8080", http: {routes: [{service: web}]}}
`

// A pair is two real nodes that hear each other.
type pair struct {
	a, b       *running
	dirA, dirB string
	config     string
	network    string
}

func newKeyText(t *testing.T) string {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

func newPair(t *testing.T, network, key string) *pair {
	t.Helper()
	newBackend(t, network+"11:9000", "one", released())
	newBackend(t, network+"12:9000", "two", released())
	p := &pair{dirA: t.TempDir(), dirB: t.TempDir(), config: at(network, bothSites), network: network}
	for _, dir := range []string{p.dirA, p.dirB} {
		write(t, filepath.Join(dir, "gossip.key"), key+"\n")
	}
	p.begin(t)
	return p
}

// begin starts both nodes and waits until each hears the other and answers with both sites.
func (p *pair) begin(t *testing.T) {
	t.Helper()
	p.a = start(t, nodeNamed(t, "a1", p.dirA, p.config))
	p.b = start(t, nodeNamed(t, "b1", p.dirB, p.config))
	for _, r := range []*running{p.a, p.b} {
		eventually(t, r.opts.Name+" serves and hears the other", func() bool {
			members := r.members()
			return r.state(t) == "serving" && len(members) == 2 && members[0].Heard && members[1].Heard && members[0].State == members[1].State
		})
	}
}

// kill ends both, and leaves in their state folders what a power cut at this
// moment would: nothing of what a stop writes.
func (p *pair) kill(t *testing.T) {
	t.Helper()
	kept := map[string]string{}
	for _, dir := range []string{p.dirA, p.dirB} {
		state := filepath.Join(dir, "state")
		kept[state] = filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(kept[state], os.DirFS(state)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*running{p.a, p.b} {
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	for state, copied := range kept {
		if err := errors.Join(os.RemoveAll(state), os.CopyFS(state, os.DirFS(copied))); err != nil {
			t.Fatal(err)
		}
	}
}

// sitesAnswered are the VIPs that a node's plan answers with.
func sitesAnswered(r *running) (out []string) {
	plan := r.board.Load()
	for k, site := range plan.Services[0].Sites {
		if site.Eligible {
			out = append(out, plan.Topology.SiteName(0, k))
		}
	}
	return out
}

// awaitFit waits until both nodes hold both sites for fit, so that one can be spared.
func (p *pair) awaitFit(t *testing.T) {
	t.Helper()
	for _, r := range []*running{p.a, p.b} {
		eventually(t, "both sites are fit at "+r.opts.Name, func() bool {
			for _, site := range r.board.Load().Services[0].Sites {
				if site.Why != steer.ReasonNone {
					return false
				}
			}
			return true
		})
	}
}

// within fails if something is not so after d: a promise, not only patience.
func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	began := time.Now()
	eventually(t, what, ok)
	if took := time.Since(began); took > d {
		t.Errorf("%s: after %s, want %s", what, took, d)
	}
}

// everywhere is the promise for an order.
const everywhere = 5 * time.Second

// An order given at one node holds at the other within 5 s and is acknowledged by
// both; it is there after both were restarted, it is gone everywhere when it is
// cleared, and what a restored backup remembers does not bring it back.
func TestOrderHoldsAcrossTheFleet(t *testing.T) {
	t.Parallel()
	p := newPair(t, "127.9.37.", newKeyText(t))
	dnsB := "127.9.37.2:5353"
	p.awaitFit(t)

	result, err := p.a.override(t.Context(), ask(health.OrderDrain, "site/a"))
	if err != nil || !result.Majority() || result.Acknowledged != 2 || result.Of != 2 {
		t.Fatalf("drain: %+v, %v", result, err)
	}
	within(t, everywhere, "b1's plan is without a", func() bool { return slices.Equal(sitesAnswered(p.b), []string{"b"}) })
	within(t, everywhere, "b1 answers with b alone", func() bool { return answersAt(dnsB, "www.t.test", "127.9.37.90") })
	list := p.b.overrides(false)
	if len(list.Overrides) != 1 || list.Overrides[0].Scope != "site/a" || list.Overrides[0].By != "anna (unix)" {
		t.Errorf("b1 lists %+v", list.Overrides)
	}
	within(t, everywhere, "b1 counts both", func() bool { l := p.b.overrides(false); return l.Acknowledged == 2 && l.Of == 2 })

	drained := map[string][]byte{}
	p.kill(t)
	for _, dir := range []string{p.dirA, p.dirB} {
		file := filepath.Join(dir, "state", overridesFile)
		if drained[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	p.begin(t)
	for _, r := range []*running{p.a, p.b} {
		if got := sitesAnswered(r); !slices.Equal(got, []string{"b"}) {
			t.Errorf("%s answers with %v after a restart, want b alone", r.opts.Name, got)
		}
	}

	if result, err = p.b.override(t.Context(), ask(health.OrderNone, "site/a")); err != nil || result.Acknowledged != 2 {
		t.Fatalf("undrain: %+v, %v", result, err)
	}
	for _, r := range []*running{p.a, p.b} {
		within(t, everywhere, r.opts.Name+" answers with both", func() bool { return slices.Equal(sitesAnswered(r), []string{"a", "b"}) })
	}

	// a1's folder comes back from a backup that was made while a was drained.
	p.kill(t)
	file := filepath.Join(p.dirA, "state", overridesFile)
	if err := os.WriteFile(file, drained[file], 0o600); err != nil {
		t.Fatal(err)
	}
	p.begin(t)
	for _, r := range []*running{p.a, p.b} {
		within(t, everywhere, r.opts.Name+" has it cleared", func() bool {
			l := r.overrides(false)
			return len(l.Overrides) == 0 && l.Acknowledged == 2 && slices.Equal(sitesAnswered(r), []string{"a", "b"})
		})
	}
}

// The gossip key is changed under two running nodes, in the order that the guards
// enforce, and neither loses the other.
func TestKeysChangeWhileNodesRun(t *testing.T) {
	t.Parallel()
	old, next := newKeyText(t), newKeyText(t)
	p := newPair(t, "127.9.38.", old)
	name := func(text string) string {
		key, err := parseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		return fingerprint(key)
	}
	change := func(r *running, c admin.KeyChange) {
		t.Helper()
		if _, err := r.ChangeKeys(c); err != nil {
			t.Fatalf("%s, %+v: %v", r.opts.Name, c, err)
		}
	}
	refused := func(r *running, c admin.KeyChange, want string) {
		t.Helper()
		if _, err := r.ChangeKeys(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s, %+v: got %v, want %q", r.opts.Name, c, err, want)
		}
	}
	// holds waits until r sees that both hold these keys, the one sent with first.
	holds := func(r *running, keys ...string) {
		t.Helper()
		eventually(t, r.opts.Name+" sees the other's keys", func() bool {
			for _, m := range r.Keys().Members {
				if !slices.Equal(m.Keys, keys) {
					return false
				}
			}
			return true
		})
	}
	holds(p.a, name(old))
	change(p.a, admin.KeyChange{Add: next})
	refused(p.a, admin.KeyChange{Use: name(next)}, "not held by b1")
	refused(p.a, admin.KeyChange{Remove: name(old)}, "`pharos keys use` another one first")
	change(p.b, admin.KeyChange{Add: next})
	holds(p.a, name(old), name(next))
	holds(p.b, name(old), name(next))
	change(p.a, admin.KeyChange{Use: name(next)})
	refused(p.a, admin.KeyChange{Remove: name(old)}, "still sent with by b1")
	change(p.b, admin.KeyChange{Use: name(next)})
	holds(p.a, name(next), name(old))
	holds(p.b, name(next), name(old))
	change(p.a, admin.KeyChange{Remove: name(old)})
	change(p.b, admin.KeyChange{Remove: name(old)})
	holds(p.a, name(next))
	holds(p.b, name(next))
	for _, dir := range []string{p.dirA, p.dirB} {
		if got, err := os.ReadFile(filepath.Join(dir, "gossip.key")); err != nil || string(got) != next+"\n" {
			t.Errorf("in the file: %q, %v", got, err)
		}
	}
	p.awaitFit(t)
	result, err := p.a.override(t.Context(), ask(health.OrderDrain, "site/a"))
	if err != nil || result.Acknowledged != 2 {
		t.Fatalf("under the new key: %+v, %v", result, err)
	}
	got, err := p.a.check(t.Context(), admin.CheckRequest{Target: "web/b/backend"})
	if err != nil || len(got.Targets) != 1 {
		t.Fatalf("check: %+v, %v", got, err)
	}
	for _, o := range got.Targets[0].Observers {
		if o.Node == "b1" && (o.Evidence == nil || o.Evidence.Code != 200 || o.NoAnswer) {
			t.Errorf("b1's evidence on its backend: %+v", o)
		}
	}
}
