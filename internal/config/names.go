package config

import (
	"net/netip"
	"strconv"
	"strings"
)

const (
	maxDNSLabel = 63  // bytes
	maxDNSName  = 254 // characters with the last dot: 255 bytes on the wire (RFC 1035)
)

// refuseName says why a name, without its last dot, is not a DNS host name. A
// "*" is allowed as the first label with wild.
func refuseName(name string, wild bool) *problem {
	if name == "" {
		return refuse("is empty: write a DNS name")
	}
	if len(name)+1 > maxDNSName {
		return refuse("%q is too long: a DNS name has at most %d characters", clip(name), maxDNSName-1)
	}
	for i, part := range strings.Split(name, ".") {
		switch {
		case part == "":
			return refuse("%q is not a DNS name: two dots have nothing between them", clip(name))
		case len(part) > maxDNSLabel:
			return refuse("%q is not a DNS name: the part %q has more than %d characters", clip(name), clip(part), maxDNSLabel)
		case part == "*":
			if i > 0 {
				return refuse("%q is not a DNS name: * is only allowed as the first label", clip(name))
			}
			if !wild {
				return refuse("%q has a *, which is not allowed here", clip(name))
			}
		case part[0] == '-' || part[len(part)-1] == '-':
			return refuse("%q is not a DNS name: the part %q begins or ends with a hyphen", clip(name), part)
		default:
			for _, r := range part {
				if r >= 0x80 {
					return refuse("%q is not a DNS name: write international names in their xn-- form", clip(name))
				}
				if !isNameByte(byte(r)) {
					return refuse("%q is not a DNS name: %q is not a letter, digit, hyphen or underscore", clip(name), r)
				}
			}
		}
	}
	return nil
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// dnsName is a fully qualified name, with or without its last dot; it reads as
// lower case with the dot.
func dnsName(noun string, wild bool) *scalar {
	return &scalar{noun: noun, kind: kindString, example: "www.example.com", read: func(s string) (any, *problem) {
		name := strings.TrimSuffix(s, ".")
		if p := refuseName(name, wild); p != nil {
			return nil, p
		}
		return strings.ToLower(name) + ".", nil
	}}
}

// relativeName is a name inside a zone as the operator writes it; resolveName
// completes it.
func relativeName() *scalar {
	return &scalar{noun: "a name in the zone", kind: kindString, example: "www", read: func(s string) (any, *problem) {
		if s == "@" {
			return s, nil
		}
		if p := refuseName(strings.TrimSuffix(s, "."), true); p != nil {
			return nil, p
		}
		return strings.ToLower(s), nil
	}}
}

// resolveName returns the fully qualified name of a relativeName in a zone.
func resolveName(name, zone string) (string, *problem) {
	if name == "@" {
		return zone, nil
	}
	if strings.HasSuffix(name, ".") {
		if !within(name, zone) {
			return "", refuse("%s is not in the zone %s", plainName(name), plainName(zone))
		}
		return name, nil
	}
	if within(name+".", zone) {
		short := strings.TrimSuffix(strings.TrimSuffix(name+".", zone), ".")
		if short == "" {
			short = "@"
		}
		return "", refuse("names are relative to their zone: this would be %s.%s", plainName(name), plainName(zone)).try(short)
	}
	full := name + "." + zone
	if len(full) > maxDNSName {
		return "", refuse("%q is too long: a DNS name has at most %d characters", clip(full), maxDNSName-1)
	}
	return full, nil
}

// plainName writes a fully qualified name as an operator would.
func plainName(fqdn string) string { return clip(strings.TrimSuffix(fqdn, ".")) }

// within reports whether a fully qualified name is the zone or below it.
func within(name, zone string) bool {
	return name == zone || strings.HasSuffix(name, "."+zone)
}

// nodeName is a node's name: usually its host name.
func nodeName() *scalar {
	return &scalar{
		noun: "a node's name", kind: kindString, pattern: `^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`,
		read: func(s string) (any, *problem) {
			ok := len(s) > 0 && len(s) <= 63 && isAlphanumeric(s[0]) && isAlphanumeric(s[len(s)-1])
			for _, c := range []byte(s) {
				ok = ok && (isAlphanumeric(c) || c == '.' || c == '-')
			}
			if !ok {
				p := refuse("%q is not a node's name: 1 to 63 lower-case letters, digits, dots and hyphens", clip(s))
				if lower := strings.ToLower(s); lower != s {
					p.try(lower)
				}
				return nil, p
			}
			return s, nil
		},
	}
}

func isAlphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || isDigit(c) }

