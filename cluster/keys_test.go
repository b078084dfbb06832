package cluster

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/memberlist"
	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/internal/health"
)

func TestKeysAreRotatedWithoutAGap(t *testing.T) {
	fra, iad, sin := trio(t, Options{})
	rigs := []*rig{fra, iad, sin}
	acquainted(t, rigs...)
	seq := uint64(0)
	flow := func() {
		t.Helper()
		seq++
		for _, r := range rigs {
			r.say(1, seq, health.Status(1+seq%3))
		}
		everybodyHas(rigs, 1, seq)
	}
	flow()
	old, next := testKey(1), testKey(2)
	for _, keys := range [][][]byte{{old, next}, {next, old}, {next}} {
		for _, r := range rigs {
			if err := r.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
			flow() // while some have done this step and others have not
		}
		for _, r := range rigs {
			for _, o := range rigs {
				until(t, "the others see the keys", func() bool {
					return slices.Equal(r.member(o.opt.Name).Keys, o.KeyFingerprints())
				})
			}
			if got := len(r.KeyFingerprints()); got != len(keys) {
				t.Errorf("%s holds %d keys, want %d", r.opt.Name, got, len(keys))
			}
		}
	}
	for _, r := range rigs {
		if got := r.dropped(dropKey); got != 0 {
			t.Errorf("%s could not read %v messages", r.opt.Name, got)
		}
	}
	// Whoever has the old key only is a stranger now.
	evil := start(t, Options{Name: "evil", Label: "test", Keys: [][]byte{old}, Seeds: []netip.AddrPort{fra.Addr()}})
	until(t, "the old key is refused", func() bool { return fra.dropped(dropKey) > 0 })
	if evil.Status().Present != 0 {
		t.Error("it joined with the old key")
	}
}

func TestKeysThatCannotBe(t *testing.T) {
	fra := build(t, Options{Name: "fra", Keys: [][]byte{testKey(1)}})
	defer fra.Close()
	plain := build(t, Options{Name: "fra"})
	defer plain.Close()
	before := fra.KeyFingerprints()
	for _, tt := range []struct {
		name string
		on   *rig
		keys [][]byte
	}{
		{"none left", fra, nil},
		{"short", fra, [][]byte{testKey(2), {1, 2}}},
		{"many", fra, slices.Repeat([][]byte{testKey(1)}, maxKeys+1)},
		{"none before", plain, [][]byte{testKey(1)}},
	} {
		if err := tt.on.SetKeys(tt.keys); err == nil {
			t.Errorf("%s: SetKeys succeeded", tt.name)
		}
	}
	if got := fra.KeyFingerprints(); !slices.Equal(got, before) || len(plain.KeyFingerprints()) != 0 {
		t.Errorf("a refused call changed the keys to %v", got)
	}
	if err := plain.SetKeys(nil); err != nil {
		t.Errorf("SetKeys(nil) without keys = %v", err)
	}
}

// TestReplaceKeys replaces keyrings by any others while somebody reads.
func TestReplaceKeys(t *testing.T) {
	pool := make([][]byte, 5)
	for i := range pool {
		pool[i] = bytes.Repeat([]byte{byte(i + 1)}, 16+8*(i%3))
	}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) [][]byte {
			return rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 1, len(pool), func(k []byte) byte { return k[0] }).Draw(t, name)
		}
		was := draw("was")
		ring, err := memberlist.NewKeyring(was, was[0])
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		var reader sync.WaitGroup
		reader.Go(func() {
			for ctx.Err() == nil {
				for _, key := range ring.GetKeys() {
					if len(key) < 16 || bytes.Count(key, key[:1]) != len(key) {
						t.Errorf("torn key %x", key)
					}
				}
			}
		})
		for range 3 {
			want := draw("keys")
			if err := replaceKeys(ring, want); err != nil {
				t.Fatal(err)
			}
			if got := ring.GetKeys(); !slices.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("keys %x, want %x", got, want)
			}
		}
		stop()
		reader.Wait()
	})
}
