package cluster

import (
	"crypto/ed25519"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// An order outlives its writer: that node may have left the fleet for good, or be
// down while all that kept its signature were restarted, for a disk keeps none. So
// a node that holds a register without its writer's signature signs it as held,
// and one is taken with the signature of any node whose key is known: each of them
// could as well have ordered the same in its own name.

// sealHeld is what a holder's signature is about; see sealReport.
const sealHeld = "pharos held override"

// maxTrials is how many keys are tried on holders' signatures in a second, since
// these do not say whose they are.
const maxTrials = 1000

// trials remembers whose key fitted last, which is tried first and for nothing.
type trials struct {
	last  string
	since time.Time
	count int
}

// admit reports whether n more keys may be tried at now.
func (t *trials) admit(n int, now time.Time) bool {
	if now.Sub(t.since) >= time.Second {
		t.since, t.count = now, 0
	}
	if t.count > 0 && t.count+n > maxTrials {
		return false
	}
	t.count += n
	return true
}

// Vouched reports whether v, which was delivered, was signed by its writer or by
// a node that holds it, whose public key is known here.
func (n *Node) Vouched(v health.Override) bool {
	raw, err := v.AppendBinary(nil)
	if err != nil {
		return false
	}
	seal := n.registers.delivered(raw)
	return n.verify(sealOverride, v.Writer, raw, seal) == authentic || n.vouched(raw, seal)
}

// vouched reports whether seal is the signature of a node that holds the register.
func (n *Node) vouched(raw, seal []byte) bool {
	if len(seal) != sealLen {
		return false
	}
	text := sealText(sealHeld, n.opt.Label, raw)
	fits := func(key ed25519.PublicKey) bool {
		return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, text, seal)
	}
	n.mu.Lock()
	keys, last := n.publicKeys, n.trials.last // the map is replaced, never changed
	n.mu.Unlock()
	if fits(keys[last]) {
		return true
	}
	n.mu.Lock()
	admitted := n.trials.admit(len(keys), time.Now())
	n.mu.Unlock()
	if !admitted {
		return false
	}
	for name, key := range keys {
		if name != last && fits(key) {
			n.mu.Lock()
			n.trials.last = name
			n.mu.Unlock()
			return true
		}
	}
	return false
}

// sealFor returns the signature with which a register is sent: ours if we wrote
// it, its writer's if it came with it, ours as a holder otherwise.
func (n *Node) sealFor(v *health.Override, raw, came []byte) []byte {
	switch {
	case v.Writer == n.opt.Name:
		return n.sign(sealOverride, raw)
	case n.verify(sealOverride, v.Writer, raw, came) == authentic:
		return came
	}
	if held := n.sign(sealHeld, raw); held != nil {
		return held
	}
	return came
}
