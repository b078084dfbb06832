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
	maxEncodedMeta = metaFixedLen + maxSiteLen + maxVersionLen
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

// encode returns the wire form of m: at most maxEncodedMeta bytes.
func (m Meta) encode() []byte {
	m = m.clip()
	b := make([]byte, 0, maxEncodedMeta)
	b = append(b, metaVersion)
	b = binary.BigEndian.AppendUint64(b, m.Config)
	b = append(b, byte(len(m.Site)))
	b = append(b, m.Site...)
	b = append(b, byte(len(m.Version)))
	return append(b, m.Version...)
}

// parseMeta reads what encode wrote. Bytes after it are left to later versions.
func parseMeta(b []byte) (Meta, bool) {
	if len(b) < metaFixedLen || b[0] != metaVersion {
		return Meta{}, false
	}
	m := Meta{Config: binary.BigEndian.Uint64(b[1:])}
	rest := b[9:]
	var ok bool
	if m.Site, rest, ok = cutString(rest); !ok || len(m.Site) > maxSiteLen {
		return Meta{}, false
	}
	if m.Version, _, ok = cutString(rest); !ok || len(m.Version) > maxVersionLen {
		return Meta{}, false
	}
	return m, true
}

// cutString takes a string off b that follows its length in one byte.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}
