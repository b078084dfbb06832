package cluster

import (
	"crypto/ed25519"
	"fmt"
)

// sealLen is the length of a signature.
const sealLen = ed25519.SignatureSize

// What a signature is about; part of what is signed, so that none can be taken
// for another.
const (
	sealReport   = "pharos report"
	sealOverride = "pharos override"
)

// sealText returns what is signed: what it is, the cluster's label after its
// length, and the encoded report or override, which begins with its version.
func sealText(what, label string, raw []byte) []byte {
	b := make([]byte, 0, len(what)+2+len(label)+len(raw))
	b = append(b, what...)
	b = append(b, 0, byte(len(label)))
	b = append(b, label...)
	return append(b, raw...)
}

// sign returns our signature, nil if we have no key to sign with.
func (n *Node) sign(what string, raw []byte) []byte {
	if n.opt.SignKey == nil {
		return nil
	}
	return ed25519.Sign(n.opt.SignKey, sealText(what, n.opt.Label, raw))
}

// authenticity is what a signature is worth.
type authenticity uint8

const (
	forged   authenticity = iota // there should be a valid one and is not
	unsigned                     // the node's public key is not known here
	authentic
)

// verify judges the signature of a node on raw.
func (n *Node) verify(what, name string, raw, seal []byte) authenticity {
	n.mu.Lock()
	key, ok := n.publicKeys[name]
	n.mu.Unlock()
	switch {
	case !ok:
		return unsigned
	case len(key) == ed25519.PublicKeySize && len(seal) == sealLen &&
		ed25519.Verify(key, sealText(what, n.opt.Label, raw), seal):
		return authentic
	default:
		return forged
	}
}

// cutSeal takes a signature off the front of b.
func cutSeal(b []byte) (seal, rest []byte, err error) {
	if len(b) < sealHeaderLen || b[0] != 0 && b[0] != sealLen || len(b)-sealHeaderLen < int(b[0]) {
		return nil, nil, fmt.Errorf("%w: cut off in a signature", errFrame)
	}
	end := sealHeaderLen + int(b[0])
	return b[sealHeaderLen:end:end], b[end:], nil
}

// checkPublicKeys returns the first key that is none.
func checkPublicKeys(keys map[string]ed25519.PublicKey) error {
	for name, key := range keys {
		if len(key) != ed25519.PublicKeySize {
			return fmt.Errorf("public key of %q has %d bytes, want %d", name, len(key), ed25519.PublicKeySize)
		}
	}
	return nil
}
