package steer

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/pharos-lb/pharos/geo"
)

// An origin is where a question comes from: an address, whose place the geo
// data tells, or a place as such.
type origin struct {
	addr   netip.Addr   // zero if only a place was given
	source netip.Prefix // what was given around addr
	place  geo.Place
	// prefix is what the data gives the place to; zero if it was not looked up.
	prefix netip.Prefix
}

// addressOrigin looks an address up. bits is the length of the prefix that is
// known of the client, 0 for all of it.
func (t *Topology) addressOrigin(addr netip.Addr, bits int) (origin, error) {
	addr = addr.Unmap().WithZone("")
	if bits <= 0 || bits > addr.BitLen() {
		bits = addr.BitLen()
	}
	source, err := addr.Prefix(bits)
	if err != nil {
		return origin{}, fmt.Errorf("client %s: %w", addr, err)
	}
	o := origin{addr: source.Addr(), source: source}
	if t.Table != nil {
		o.place, o.prefix = t.Table.Place(o.addr)
	}
	return o, nil
}

// parseOrigin reads what config tests and `--from` may say: an address, a prefix, "DE", "US-CA",
// "continent:EU" or "network:office".
func (t *Topology) parseOrigin(text string) (origin, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return t.addressOrigin(addr, 0)
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return t.addressOrigin(prefix.Addr(), prefix.Bits())
	}
	if name, ok := strings.CutPrefix(text, "network:"); ok {
		return t.networkOrigin(name)
	}
	place, err := geo.ParsePlace(text)
	if err != nil {
		return origin{}, fmt.Errorf("%w; an address, a prefix or network:NAME will do, too", err)
	}
	return origin{place: place}, nil
}

// networkOrigin is the first address of a network that the data gives to it,
// else the network's own place.
func (t *Topology) networkOrigin(name string) (origin, error) {
	var known []string
	for i := range t.Config.Networks {
		network := &t.Config.Networks[i]
		known = append(known, network.Name)
		if network.Name != name {
			continue
		}
		for _, prefix := range network.Prefixes {
			o, err := t.addressOrigin(prefix.Addr(), prefix.Bits())
			if err == nil && o.place.Network == name {
				return o, nil
			}
		}
		place := network.Place
		place.Network = name
		return origin{place: complete(place)}, nil
	}
	return origin{}, fmt.Errorf("place %q: no such network%s", "network:"+name, didYouMean(name, known))
}

// complete fills the continent and the point of a place from its country.
func complete(place geo.Place) geo.Place {
	centre, continent, ok := geo.Country(place.Country)
	if !ok {
		return place
	}
	if place.Continent == "" {
		place.Continent = continent
	}
	if place.Point.IsZero() {
		place.Point = centre
	}
	return place
}

// orderFrom returns the order of a profile for an origin: for an address, that
// of its class, exactly as a query gets it.
func (t *Topology) orderFrom(profile int, o origin) *order {
	if o.addr.IsValid() {
		class, _ := t.Locate(o.addr)
		return t.order(profile, class)
	}
	return t.orderAt(profile, o.place)
}
