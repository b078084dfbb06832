package cluster

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

func TestReportsThatChangeNothing(t *testing.T) {
	keys, public := signKeys("fra", "iad", "sin")
	fra, iad, sin := keepers(t, Options{PublicKeys: public}, keys)
	fra.say(1, 100, health.StatusUp)
	iad.mail.atLeast("fra", 1, 100)
	sin.mail.atLeast("fra", 1, 100)
	if m := sin.member("fra"); !m.Signed {
		t.Errorf("fra is not shown as signed: %+v", m)
	}

	next := &health.Report{Observer: "fra", Epoch: 1, Seq: 200, Layout: 7, States: []byte{byte(health.StatusDown)}}
	raw := encoded(t, next)
	seal := func(by, what, label string) []byte { return ed25519.Sign(keys[by], sealText(what, label, raw)) }
	old := &health.Report{Observer: "fra", Epoch: 1, Seq: 50, Layout: 7, States: []byte{byte(health.StatusDown)}}
	oldRaw := encoded(t, old)
	wiped := &health.Report{Observer: "sin", Epoch: 9, Seq: 1}
	future := append([]byte{99}, raw[1:]...)
	frame := func(raw, seal []byte) []byte {
		return appendEntryFrame(nil, wireNow, kindReport, entry{report: raw, seal: seal})
	}
	first, _ := encodeReport(next, wireFirst)
	for _, tt := range []struct {
		name   string
		frame  []byte
		metric string
		label  string
	}{
		{"forged without a seal", frame(raw, nil), "dropped", dropSignature},
		{"forged by another node", frame(raw, seal("iad", sealReport, "test")), "dropped", dropSignature},
		{"of another cluster", frame(raw, seal("fra", sealReport, "prod")), "dropped", dropSignature},
		{"sealed as an override", frame(raw, seal("fra", sealOverride, "test")), "dropped", dropSignature},
		{"of the first version, which has no seals", appendEntryFrame(nil, wireFirst, kindReport, entry{report: first}), "dropped", dropSignature},
		{"forged news", appendEntryFrame(nil, wireNow, kindNews, entry{report: raw}), "dropped", dropSignature},
		{"forged in a state", state([]entry{{report: raw}}, nil), "dropped", dropSignature},
		{"forged memory of our own", frame(encoded(t, wiped), nil), "dropped", dropSignature},
		{"replayed", frame(oldRaw, ed25519.Sign(keys["fra"], sealText(sealReport, "test", oldRaw))), "duplicates", "report"},
		{"truncated frame", frame(raw, seal("fra", sealReport, "test"))[:40], "dropped", dropMalformed},
		{"truncated report", frame(raw[:20], seal("fra", sealReport, "test")), "dropped", dropMalformed},
		{"frame of the future", edit(frame(raw, nil), 2, 77), "dropped", dropVersion},
		{"report of the future", frame(future, seal("fra", sealReport, "test")), "dropped", dropVersion},
		{"section of the future", append(state(nil, nil), 77, 0, 0, 0, 1, 1), "dropped", dropSection},
		{"older than an hour", appendEntryFrame(nil, wireNow, kindReport, entry{
			age: 2 * forgetAfter, report: raw, seal: seal("fra", sealReport, "test"),
		}), "dropped", dropStale},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := sin.metric("pharos_cluster_"+tt.metric+"_total", tt.label)
			sin.receive(letter{frame: tt.frame, arrived: time.Now()})
			until(t, "counted", func() bool { return sin.metric("pharos_cluster_"+tt.metric+"_total", tt.label) > before })
			got, _ := sin.mail.get("fra")
			if got.report.Seq != 100 {
				t.Errorf("delivered seq %d", got.report.Seq)
			}
			if _, n := sin.mail.get("sin"); n != 0 {
				t.Error("its own report was delivered to it")
			}
		})
	}
	before := sin.dropped(dropOversize)
	delegate{sin.Node}.NotifyMsg(make([]byte, maxEntryFrame+1))
	delegate{sin.Node}.NotifyMsg(append([]byte{'p', 'h', wireNow, byte(kindOverrides)}, make([]byte, maxOverridesFrame)...))
	delegate{sin.Node}.NotifyMsg(append([]byte{'p', 'h', wireNow, byte(kindAnswer)}, make([]byte, maxMailFrame)...))
	if got := sin.dropped(dropOversize); got != before+3 {
		t.Errorf("%v of 3 frames dropped as oversized", got-before)
	}
	sin.receive(letter{frame: frame(raw, seal("fra", sealReport, "test")), arrived: time.Now()})
	sin.mail.atLeast("fra", 1, 200)
}

