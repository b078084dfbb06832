package geo

import "net/netip"

// Prefetch has the processor fetch what Lookup will read for addresses, at most prefetchMost of them:
// one look-up after the other waits for memory three times each, and those of several addresses can wait together.
// What it returns means nothing, but keeps it from being left out. It allocates nothing.
func (t *Table) Prefetch(addrs []netip.Addr) (read uint32) {
	var middles [prefetchMost]uint32
	addrs = addrs[:min(len(addrs), len(middles))]
	for i, addr := range addrs { // nothing here waits for what a load brings, so that the next one begins meanwhile
		f, k, ok := keyOf(addr)
		switch {
		case !ok || f == v6 && k.hi-window6 >= 1<<60:
		case f == v4:
			middles[i] = (t.index4[k.lo>>16] + t.index4[k.lo>>16+1] + 1) / 2
		default:
			bucket := (k.hi - window6) >> shift6
			middles[i] = (t.index6[bucket] + t.index6[bucket+1] + 1) / 2
		}
	}
	for i, addr := range addrs {
		at := int(middles[i])
		if addr.Is4() || addr.Is4In6() {
			read ^= t.four.short[at] ^ t.four.values.at(at)
		} else if addr.Is6() {
			read ^= uint32(t.six.hi[at]) ^ t.six.values.at(at)
		}
	}
	return read
}

// prefetchMost bounds the addresses of one call of Prefetch; what is beyond waits for memory.
const prefetchMost = 32
