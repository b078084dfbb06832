package geo

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// A holding is one prefix of an operator's network.
type holding struct {
	prefix  netip.Prefix
	network int // index into the networks, plus 1
}

// layNetworks cuts both families by the operator's prefixes: number 0 is "none",
// i+1 is networks[i]. The longest prefix wins.
func layNetworks(networks []Network) (four, six spans, err error) {
	var holdings [2][]holding
	for i, network := range networks {
		if network.Name == "" {
			return four, six, fmt.Errorf("network %d: no name", i+1)
		}
		for _, prefix := range network.Prefixes {
			prefix, err := canonical(prefix)
			if err != nil {
				return four, six, fmt.Errorf("network %q: %w", network.Name, err)
			}
			f, _, _ := keyOf(prefix.Addr())
			holdings[f] = append(holdings[f], holding{prefix, i + 1})
		}
	}
	for f := range holdings {
		if err := sortHoldings(holdings[f], networks); err != nil {
			return four, six, err
		}
	}
	return lay(v4, holdings[v4]), lay(v6, holdings[v6]), nil
}

// canonical masks a prefix and turns IPv4-mapped ones into IPv4.
func canonical(prefix netip.Prefix) (netip.Prefix, error) {
	if !prefix.IsValid() {
		return prefix, fmt.Errorf("invalid prefix %q", prefix)
	}
	if addr := prefix.Addr(); addr.Is4In6() {
		if prefix.Bits() < 96 {
			return prefix, fmt.Errorf("prefix %q: write IPv4 prefixes as IPv4", prefix)
		}
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}

// sortHoldings sorts by address, outer prefixes before those that they hold.
func sortHoldings(holdings []holding, networks []Network) error {
	slices.SortStableFunc(holdings, func(a, b holding) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	for i := 1; i < len(holdings); i++ {
		a, b := holdings[i-1], holdings[i]
		if a.prefix == b.prefix && a.network != b.network {
			return fmt.Errorf("prefix %s is in network %q and in network %q",
				a.prefix, networks[a.network-1].Name, networks[b.network-1].Name)
		}
	}
	return nil
}

// lay sweeps over nested prefixes with a stack of those that are open.
func lay(f family, holdings []holding) spans {
	type open struct {
		last   key
		number uint32
	}
	out := spans{family: f}
	var stack []open
	next, full := key{}, false // where the current run begins; past the end
	emit := func(until key, number uint32) {
		if !full && !until.less(next) {
			out.add(next, number)
			next, full = until.next(), until == f.last()
		}
	}
	closeBefore := func(first key, all bool) {
		for len(stack) > 0 {
			top := stack[len(stack)-1]
			if !all && !top.last.less(first) {
				return
			}
			emit(top.last, top.number)
			stack = stack[:len(stack)-1]
		}
	}
	for _, h := range holdings {
		_, first, last := rangeOf(h.prefix)
		closeBefore(first, false)
		if next.less(first) {
			number := uint32(0)
			if len(stack) > 0 {
				number = stack[len(stack)-1].number
			}
			emit(first.prev(), number)
		}
		stack = append(stack, open{last, uint32(h.network)})
	}
	closeBefore(key{}, true)
	if !full {
		out.add(next, 0)
	}
	out.clip()
	return out
}

// overlay puts what an operator says of a network over what the database says.
// What the database says of another country, region or continent than the
// operator's is dropped rather than mixed in.
func overlay(network Network, base Place) Place {
	p := network.Place
	p.Network = network.Name
	switch {
	case p.Country != "" && p.Country != base.Country,
		p.Continent != "" && p.Country == "" && p.Continent != base.Continent:
		base = Place{ASN: base.ASN}
	case p.Region != "" && p.Region != base.Region:
		base.Point = Point{}
	}
	if p.Country == "" {
		p.Country = base.Country
	}
	if p.Region == "" {
		p.Region = base.Region
	}
	if p.Continent == "" {
		p.Continent = base.Continent
	}
	if p.ASN == 0 {
		p.ASN = base.ASN
	}
	if p.Point.IsZero() {
		p.Point = base.Point
	}
	return derive(p)
}
