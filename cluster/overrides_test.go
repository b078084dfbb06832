package cluster

import (
	"crypto/ed25519"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// keeper stands in for the decider of a rig: it merges overrides and reports
// their digest.
type keeper struct {
	*rig
	mu        sync.Mutex // guards the rest
	overrides *health.Overrides
	seq       uint64
	offered   int
}

// keep starts a node that carries overrides.
func keep(t testing.TB, opt Options) *keeper {
	t.Helper()
	k := &keeper{overrides: health.NewOverrides()}
	ready := make(chan struct{})
	opt.DeliverOverrides = func(all []health.Override) {
		<-ready
		k.mu.Lock()
		defer k.mu.Unlock()
		k.offered += len(all)
		changed := false
		for _, v := range all {
			if c, err := k.overrides.Merge(v); err == nil && c {
				changed = true
			}
		}
		if changed {
			k.publish()
		}
	}
	k.rig = start(t, opt)
	k.PublishOverrides(nil, 0)
	close(ready)
	return k
}

// publish tells what is held. mu must be held.
func (k *keeper) publish() {
	k.PublishOverrides(k.overrides.All(), k.overrides.Digest())
	k.report()
}

// report publishes a report with the digest. mu must be held.
func (k *keeper) report() {
	k.seq++
	k.Publish(&health.Report{Observer: k.opt.Name, Epoch: 1, Seq: k.seq, Layout: 7, Overrides: k.overrides.Digest(), States: []byte{1}})
}

// awaken publishes the first report.
func (k *keeper) awaken() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report()
}

// order writes a register.
func (k *keeper) order(scope string, o health.Order) health.Override {
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.write(scope, o)
	k.publish()
	return v
}

func (k *keeper) write(scope string, o health.Order) health.Override {
	v := override(k.t, k.opt.Name, scope, o, 0)
	v, err := k.overrides.Write(v)
	if err != nil {
		k.t.Fatal(err)
	}
	return v
}

func override(t testing.TB, writer, scope string, o health.Order, counter uint64) health.Override {
	t.Helper()
	s, err := health.ParseScope(scope)
	if err != nil {
		t.Fatal(err)
	}
	return health.Override{Scope: s, Order: o, Counter: counter, Writer: writer, By: "kim", Reason: "why not", Keeper: "fra"}
}

func (k *keeper) digest() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.overrides.Digest()
}

// get returns the register held of a scope.
func (k *keeper) get(scope string) health.Override {
	s, _ := health.ParseScope(scope)
	k.mu.Lock()
	defer k.mu.Unlock()
	v, _ := k.overrides.Get(s)
	return v
}

// keepers starts three acquainted nodes.
func keepers(t testing.TB, opt Options, sign map[string]ed25519.PrivateKey) (fra, iad, sin *keeper) {
	t.Helper()
	if opt.Keys == nil {
		opt.Keys = [][]byte{testKey(1)}
	}
	opt.Label = "test"
	var all []*keeper
	for _, name := range []string{"fra", "iad", "sin"} {
		opt.Name = name
		opt.SignKey = sign[name]
		k := keep(t, opt)
		all = append(all, k)
		opt.Seeds = append(opt.Seeds[:len(opt.Seeds):len(opt.Seeds)], k.Addr())
	}
	acquainted(t, all[0].rig, all[1].rig, all[2].rig)
	for _, k := range all {
		k.awaken()
	}
	return all[0], all[1], all[2]
}

func agree(t testing.TB, all ...*keeper) {
	t.Helper()
	until(t, "all hold the same overrides", func() bool {
		for _, k := range all[1:] {
			if k.digest() != all[0].digest() {
				return false
			}
		}
		return true
	})
	until(t, "and see that of each other", func() bool {
		for _, k := range all {
			for _, other := range all {
				if k.member(other.opt.Name).Overrides != all[0].digest() {
					return false
				}
			}
		}
		return true
	})
}

func TestOrderIsToldAtOnceAndCleared(t *testing.T) {
	p := defaultPace()
	p.pushPull, p.repair = time.Hour, time.Hour // so that neither brings it
	fra, iad, sin := keepers(t, Options{pace: &p}, nil)
	began := time.Now()
	v := fra.order("site/fra", health.OrderDrain)
	agree(t, fra, iad, sin)
	if took := time.Since(began); took > time.Second {
		t.Errorf("an order took %v", took)
	}
	if got := sin.get("site/fra"); got != v {
		t.Errorf("sin holds %+v, want %+v", got, v)
	}
	iad.order("site/fra", health.OrderNone)
	agree(t, fra, iad, sin)
	if got := sin.get("site/fra"); got.Order != health.OrderNone || got.Writer != "iad" {
		t.Errorf("sin holds %+v after it was cleared", got)
	}
}

func TestOrderTooLargeForADatagram(t *testing.T) {
	p := defaultPace()
	p.pushPull, p.repair = time.Hour, time.Hour
	fra, iad, sin := keepers(t, Options{pace: &p}, nil)
	fra.mu.Lock()
	for _, scope := range manyScopes(200) {
		fra.write(scope, health.OrderDown)
	}
	fra.publish()
	fra.mu.Unlock()
	agree(t, fra, iad, sin)
	if fra.news.orders.NumQueued() > 0 {
		t.Error("more orders are gossiped than may be")
	}
}

