package zone

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// sign adds the signatures to the sets and variants that they are of.
func (d *draft) sign() {
	for i := range d.spec.Signatures {
		s := &d.spec.Signatures[i]
		what := s.Name + " " + dns.Type(s.Type).String()
		key, ok := d.key(s.Name)
		e := d.entries[key]
		if !ok || e == nil {
			d.rep.errorf(0, "signature of %s: the zone has no such name", what)
			continue
		}
		signed := RRset{Type: wire.TypeRRSIG, Count: len(s.Records)}
		for _, record := range s.Records {
			signed.Records = append(append(signed.Records, 0xc0, byte(wire.QuestionOwner)), record...)
		}
		if !signed.whole() {
			d.rep.errorf(0, "signature of %s: not RRSIG records of class IN", what)
			continue
		}
		switch set := e.set(s.Type); {
		case s.Variant == nil && set != nil:
			signed.setTTL(set.ttl) // RFC 4034 3
			set.SignatureCount, set.Signatures = signed.Count, signed.Records
		case s.Variant != nil && e.steered != nil && (s.Type == wire.TypeA || s.Type == wire.TypeAAAA):
			addrs := slices.SortedFunc(slices.Values(s.Variant), netip.Addr.Compare)
			e.steered.variants = append(e.steered.variants, variant{addrs, signed})
		default:
			d.rep.errorf(0, "signature of %s: nothing here that it could be of", what)
		}
	}
}

// whole reports whether a set is Count records of its type and class IN.
func (s *RRset) whole() bool {
	at := 0
	for range s.Count {
		rest := s.Records[at:]
		if len(rest) < 12 || len(rest) < recordSize(rest) || binary.BigEndian.Uint32(rest[2:]) != uint32(s.Type)<<16|uint32(wire.ClassIN) {
			return false
		}
		at += recordSize(rest)
	}
	return at == len(s.Records) && at > 0 && at <= maxSetSize
}

// Signed returns the signature of an answer with these addresses, which have one
// family; nil if it has none.
func (s *Steered) Signed(addrs []netip.Addr) *RRset {
	for i := range s.variants {
		if v := &s.variants[i]; len(v.addrs) == len(addrs) && v.holds(addrs) {
			return &v.signed
		}
	}
	return nil
}

func (v *variant) holds(addrs []netip.Addr) bool {
	for _, a := range addrs {
		if _, ok := slices.BinarySearchFunc(v.addrs, a, netip.Addr.Compare); !ok {
			return false
		}
	}
	return true
}
