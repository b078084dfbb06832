package health

import (
	"net/netip"
	"strings"
)

// Kind says what a Target is.
type Kind uint8

// The kinds of target.
const (
	// KindBackend is one upstream server, probed by the nodes of its own site,
	// and by others if its Vantage says so.
	KindBackend Kind = 1
	// KindVIP is a service's address at a site, probed by the nodes of other sites.
	KindVIP Kind = 2
	// KindServes is whether a site can serve a prefix, KindRoute whether it announces
	// it. Nobody probes them: the nodes of the site state what they know of themselves.
	KindServes Kind = 3
	KindRoute  Kind = 4
)

// Stated reports whether targets of this kind are statements of a site on itself: not
// probed, and worth nothing once they are old.
func (k Kind) Stated() bool { return k == KindServes || k == KindRoute }

// PrefixTarget is the target of a kind, KindServes or KindRoute, for a prefix at a site.
func PrefixTarget(k Kind, prefix netip.Prefix, site string) Target {
	return Target{Kind: k, Service: prefix.String(), Site: site, Addr: netip.AddrPortFrom(prefix.Addr(), uint16(prefix.Bits()))}
}

// A Target is one thing that is probed and judged. Targets are comparable.
type Target struct {
	Kind    Kind
	Service string
	Site    string
	Addr    netip.AddrPort
}

// String returns a stable, unique, human-readable identity:
// "web/fra/backend/10.0.1.10:8080", "web/fra/vip/198.51.100.80:443",
// "198.18.0.0/24/fra/serves" or "198.18.0.0/24/fra/route".
func (t Target) String() string {
	kind := "backend"
	switch t.Kind {
	case KindVIP:
		kind = "vip"
	case KindServes:
		return t.Service + "/" + t.Site + "/serves"
	case KindRoute:
		return t.Service + "/" + t.Site + "/route"
	}
	return t.Service + "/" + t.Site + "/" + kind + "/" + t.Addr.String()
}

// Compare orders targets by service, site, kind and address: the order of a Layout.
func (t Target) Compare(o Target) int {
	if c := strings.Compare(t.Service, o.Service); c != 0 {
		return c
	}
	if c := strings.Compare(t.Site, o.Site); c != 0 {
		return c
	}
	if t.Kind != o.Kind {
		return int(t.Kind) - int(o.Kind)
	}
	return t.Addr.Compare(o.Addr)
}

// Status is what an observer says of a target, or what the judge holds of it.
type Status uint8

// The statuses, as the two bits of a report carry them. The zero Status is
// silence: no statement, never evidence against anyone.
const (
	StatusNone    Status = 0 // not observed by this observer, or not yet
	StatusUnknown Status = 1 // observed, undecided (abstains)
	StatusUp      Status = 2
	StatusDown    Status = 3
)

// String returns "none", "unknown", "up" or "down".
func (s Status) String() string {
	switch s {
	case StatusUnknown:
		return "unknown"
	case StatusUp:
		return "up"
	case StatusDown:
		return "down"
	default:
		return "none"
	}
}
