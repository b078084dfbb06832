package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// Well-known communities (RFC 1997, 3765, 7999, 8326).
const (
	GracefulShutdown  uint32 = 0xffff0000
	Blackhole         uint32 = 0xffff029a
	NoExport          uint32 = 0xffffff01
	NoAdvertise       uint32 = 0xffffff02
	NoExportSubconfed uint32 = 0xffffff03
	NoPeer            uint32 = 0xffffff04
)

// MaxPrepend bounds Attributes.Prepend.
const MaxPrepend = engine.MaxPrepend

// A LargeCommunity is an RFC 8092 community: the ASN and two numbers.
type LargeCommunity = [3]uint32

// Attributes are what a route says of itself. A zero number says nothing, or leaves it to what is more general: an
// Override's number goes before the Route's, that before the Peer's. Communities of all three are sent together.
type Attributes struct {
	MED         uint32 // multi-exit discriminator
	LocalPref   uint32 // to iBGP peers only; unsaid = 100
	Prepend     int    // further times that our ASN stands in the path, to eBGP peers only; at most 16
	Communities []uint32
	Large       []LargeCommunity
	Extended    []string // RFC 4360: "rt:64500:1", "soo:64500:1"; the first number may be an IPv4 address
}

// An Override is what some peers hear of a route instead.
type Override struct {
	Peers   []netip.Prefix // peers whose address is in one of these; never empty
	Deny    bool           // they do not hear of it
	NextHop netip.Addr     // zero = the Route's
	Attributes
}

// Standing is how much a node wants the traffic of a route now.
type Standing uint8

// The standings. Each is told to eBGP peers by a longer path, a higher MED and the community, to iBGP peers by
// LOCAL_PREF, since they would take our own ASN in a path for a loop.
const (
	Preferred Standing = iota // as configured
	Standby                   // another site should be taken while it has the route
	Leaving                   // about to be withdrawn: as Standby, and says GRACEFUL_SHUTDOWN (RFC 8326)
)

// Depreference is how Standby and Leaving are told. The zero Depreference stands for DefaultDepreference.
type Depreference struct {
	Prepend   int    // added to the path to eBGP peers
	MED       uint32 // added
	LocalPref uint32 // to iBGP peers, of Standby; Leaving says 1
}

// DefaultDepreference is long enough to lose against any usual path of another site.
var DefaultDepreference = Depreference{Prepend: 3, MED: 100, LocalPref: 50}

// leavingPref is the LOCAL_PREF of Leaving. RFC 8326 says 0, which GoBGP's policies cannot.
const leavingPref = 1

func (a Attributes) equal(b Attributes) bool {
	return a.MED == b.MED && a.LocalPref == b.LocalPref && a.Prepend == b.Prepend &&
		slices.Equal(a.Communities, b.Communities) && slices.Equal(a.Large, b.Large) && slices.Equal(a.Extended, b.Extended)
}

func (o Override) equal(p Override) bool {
	return slices.Equal(o.Peers, p.Peers) && o.Deny == p.Deny && o.NextHop == p.NextHop && o.Attributes.equal(p.Attributes)
}

// over returns a's numbers where it has some, else b's, and the communities of both.
func (a Attributes) over(b Attributes) Attributes {
	return Attributes{
		MED:         cmp.Or(a.MED, b.MED),
		LocalPref:   cmp.Or(a.LocalPref, b.LocalPref),
		Prepend:     cmp.Or(a.Prepend, b.Prepend),
		Communities: append(slices.Clone(a.Communities), b.Communities...),
		Large:       append(slices.Clone(a.Large), b.Large...),
		Extended:    append(slices.Clone(a.Extended), b.Extended...),
	}
}

// normalize sorts the communities and drops repeated ones. The result shares nothing with a.
func (a Attributes) normalize() Attributes {
	a.Communities = slices.Compact(sorted(a.Communities, cmp.Compare))
	a.Large = slices.Compact(sorted(a.Large, func(x, y LargeCommunity) int { return slices.Compare(x[:], y[:]) }))
	a.Extended = slices.Compact(sorted(a.Extended, strings.Compare))
	return a
}

func sorted[T any](list []T, compare func(T, T) int) []T {
	out := slices.Clone(list)
	slices.SortFunc(out, compare)
	return out
}

// check returns what is wrong with a.
func (a Attributes) check() error {
	if n := len(a.Communities) + len(a.Large) + len(a.Extended); n > MaxCommunities {
		return fmt.Errorf("%d communities, at most %d", n, MaxCommunities)
	}
	if a.Prepend < 0 || a.Prepend > MaxPrepend {
		return fmt.Errorf("prepend %d is not 0 to %d", a.Prepend, MaxPrepend)
	}
	for _, x := range a.Extended {
		if err := CheckExtended(x); err != nil {
			return err
		}
	}
	return nil
}

