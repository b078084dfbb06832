package cluster

import (
	"crypto/ed25519"
	"maps"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// wiped starts a node anew, with nothing but its options and these keys.
func wiped(t *testing.T, k *keeper, public map[string]ed25519.PublicKey, seeds ...*keeper) *keeper {
	t.Helper()
	opt := k.opt
	k.crash()
	opt.Bind, opt.Deliver, opt.PublicKeys, opt.Seeds = k.Addr(), nil, public, nil
	for _, s := range seeds {
		opt.Seeds = append(opt.Seeds, s.Addr())
	}
	again := keep(t, opt)
	again.awaken()
	return again
}

// An order reaches a node that comes later, though its writer has left the fleet
// with its key, or is dead and nobody has its signature any more.
func TestOrderOutlivesItsWriter(t *testing.T) {
	for _, tt := range []struct {
		name string
		left bool // the configuration
	}{{"left", true}, {"dead", false}} {
		t.Run(tt.name, func(t *testing.T) {
			keys, public := signKeys("fra", "iad", "sin")
			fra, iad, sin := keepers(t, Options{PublicKeys: public}, keys)
			v := fra.order("site/fra", health.OrderDrain)
			agree(t, fra, iad, sin)
			digest := fra.digest()
			fra.crash()
			now := maps.Clone(public)
			if tt.left {
				delete(now, "fra")
				iad.SetPeers(iad.opt.Seeds, now, Meta{})
			} else { // it comes back from its disk, which keeps no signatures
				opt := iad.opt
				iad.crash()
				opt.Bind, opt.Deliver = iad.Addr(), nil
				iad = keep(t, opt)
				if _, err := iad.overrides.Merge(v); err != nil {
					t.Fatal(err)
				}
				iad.PublishOverrides([]health.Override{v}, digest)
				iad.awaken()
			}
			sin = wiped(t, sin, now, iad)
			until(t, "the order is there", func() bool { return sin.get("site/fra").Order == health.OrderDrain })
			if got := sin.dropped(dropSignature); got != 0 {
				t.Errorf("%v dropped for their signature", got)
			}
			// And from there to the next, when the first holder leaves too.
			delete(now, "fra")
			delete(now, "iad")
			iad.crash()
			sin.SetPeers(nil, now, Meta{})
			all := sin.registers.all()
			if len(all) != 1 || !sin.vouched(all[0].override, all[0].seal) {
				t.Errorf("holds %d registers, not vouched for by itself", len(all))
			}
		})
	}
}

// A signature of a holder is one of a node whose key is known, on this register,
// in this cluster, as a holder; nothing else makes an order count.
func TestVouched(t *testing.T) {
	keys, public := signKeys("fra", "iad", "sin", "gone")
	delete(public, "gone")
	_, _, sin := keepers(t, Options{PublicKeys: public}, keys)
	v := override(t, "fra", "site/fra", health.OrderDrain, 7)
	gone := override(t, "gone", "site/iad", health.OrderDrain, 7)
	encoded := func(v health.Override) []byte {
		raw, err := v.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	seal := func(who, what, label string, v health.Override) []byte {
		return ed25519.Sign(keys[who], sealText(what, label, encoded(v)))
	}
	for _, tt := range []struct {
		name string
		v    health.Override
		seal []byte
		want bool
	}{
		{"its writer", v, seal("fra", sealOverride, "test", v), true},
		{"a holder", v, seal("iad", sealHeld, "test", v), true},
		{"a holder of one whose writer is gone", gone, seal("iad", sealHeld, "test", gone), true},
		{"nobody", v, nil, false},
		{"a stranger", v, seal("gone", sealHeld, "test", v), false},
		{"a writer that is gone", gone, seal("gone", sealOverride, "test", gone), false},
		{"another as if it were the writer", v, seal("iad", sealOverride, "test", v), false},
		{"in another cluster", v, seal("iad", sealHeld, "other", v), false},
		{"another register", v, seal("iad", sealHeld, "test", gone), false},
		{"cut off", v, seal("iad", sealHeld, "test", v)[:63], false},
	} {
		sin.registers.mu.Lock()
		sin.registers.seals[string(encoded(tt.v))] = tt.seal
		sin.registers.mu.Unlock()
		if got := sin.Vouched(tt.v); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	// What is forged is refused and counted, and trying keys on it is bounded.
	for range 2 * maxTrials {
		sin.takeOverrides([]record{{override: encoded(v), seal: seal("gone", sealHeld, "test", v)}})
	}
	if got := sin.dropped(dropSignature); got != 2*maxTrials || sin.get("site/fra").Order != health.OrderNone {
		t.Errorf("%v of %d refused, %v stands", got, 2*maxTrials, sin.get("site/fra").Order)
	}
}

func TestTrialsAreBounded(t *testing.T) {
	var tr trials
	now := time.Now()
	admitted := 0
	for range 10 * maxTrials {
		if tr.admit(3, now) {
			admitted += 3
		}
	}
	if admitted > maxTrials || admitted < maxTrials-3 {
		t.Errorf("%d keys tried in a second", admitted)
	}
	if !tr.admit(3*maxTrials, now.Add(time.Second)) { // a large fleet's keys are tried once a second at least
		t.Error("not admitted a second later")
	}
}