func TestWhoHoldsOtherOverridesIsSentOurs(t *testing.T) {
	p := fastPace()
	p.pushPull = time.Hour
	fra, iad, sin := keepers(t, Options{pace: p}, nil)
	// What is published like this is not told to anybody.
	fra.mu.Lock()
	fra.write("site/fra", health.OrderDrain)
	n := fra.Node
	n.registers.replace(fra.overrides.All(), fra.overrides.Digest(), func(*health.Override, []byte, []byte) []byte { return nil })
	fra.report()
	fra.mu.Unlock()
	agree(t, fra, iad, sin)
	if fra.metric("pharos_cluster_repairs_total") == 0 {
		t.Error("nothing was repaired")
	}
	repairs := func() float64 {
		return fra.metric("pharos_cluster_repairs_total") + iad.metric("pharos_cluster_repairs_total") + sin.metric("pharos_cluster_repairs_total")
	}
	before, sent := repairs(), fra.metric("pharos_cluster_messages_total", "out", "report")
	until(t, "more reports", func() bool { return fra.metric("pharos_cluster_messages_total", "out", "report") > sent+20 })
	if got := repairs(); got != before {
		t.Errorf("%v more repairs when all agree", got-before)
	}
}

func TestRestoredOverridesComeWithTheFirstExchange(t *testing.T) {
	fra, iad, sin := keepers(t, Options{}, nil)
	fra.order("site/fra", health.OrderDrain)
	agree(t, fra, iad, sin)
	opt := Options{Label: "test", Keys: [][]byte{testKey(1)}, Name: "nrt"}
	opt.Seeds = append(opt.Seeds, fra.Addr())
	nrt := keep(t, opt)
	<-nrt.Synced()
	if nrt.digest() != fra.digest() {
		t.Error("synced without the overrides")
	}
}

func TestSyncedMeansThatTheOverridesWereDelivered(t *testing.T) {
	var n *rig
	delivered := 0
	n = build(t, Options{
		Name: "nrt", Seeds: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7946")},
		DeliverOverrides: func(all []health.Override) {
			delivered += len(all)
			if n.Status().Synced {
				t.Error("synced before the overrides were delivered")
			}
		},
	})
	defer n.Close()
	raw, err := override(t, "fra", "site/fra", health.OrderDrain, 1).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	n.open(letter{frame: state(nil, []record{{override: raw}}), arrived: time.Now(), exchange: true})
	if delivered != 1 || !n.Status().Synced {
		t.Errorf("%d delivered, synced %v", delivered, n.Status().Synced)
	}
}

func TestOverridesThatChangeNothing(t *testing.T) {
	keys, public := signKeys("fra", "iad", "sin")
	fra, iad, sin := keepers(t, Options{PublicKeys: public}, keys)
	old := fra.order("site/fra", health.OrderDrain)
	agree(t, fra, iad, sin)
	fra.order("site/fra", health.OrderNone)
	agree(t, fra, iad, sin)

	raw := func(v health.Override) []byte {
		b, err := v.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sealed := func(by, label string, v health.Override) record {
		b := raw(v)
		return record{override: b, seal: ed25519.Sign(keys[by], sealText(sealOverride, label, b))}
	}
	next := override(t, "fra", "site/fra", health.OrderDrain, 99)
	future := raw(next)
	future[0] = 77
	for _, tt := range []struct {
		name   string
		rec    record
		metric string
		label  string
	}{
		{"forged without a seal", record{override: raw(next)}, "dropped", dropSignature},
		{"forged by another node", sealed("iad", "test", next), "dropped", dropSignature},
		{"of another cluster", sealed("fra", "prod", next), "dropped", dropSignature},
		{"seal of a report", record{override: raw(next), seal: ed25519.Sign(keys["fra"], sealText(sealReport, "test", raw(next)))}, "dropped", dropSignature},
		{"replayed", sealed("fra", "test", old), "duplicates", "override"},
		{"truncated", record{override: raw(next)[:20]}, "dropped", dropMalformed},
		{"of the future", record{override: future}, "dropped", dropVersion},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := sin.metric("pharos_cluster_"+tt.metric+"_total", tt.label)
			held, offered := sin.digest(), sin.offers()
			sin.receive(letter{frame: appendOverridesFrame(nil, []record{tt.rec}), arrived: time.Now()})
			until(t, "counted", func() bool { return sin.metric("pharos_cluster_"+tt.metric+"_total", tt.label) > before })
			if sin.digest() != held || sin.offers() != offered {
				t.Errorf("it was delivered")
			}
		})
	}
	// And one that is right still gets through, with its seal from node to node.
	sin.receive(letter{frame: appendOverridesFrame(nil, []record{sealed("fra", "test", next)}), arrived: time.Now()})
	for _, k := range []*keeper{fra, iad} {
		until(t, "the right one is everywhere", func() bool { return k.get("site/fra") == next })
	}
	agree(t, sin, iad, fra)
}

func (k *keeper) offers() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.offered
}

// signKeys makes a pair of keys for each name.
func signKeys(names ...string) (private map[string]ed25519.PrivateKey, public map[string]ed25519.PublicKey) {
	private, public = make(map[string]ed25519.PrivateKey), make(map[string]ed25519.PublicKey)
	for i, name := range names {
		key := ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), byte(i+1)))
		private[name], public[name] = key, key.Public().(ed25519.PublicKey)
	}
	return private, public
}