// CheckExtended returns what is wrong with an extended community.
func CheckExtended(text string) error {
	parts := strings.Split(text, ":")
	if len(parts) != 3 || parts[0] != "rt" && parts[0] != "soo" {
		return fmt.Errorf(`%q is not an extended community: write "rt:ASN:number" or "soo:ASN:number"`, text)
	}
	bits := 16 // of the number, after a 4-byte ASN or an address
	if admin, err := strconv.ParseUint(parts[1], 10, 32); err == nil {
		if admin < 1<<16 {
			bits = 32
		}
	} else if a, err := netip.ParseAddr(parts[1]); err != nil || !a.Is4() {
		return fmt.Errorf("%q: %q is neither an ASN nor an IPv4 address", text, parts[1])
	}
	if _, err := strconv.ParseUint(parts[2], 10, bits); err != nil {
		return fmt.Errorf("%q: the last number has at most %d bits", text, bits)
	}
	return nil
}

// checkOverrides returns what is wrong with what some peers hear of a route.
func checkOverrides(r Route) error {
	if len(r.To) > MaxOverrides {
		return fmt.Errorf("%d overrides, at most %d", len(r.To), MaxOverrides)
	}
	for _, o := range r.To {
		if len(o.Peers) == 0 {
			return errors.New("an override names no peer")
		}
		if o.NextHop.IsValid() && (o.NextHop.Is4() != r.Prefix.Addr().Is4() || !usable(o.NextHop)) {
			return fmt.Errorf("next hop %s does not fit the prefix", o.NextHop)
		}
		if err := o.check(); err != nil {
			return err
		}
	}
	return nil
}

// path is what the engine announces of a resolved route: for every peer its own attributes, peers that hear the same
// together.
func (c Config) path(r Route, peers []Peer) engine.Path {
	out := engine.Path{Prefix: r.Prefix}
	for _, p := range peers {
		a, ok := c.export(r, p)
		if !ok {
			continue
		}
		same := slices.IndexFunc(out.Exports, func(x engine.Export) bool { return x.Attributes.Equal(a) })
		if same < 0 {
			out.Exports = append(out.Exports, engine.Export{Attributes: a})
			same = len(out.Exports) - 1
		}
		x := &out.Exports[same]
		x.Neighbors = append(x.Neighbors, p.key())
	}
	return out
}

// export is what one peer hears of a route; ok is false if nothing.
func (c Config) export(r Route, p Peer) (a engine.Attributes, ok bool) {
	hop, said := r.NextHop, r.over(p.Attributes)
	for i := range r.To {
		o := &r.To[i]
		if !o.meant(p) {
			continue
		}
		if o.Deny {
			return engine.Attributes{}, false
		}
		if o.NextHop.IsValid() {
			hop = o.NextHop
		}
		said = o.over(said)
		break // the first one counts
	}
	internal := p.ASN == c.ASN
	d := c.Depreference
	if d == (Depreference{}) {
		d = DefaultDepreference
	}
	if r.Standing != Preferred {
		said.Prepend = min(said.Prepend+d.Prepend, MaxPrepend)
		said.MED += min(d.MED, 1<<32-1-said.MED)
		said.LocalPref = d.LocalPref
	}
	if r.Standing == Leaving {
		said.LocalPref = leavingPref
		said.Communities = append(said.Communities, GracefulShutdown)
	}
	if r.LocalOnly {
		said.Communities = append(said.Communities, NoExport)
	}
	if internal {
		said.Prepend = 0
	} else {
		said.LocalPref = 0
	}
	said = said.normalize()
	return engine.Attributes{
		NextHop: hop, MED: said.MED, LocalPref: said.LocalPref, Prepend: said.Prepend,
		Communities: said.Communities, Large: said.Large, Extended: said.Extended,
	}, true
}

// meant reports whether an override is for p.
func (o *Override) meant(p Peer) bool {
	return slices.ContainsFunc(o.Peers, func(in netip.Prefix) bool {
		return in.Bits() <= p.key().Bits() && in.Contains(p.key().Addr())
	})
}

// wellKnown are the communities with names.
var wellKnown = map[uint32]string{
	GracefulShutdown: "graceful-shutdown", Blackhole: "blackhole", NoExport: "no-export", NoAdvertise: "no-advertise",
	NoExportSubconfed: "no-export-subconfed", NoPeer: "no-peer",
}

// CommunityTexts writes communities of all kinds as people do.
func CommunityTexts(standard []uint32, large []LargeCommunity, extended []string) (out []string) {
	for _, c := range standard {
		if name, ok := wellKnown[c]; ok {
			out = append(out, name)
			continue
		}
		out = append(out, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
	}
	for _, l := range large {
		out = append(out, fmt.Sprintf("%d:%d:%d", l[0], l[1], l[2]))
	}
	return append(out, extended...)
}
