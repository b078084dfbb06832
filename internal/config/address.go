package config

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// address is one unicast IP address.
func address(noun string) *scalar {
	return &scalar{noun: noun, kind: kindString, example: "198.51.100.11", read: func(s string) (any, *problem) {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			p := refuse("%q is not an IP address: write %s like 198.51.100.11 or \"2001:db8::11\"", clip(s), noun)
			if ap, err := netip.ParseAddrPort(s); err == nil {
				p.message = refuse("%q has a port: write %s without one", clip(s), noun).message
				p.try(ap.Addr().String())
			} else if prefix, err := netip.ParsePrefix(s); err == nil {
				p.message = refuse("%q is a prefix: write %s without the length", clip(s), noun).message
				p.try(prefix.Addr().String())
			}
			return nil, p
		}
		if p := refuseAddress(addr); p != nil {
			return nil, p
		}
		return addr, nil
	}}
}

// refuseAddress says why an address cannot be one machine's.
func refuseAddress(addr netip.Addr) *problem {
	switch {
	case addr.Zone() != "":
		return refuse("%s has a zone: addresses are the same on every node", addr)
	case addr.Is4In6():
		return refuse("%s is an IPv4 address written as IPv6", addr).try(addr.Unmap().String())
	case addr.IsUnspecified():
		return refuse("%s is every address, not one", addr)
	case addr.IsMulticast():
		return refuse("%s is a multicast address", addr)
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return refuse("%s is the broadcast address", addr)
	}
	return nil
}

// addressPort is where a backend listens.
func addressPort() *scalar {
	return &scalar{noun: "a backend", kind: kindString, example: "10.0.1.10:8080", read: func(s string) (any, *problem) {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			if addr, err := netip.ParseAddr(s); err == nil {
				return nil, refuse("%q has no port: write address:port", clip(s)).try(netip.AddrPortFrom(addr, 80).String())
			}
			return nil, refuse("%q is not address:port: write an IP address and a port like 10.0.1.10:8080 or \"[2001:db8::10]:8080\" (names are not resolved)", clip(s))
		}
		if p := refuseAddress(ap.Addr()); p != nil {
			return nil, p
		}
		if ap.Port() == 0 {
			return nil, refuse("port 0 is out of range: a port is from 1 to 65535")
		}
		return ap, nil
	}}
}

// prefix is a network, written with all host bits zero.
func prefix(noun string) *scalar {
	return &scalar{noun: noun, kind: kindString, example: "192.0.2.0/24", read: func(s string) (any, *problem) {
		return readPrefix(s, noun)
	}}
}

func readPrefix(s, noun string) (any, *problem) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
			return nil, refuse("%q has no length: write %s as address/length", clip(s), noun).
				try(netip.PrefixFrom(addr, addr.BitLen()).String())
		}
		return nil, refuse("%q is not %s: write one like 192.0.2.0/24 or \"2001:db8::/32\"", clip(s), noun)
	}
	if p.Addr().Is4In6() {
		return nil, refuse("%s is an IPv4 prefix written as IPv6", p)
	}
	if masked := p.Masked(); masked != p {
		return nil, refuse("%s has bits set beyond its length", p).try(masked.String())
	}
	return p, nil
}

// bindWords are the hosts of a Bind that are not addresses.
const (
	bindNode = "node"
	bindVIP  = "vip"
)

// bind is a place to listen. Without vips, "vip:" is refused.
func bind(noun string, vips bool) *scalar {
	forms := `":53", "192.0.2.1:53" or "node:53"`
	if vips {
		forms = `"vip:443", "node:443", ":443" or "192.0.2.1:443"`
	}
	return &scalar{noun: noun, kind: kindString, example: "node:53", read: func(s string) (any, *problem) {
		colon := strings.LastIndexByte(s, ':')
		if colon < 0 {
			p := refuse("%q is not %s: write %s", clip(s), noun, forms)
			if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65536 {
				p.try(":" + s)
			}
			return nil, p
		}
		number, err := strconv.ParseUint(s[colon+1:], 10, 16)
		if err != nil || number == 0 {
			return nil, refuse("%q is not %s: the port is from 1 to 65535", clip(s), noun)
		}
		b := Bind{Port: uint16(number)}
		switch host := s[:colon]; {
		case host == "" || host == bindNode || host == bindVIP && vips:
			b.Host = host
		case host == bindVIP:
			return nil, refuse("%q is not %s: VIPs belong to listeners; write %s", clip(s), noun, forms)
		default:
			ap, err := netip.ParseAddrPort(s)
			if err != nil {
				return nil, refuse("%q is not %s: write %s", clip(s), noun, forms)
			}
			if ap.Addr().IsUnspecified() {
				return nil, refuse("%s is every address: leave the address out", ap.Addr()).try(":" + s[colon+1:])
			}
			if p := refuseAddress(ap.Addr()); p != nil {
				return nil, p
			}
			b.Addr = ap.Addr()
		}
		return b, nil
	}}
}

