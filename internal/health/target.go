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
)

// A Target is one thing that is probed and judged. Targets are comparable.
type Target struct {
	Kind    Kind
	Service string
	Site    string
	Addr    netip.AddrPort
}

// String returns a stable, unique, human-readable identity:
// "web/fra/backend/10.0.1.10:8080" or "web/fra/vip/198.51.100.80:443".
func (t Target) String() string {
	kind := "backend"
	if t.Kind == KindVIP {
		kind = "vip"
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
