package cluster

import (
	"encoding/binary"
	"fmt"
)

// Limits of what a node tells of itself in its membership record, which the
// membership protocol caps at 512 bytes.
const (
	metaVersion    = 1
	maxSiteLen     = 63
	maxVersionLen  = 63
	metaFixedLen   = 1 + 8 + 1 + 1
	maxEncodedMeta = metaFixedLen + maxSiteLen + maxVersionLen + 1 + 1 + maxKeys*fingerprintLen
)

// Meta is what a node tells of itself in its membership record, for display.
type Meta struct {
	// Site is the name of the node's site, at most 63 bytes.
	Site string
	// Version is the version of pharos it runs, at most 63 bytes.
	Version string
	// Config is the hash of its whole configuration.
	Config uint64
}

// check returns what forbids m to be sent.
func (m Meta) check() error {
	if len(m.Site) > maxSiteLen {
		return fmt.Errorf("site name of %d bytes, at most %d", len(m.Site), maxSiteLen)
	}
	if len(m.Version) > maxVersionLen {
		return fmt.Errorf("version of %d bytes, at most %d", len(m.Version), maxVersionLen)
	}
	return nil
}

// clip shortens what is too long.
func (m Meta) clip() Meta {
	m.Site = m.Site[:min(len(m.Site), maxSiteLen)]
	m.Version = m.Version[:min(len(m.Version), maxVersionLen)]
	return m
}

// card is a node's membership record: its Meta and what the node adds to it.
// Comparable.
type card struct {
	Meta
	// wire is the newest wire version it understands; 1 if it tells none.
	wire uint8
	// keys are the fingerprints of its gossip keys, one after the other, the
	// primary first; empty if it tells none.
	keys string
}

// encode returns the wire form of c: at most maxEncodedMeta bytes. What follows
// the version of pharos is not read by nodes of the first wire version.
func (c card) encode() []byte {
	m := c.clip()
	b := make([]byte, 0, maxEncodedMeta)
	b = append(b, metaVersion)
	b = binary.BigEndian.AppendUint64(b, m.Config)
	b = append(b, byte(len(m.Site)))
	b = append(b, m.Site...)
	b = append(b, byte(len(m.Version)))
	b = append(b, m.Version...)
	b = append(b, c.wire)
	keys := c.keys[:min(len(c.keys), maxKeys*fingerprintLen)]
	b = append(b, byte(len(keys)))
	return append(b, keys...)
}

// parseCard reads what encode wrote, or a node of the first wire version. Bytes
// after it are left to later versions.
func parseCard(b []byte) (card, bool) {
	if len(b) < metaFixedLen || b[0] != metaVersion {
		return card{}, false
	}
	c := card{wire: wireFirst}
	c.Config = binary.BigEndian.Uint64(b[1:])
	rest := b[9:]
	var ok bool
	if c.Site, rest, ok = cutString(rest); !ok || len(c.Site) > maxSiteLen {
		return card{}, false
	}
	if c.Version, rest, ok = cutString(rest); !ok || len(c.Version) > maxVersionLen {
		return card{}, false
	}
	if len(rest) == 0 {
		return c, true
	}
	c.wire = rest[0]
	c.keys, _, ok = cutString(rest[1:])
	if !ok || c.wire < wireNow || len(c.keys)%fingerprintLen != 0 || len(c.keys) > maxKeys*fingerprintLen {
		return card{}, false
	}
	return c, true
}

// cutString takes a string off b that follows its length in one byte.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}