// String returns the bind as it is written in the file.
func (b Bind) String() string {
	if b.Addr.IsValid() {
		return netip.AddrPortFrom(b.Addr, b.Port).String()
	}
	return b.Host + ":" + strconv.Itoa(int(b.Port))
}

// asn is an autonomous system number that may be used.
func asn() *scalar {
	const most = 4294967294
	return &scalar{
		noun: "an AS number", kind: kindInteger, least: 1, most: most,
		read: func(s string) (any, *problem) {
			n, err := strconv.ParseUint(s, 10, 32)
			switch {
			case err != nil || n < 1 || n > most || strconv.FormatUint(n, 10) != s:
				return nil, refuse("%q is not an AS number: write a whole number from 1 to %d", clip(s), uint32(most))
			case n == 23456 || n == 65535:
				return nil, refuse("AS %d is reserved", n)
			}
			return uint32(n), nil
		},
	}
}

// wellKnown are the communities with names (IANA).
var wellKnown = map[string]Community{
	"graceful-shutdown":   {65535, 0},
	"accept-own":          {65535, 1},
	"llgr-stale":          {65535, 6},
	"no-llgr":             {65535, 7},
	"blackhole":           {65535, 666},
	"no-export":           {65535, 65281},
	"no-advertise":        {65535, 65282},
	"no-export-subconfed": {65535, 65283},
	"no-peer":             {65535, 65284},
}

// community is a BGP community: a Community, a LargeCommunity or the string of an extended one.
func community() *scalar {
	return &scalar{
		noun: "a community", kind: kindString, example: "64500:100",
		pattern: `^([0-9]{1,5}:[0-9]{1,5}|[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}|(rt|soo):[0-9.]{1,15}:[0-9]{1,10}|[a-z-]+)$`,
		read:    readCommunity,
	}
}

func readCommunity(s string) (any, *problem) {
	if c, ok := wellKnown[s]; ok {
		return c, nil
	}
	parts := strings.Split(s, ":")
	switch {
	case len(parts) == 3 && (parts[0] == "rt" || parts[0] == "soo"):
		return readExtended(s, parts)
	case len(parts) == 2:
		high, errHigh := strconv.ParseUint(parts[0], 10, 16)
		low, errLow := strconv.ParseUint(parts[1], 10, 16)
		if errHigh == nil && errLow == nil && len(parts[0]) <= 5 && len(parts[1]) <= 5 {
			return Community{High: uint16(high), Low: uint16(low)}, nil
		}
	case len(parts) == 3:
		var c LargeCommunity
		for i, part := range parts {
			n, err := strconv.ParseUint(part, 10, 32)
			if err != nil || len(part) > 10 {
				return nil, refuse("%q is not a large community: write three numbers from 0 to 4294967295, like \"64500:1:2\"", clip(s))
			}
			c[i] = uint32(n)
		}
		return c, nil
	}
	p := refuse("%q is not a community: write \"64500:100\", \"64500:1:2\" (large), \"rt:64500:1\" or \"soo:64500:1\" (extended), or a name like no-export", clip(s))
	if near := nearest(s, slices.Values(slices.Sorted(maps.Keys(wellKnown)))); near != "" {
		p.try(near)
	}
	return nil, p
}

// readExtended reads a route target or site of origin (RFC 4360, RFC 5668).
func readExtended(s string, parts []string) (any, *problem) {
	bits := 16 // of the number after a 4-byte ASN or an address
	if admin, err := strconv.ParseUint(parts[1], 10, 32); err == nil {
		if admin < 1<<16 {
			bits = 32
		}
	} else if a, err := netip.ParseAddr(parts[1]); err != nil || !a.Is4() {
		return nil, refuse("%q is not an extended community: %q is neither an AS number nor an IPv4 address", clip(s), clip(parts[1]))
	}
	if _, err := strconv.ParseUint(parts[2], 10, bits); err != nil {
		return nil, refuse("%q is not an extended community: after %s the number has at most %d bits", clip(s), clip(parts[1]), bits)
	}
	return s, nil
}

// String returns the community as it is written in the file.
func (c Community) String() string {
	return strconv.Itoa(int(c.High)) + ":" + strconv.Itoa(int(c.Low))
}