func TestSealStaysOnItsWay(t *testing.T) {
	keys, public := signKeys("fra", "iad", "sin")
	p := fastPace()
	p.pushPull = 200 * time.Millisecond
	fra, iad, sin := keepers(t, Options{PublicKeys: public, pace: p}, keys)
	// sin hears of fra through iad only.
	divide([]*rig{fra.rig}, []*rig{sin.rig})
	divide([]*rig{sin.rig}, []*rig{fra.rig})
	fra.say(1, 100, health.StatusDown)
	sin.mail.atLeast("fra", 1, 100)
	if !sin.member("fra").Signed || sin.dropped(dropSignature) != 0 {
		t.Errorf("passed on without its seal: %v dropped", sin.dropped(dropSignature))
	}
	if m := iad.member("iad"); !m.Signed {
		t.Error("its own report is not shown as signed")
	}
}

func TestPublicKeysAreReplaced(t *testing.T) {
	keys, public := signKeys("fra", "iad", "sin")
	fra, iad, _ := keepers(t, Options{}, keys)
	fra.say(1, 10, health.StatusUp)
	iad.mail.atLeast("fra", 1, 10)
	if iad.member("fra").Signed {
		t.Error("shown as signed though no key is known")
	}
	iad.SetPeers(iad.opt.Seeds, public, Meta{})
	fra.say(1, 11, health.StatusUp)
	iad.mail.atLeast("fra", 1, 11)
	if !iad.member("fra").Signed {
		t.Error("not shown as signed")
	}
	iad.SetPeers(iad.opt.Seeds, map[string]ed25519.PublicKey{"fra": public["sin"]}, Meta{})
	fra.say(1, 12, health.StatusUp)
	until(t, "refused", func() bool { return iad.dropped(dropSignature) > 0 })
	iad.SetPeers(iad.opt.Seeds, map[string]ed25519.PublicKey{"fra": {1, 2, 3}}, Meta{})
	before := iad.dropped(dropSignature)
	fra.say(1, 13, health.StatusUp)
	until(t, "refused", func() bool { return iad.dropped(dropSignature) > before })
	if got, _ := iad.mail.get("fra"); got.report.Seq != 11 {
		t.Errorf("took seq %d with a wrong key", got.report.Seq)
	}
}

func TestLostSealIsFoundAgain(t *testing.T) {
	keys, public := signKeys("fra", "iad", "sin")
	fra, iad, sin := keepers(t, Options{PublicKeys: public}, keys)
	v := fra.order("site/fra", health.OrderDrain)
	agree(t, fra, iad, sin)
	sealed := func(k *keeper) bool {
		all := k.registers.all()
		return len(all) == 1 && len(all[0].seal) == sealLen
	}
	for _, k := range []*keeper{fra, iad, sin} {
		if !sealed(k) {
			t.Fatalf("%s holds it without its seal", k.opt.Name)
		}
	}
	// A disk keeps no seals: after a restart the others' orders have none.
	opt := sin.opt
	sin.crash()
	opt.Bind, opt.Deliver = sin.Addr(), nil
	opt.Seeds = append(opt.Seeds, fra.Addr())
	again := keep(t, opt)
	again.PublishOverrides([]health.Override{v}, fra.digest())
	until(t, "its writer's seal is back", func() bool {
		return sealed(again) && bytes.Equal(again.registers.all()[0].seal, fra.registers.all()[0].seal)
	})
}

func TestOptionsOfKeysAreChecked(t *testing.T) {
	_, public := signKeys("fra")
	for _, tt := range []struct {
		name string
		edit func(*Options)
		want string
	}{
		{"short key to sign with", func(o *Options) { o.SignKey = make([]byte, 5) }, "key to sign with has 5 bytes, want 64"},
		{"short public key", func(o *Options) { o.PublicKeys = map[string]ed25519.PublicKey{"fra": public["fra"][:9]} }, `public key of "fra" has 9 bytes, want 32`},
	} {
		opt := Options{Name: "fra", Label: "test", Deliver: func(*health.Report, time.Duration) {}}
		opt.Bind = build(t, Options{Name: "fra"}).Addr()
		tt.edit(&opt)
		if _, err := New(opt); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New = %v, want %q", tt.name, err, tt.want)
		}
	}
}

// BenchmarkSeal measures what a signature of a report on 1000 checks costs: one a
// second to make, one a second for each member to check.
func BenchmarkSeal(b *testing.B) {
	keys, public := signKeys("fra")
	n := &Node{opt: Options{Name: "fra", Label: "prod", SignKey: keys["fra"]}, publicKeys: public}
	raw := make([]byte, 300)
	b.Run("sign", func(b *testing.B) {
		for b.Loop() {
			n.sign(sealReport, raw)
		}
	})
	seal := n.sign(sealReport, raw)
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			if n.verify(sealReport, "fra", raw, seal) != authentic {
				b.Fatal("refused")
			}
		}
	})
}
