package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

// fingerprintLen is how many bytes of a key's SHA-256 name it.
const fingerprintLen = 4

// SetKeys replaces the gossip keys while the node runs: the first is sent with,
// all are accepted, as in Options.Keys. What is in flight is still read if its
// key remains. The way to a new key without a gap is to add it everywhere, then
// to make it the first everywhere, then to remove the old one; the members'
// fingerprints say how far that has come. An error changes nothing: there must
// be at least one key and at most 16, each 16, 24 or 32 bytes long, and a node that
// was started without keys remains without.
func (n *Node) SetKeys(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	n.keysMu.Lock()
	defer n.keysMu.Unlock()
	if encrypted := len(n.keyring.GetKeys()) > 0; !encrypted && len(keys) > 0 {
		return errors.New("cluster: this node was started without a gossip key: restart it with one")
	} else if encrypted && len(keys) == 0 {
		return errors.New("cluster: no gossip key left: at least one must remain")
	}
	if len(keys) == 0 {
		return nil
	}
	if err := replaceKeys(n.keyring, keys); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	n.mu.Lock()
	n.metaChanged = true
	n.mu.Unlock()
	wake(n.seedsSet)
	n.log.Info("gossip keys replaced", "keys", n.KeyFingerprints())
	return nil
}

// replaceKeys makes ring hold keys, the first of them in use.
func replaceKeys(ring *memberlist.Keyring, keys [][]byte) error {
	for _, key := range keys {
		if err := ring.AddKey(slices.Clone(key)); err != nil {
			return err
		}
	}
	// UseKey moves a key to the front, so that those which go end up behind. They
	// must: removing any but the last overwrites the list that a receiver may be
	// reading. All of keys but the first are in use for an instant by this; they
	// are held here and were handed out before.
	for _, key := range slices.Backward(keys) {
		if err := ring.UseKey(key); err != nil {
			return err
		}
	}
	for {
		held := ring.GetKeys()
		last := held[len(held)-1]
		if slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, last) }) {
			return nil
		}
		if err := ring.RemoveKey(last); err != nil {
			return err
		}
	}
}

// KeyFingerprints names the gossip keys held, the one sent with first: 8
// hexadecimal digits of each key's SHA-256. Safe for concurrent use.
func (n *Node) KeyFingerprints() []string { return spellFingerprints(n.fingerprints()) }

// fingerprints returns those of all keys held, one after the other.
func (n *Node) fingerprints() []byte {
	var b []byte
	for _, key := range n.keyring.GetKeys() {
		sum := sha256.Sum256(key)
		b = append(b, sum[:fingerprintLen]...)
	}
	return b
}

// spellFingerprints writes out what fingerprints returns.
func spellFingerprints(b []byte) []string {
	var all []string
	for chunk := range slices.Chunk(b, fingerprintLen) {
		all = append(all, hex.EncodeToString(chunk))
	}
	return all
}

// checkKeys returns the first thing that is wrong with a keyring.
func checkKeys(keys [][]byte) error {
	if len(keys) > maxKeys {
		return fmt.Errorf("%d gossip keys, at most %d", len(keys), maxKeys)
	}
	for i, key := range keys {
		if memberlist.ValidateKey(key) != nil {
			return fmt.Errorf("gossip key %d has %d bytes, want 16, 24 or 32", i+1, len(key))
		}
	}
	return nil
}