// routeHost is a Host header to match: exact, or *.example.com.
func routeHost() *scalar {
	return &scalar{noun: "a host", kind: kindString, example: "www.example.com", read: func(s string) (any, *problem) {
		if host, _, ok := strings.Cut(s, ":"); ok {
			return nil, refuse("%q has a port: hosts are matched without it", clip(s)).try(host)
		}
		if s == "*" {
			return nil, refuse("* matches nothing: leave host out to match every host")
		}
		if strings.HasSuffix(s, ".") {
			return nil, refuse("%q ends with a dot: hosts are matched without it", clip(s)).try(strings.TrimSuffix(s, "."))
		}
		if p := refuseName(s, true); p != nil {
			return nil, p
		}
		return strings.ToLower(s), nil
	}}
}

// urlPath is a path that begins with a slash. A check may add a query.
func urlPath(noun string, query bool) *scalar {
	return &scalar{noun: noun, kind: kindString, pattern: `^/`, example: "/healthz", read: func(s string) (any, *problem) {
		switch {
		case !strings.HasPrefix(s, "/"):
			return nil, refuse("%q does not begin with /", clip(s)).try("/" + s)
		case len(s) > maxURL:
			return nil, refuse("is %d bytes long: %s has at most %d", len(s), noun, maxURL)
		case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
			return nil, refuse("%q has a space or a character outside ASCII: write it percent-encoded", clip(s))
		case strings.Contains(s, "#"), !query && strings.Contains(s, "?"):
			return nil, refuse("%q is more than a path: leave out what follows # or ?", clip(s))
		}
		return s, nil
	}}
}

// headerName is a header field that a check may send.
func headerName() *scalar {
	return &scalar{
		noun: "a header", kind: kindString, pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$", example: "X-Probe",
		read: func(s string) (any, *problem) {
			if s == "" || len(s) > 100 || strings.ContainsFunc(s, func(r rune) bool {
				return r >= 0x80 || !isNameByte(byte(r)) && !strings.ContainsRune("!#$%&'*+.^`|~", r)
			}) {
				return nil, refuse("%q is not a header: write a name like X-Probe", clip(s))
			}
			switch strings.ToLower(s) {
			case "host":
				return nil, refuse("%s is not set here: write it as host beside headers", s)
			case "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer":
				return nil, refuse("%s is the connection's own and cannot be set", s)
			}
			return s, nil
		},
	}
}

// checkHost is a host name or an address that a check sends.
func checkHost() *scalar {
	return &scalar{noun: "a host", kind: kindString, example: "www.example.com", read: func(s string) (any, *problem) {
		if _, err := netip.ParseAddr(s); err == nil {
			return s, nil
		}
		host, number, hasPort := strings.Cut(s, ":")
		if n, err := strconv.ParseUint(number, 10, 16); hasPort && (err != nil || n == 0) {
			return nil, refuse("%q is not a host: the port is from 1 to 65535", clip(s))
		}
		if p := refuseName(strings.TrimSuffix(host, "."), false); p != nil {
			return nil, p
		}
		return s, nil
	}}
}

// statusRange is an HTTP status code, or two with a hyphen.
func statusRange() *scalar {
	return &scalar{
		noun: "a status code", kind: kindAny, least: 100, most: 599, pattern: `^[1-5][0-9]{2}(-[1-5][0-9]{2})?$`, example: "200-299",
		read: func(s string) (any, *problem) {
			first, last, isRange := strings.Cut(s, "-")
			if !isRange {
				last = first
			}
			from, errFrom := strconv.ParseUint(first, 10, 16)
			to, errTo := strconv.ParseUint(last, 10, 16)
			if errFrom != nil || errTo != nil || len(first) != 3 || len(last) != 3 || from < 100 || to > 599 {
				return nil, refuse("%q is not a status code: write 200, or a range like 200-299, from 100 to 599", clip(s))
			}
			if from > to {
				return nil, refuse("%q ends before it begins", s).try(last + "-" + first)
			}
			return StatusRange{From: int(from), To: int(to)}, nil
		},
	}
}
