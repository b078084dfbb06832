package config

import (
	"strings"
	"time"
)

// httpKeys are what a listener of HTTP requests is told.
func httpKeys() *shape {
	return object(
		need("routes", list(routeKeys(), 1, maxRoutes),
			"Where requests go: of those that a request meets, the one with the most specific host, then path, then conditions"),
		with("idle", one(duration("idle", minIdle, maxIdle, time.Millisecond)), defaultHTTPIdle, "How long a connection may wait for its next request"),
		with("http3", one(boolean()), false, "Speak HTTP/3 too, on the UDP port of the same number, and say so in answers (Alt-Svc); needs tls"),
		may("trusted_proxies", oneOrMore(one(prefix("a source")), 1, maxSources),
			"Proxies in front: what they say of the client is believed. Nobody else's word is"),
		with("trusted_header", one(enum("a header", headerXForwardedFor, headerForwarded)), headerXForwardedFor, "What trusted proxies say it in"),
		with("x_forwarded", one(enum("a mode", modeAppend, modeSet, modeNone)), modeAppend,
			"X-Forwarded-For, -Proto, -Host and -Port to backends: append to what came, set anew, or none"),
		with("forwarded", one(enum("a mode", modeAppend, modeSet, modeNone)), modeNone, "The same for Forwarded (RFC 7239)"),
		may("request_id", one(ownField()),
			"A header, like X-Request-ID, with an id for each request: a trusted proxy's, else a new one; passed on and back. Default: none"),
		may("errors", errorKeys(), "Pages to show instead of errors of pharos itself"),
		may("accept_proxy", oneOrMore(one(prefix("a source")), 1, maxSources), "Sources whose connections begin with a PROXY header, version 1 or 2: it is demanded of them, and refused from all others"),
		may("limits", httpLimitKeys(), "What is taken"),
		may("times", httpTimeKeys(), "How long things may take"),
		may("access_log", accessLogKeys(), "Where requests are written down. Default: nowhere"),
	)
}

func httpLimitKeys() *shape {
	count := func(key string) *shape { return one(integer(key, 1, maxConnections)) }
	return object(
		with("header_bytes", one(integer("header_bytes", 256, defaultHeaderBytes)), defaultHeaderBytes, "Bytes of a request's head; more is 431"),
		with("header_fields", one(integer("header_fields", 1, defaultHeaderFields)), defaultHeaderFields, "Its fields; more is 431"),
		with("uri", one(integer("uri", 16, defaultURI)), defaultURI, "Bytes of its target; more is 414"),
		may("body", one(integer("body", 1, maxRequestBody)), "Bytes of its body; more is 413. Default: any number"),
		with("min_rate", one(integer("min_rate", 0, 1_000_000_000)), defaultMinRate, "Bytes a second that a body of known length has to come at, on average, after 10 s; 408. 0: at any rate"),
		may("requests", count("requests"), "How many requests are in work at a time; one more gets 503"),
		may("client_requests", count("client_requests"), "How many requests a second one client may send, with a burst of one second; 429"),
		may("client_connections", count("client_connections"), "How many connections one client may have"),
		with("client_ipv4", one(integer("client_ipv4", 8, 32)), 32, "How many bits of an IPv4 address make a client"),
		with("client_ipv6", one(integer("client_ipv6", 16, 128)), 64, "How many bits of an IPv6 address make a client"),
		with("clients", one(integer("clients", 64, maxClients)), defaultClients, "How many clients are remembered; one that there is no room for is served and not counted"),
		with("streams", one(integer("streams", 1, 1000)), defaultStreams, "How many HTTP/2 streams a connection may have open"),
	)
}

func httpTimeKeys() *shape {
	span := func(key string, most time.Duration) *shape {
		return one(duration(key, minConnect, most, time.Millisecond))
	}
	return object(
		with("header", span("header", time.Hour), defaultHeaderTime, "The head of a request, from its first byte; a PROXY header; a TLS handshake. 408"),
		with("body", span("body", time.Hour), defaultBodyTime, "The silence of a client in a body. 408"),
		with("write", span("write", time.Hour), defaultWriteTime, "How long a client may take nothing of what is sent to it"),
		with("connect", span("connect", maxConnect), defaultConnect, "A connection to a backend. 504"),
		with("response", span("response", maxIdle), defaultResponseTime, "The silence of a backend. 504"),
		with("tunnel", span("tunnel", maxIdle), defaultTunnelTime, "The silence of both sides of an upgraded connection"),
		may("request", span("request", maxIdle), "A request from its first byte to the end of its answer, upgraded connections not; 504, or a cut. Default: as long as it takes"),
	)
}

func routeLimitKeys() *shape {
	return object(
		may("requests", one(integer("requests", 1, maxConnections)), "How many requests of the route are in work at a time; one more gets 503"),
		may("body", one(integer("body", 1, maxRequestBody)), "Bytes of a request's body; more is 413. Default: the listener's"),
	)
}

// The formats of an access log.
const (
	formatJSON     = "json"
	formatCommon   = "common"
	formatCombined = "combined"
)

func accessLogKeys() *shape {
	return object(
		need("file", one(fileName("a file", maxPath)), "The file that lines are appended to, opened anew by a reload; - is the standard output"),
		with("format", one(enum("a format", formatJSON, formatCommon, formatCombined)), formatJSON, "How a line looks"),
		with("sample", one(number("sample", 0.000001, 1)), defaultSample, "The share of requests that is written; answers of 500 and more always are"),
		with("query", one(boolean()), false, "Write queries, which may hold secrets"),
	).orShort(fileName("a file", maxPath))
}

// The words of the keys above.
const (
	headerXForwardedFor = "x-forwarded-for"
	headerForwarded     = "forwarded"

	modeAppend = "append"
	modeSet    = "set"
	modeNone   = "none"
)

func errorKeys() *shape {
	return list(object(
		may("status", oneOrMore(one(integer("status", 400, 599)), 1, maxStatuses), "The statuses that it is for. Default: all that have no page of their own"),
		may("html", one(fileName("a file", maxPath)), "A file for clients that accept HTML; {status}, {reason}, {detail} and {request_id} stand for what happened"),
		may("json", one(fileName("a file", maxPath)), "The same for clients that accept JSON"),
	), 1, maxStatuses)
}

func routeKeys() *shape {
	return object(
		may("name", one(text("a name", maxRouteName)), "What metrics and logs call the route. Default: its host and path"),
		may("host", one(routeHost()), "The Host header: exact, or *.example.com. Default: any"),
		with("path", one(urlPath("a path", false)), defaultURLPath, "The beginning of the path, in whole segments"),
		may("exact", one(urlPath("a path", false)), "The whole path, instead of its beginning"),
		may("pattern", one(expression()), "A regular expression (RE2) that the whole path matches, instead"),
		may("methods", oneOrMore(one(method()), 1, maxMethods), "The methods that are taken. Default: all"),
		may("headers", dict(matchedField(), conditionKeys(), 1, maxConditions), "Conditions on header fields, to be met all: a value, or a mapping"),
		may("query", dict(text("a parameter", maxHeader), conditionKeys(), 1, maxConditions), "The same on parameters of the query"),
		may("clients", oneOrMore(one(prefix("a source")), 1, maxSources), "Where the client may be. Default: anywhere"),
		may("service", one(serviceName()), "The service that requests go to"),
		may("split", splitKeys(), "Share requests out between services"),
		may("redirect", redirectKeys(), "Send the client elsewhere"),
		may("respond", respondKeys(), "Answer without a backend"),
		may("rewrite", rewriteKeys(), "Change what the backend is asked for"),
		may("request_headers", editKeys(), "Change header fields on the way to the backend"),
		may("response_headers", editKeys(), "Change header fields of the backend's answer"),
		may("errors", errorKeys(), "Pages that go before those of the listener"),
		may("limits", routeLimitKeys(), "What the route takes"),
	).pick("service", "split", "redirect", "respond").atMostOne("path", "exact", "pattern")
}

func conditionKeys() *shape {
	return object(
		may("value", one(text("a value", maxHeader)), "It is this"),
		may("prefix", one(text("a value", maxHeader)), "It begins like this"),
		may("pattern", one(expression()), "All of it matches this regular expression (RE2)"),
		may("present", one(boolean()), "true: it is there, with whatever value; false: it is not"),
	).pick("value", "prefix", "pattern", "present").orShort(text("a value", maxHeader))
}

func splitKeys() *shape {
	return object(
		may("key", one(hashKey()), `What a client is recognised by, to get the same service again: client (the address), flow, path, host, "header:NAME" or "cookie:NAME". Default: client`),
		need("services", dict(serviceName(), one(integer("a weight", 0, maxShare)), 1, maxConditions), "The services and their weights"),
	)
}

func redirectKeys() *shape {
	s := object(
		with("status", one(integer("status", 301, 308)), defaultRedirect, "301, 302, 303, 307 or 308"),
		may("scheme", one(enum("a scheme", "http", "https")), "Default: as asked"),
		may("host", one(plainHost()), "Default: as asked"),
		may("port", one(port()), "Default: the scheme's if scheme or host is given, else as asked"),
		may("path", one(replacement()), "What replaces the path; with pattern, $1 or ${name} stand for its groups"),
		may("prefix", one(replacement()), "What replaces the route's path at the beginning"),
		with("drop_query", one(boolean()), false, "Leave the query out"),
	).atMostOne("path", "prefix")
	return s
}

func respondKeys() *shape {
	return object(
		with("status", one(integer("status", 200, 599)), 200, "The status"),
		may("content_type", one(text("a content type", maxHeader)), "Default: plain text"),
		may("body", one(longText("a body")), "The body. Default: none"),
	)
}

func rewriteKeys() *shape {
	return object(
		may("host", one(checkHost()), "The Host header that the backend gets. Default: the client's"),
		may("path", one(replacement()), "What replaces the path; with pattern, $1 or ${name} stand for its groups"),
		may("prefix", one(replacement()), "What replaces the route's path at the beginning"),
	).atMostOne("path", "prefix")
}

func editKeys() *shape {
	value := func() *shape { return one(text("a header's value", maxHeader)) }
	return object(
		may("set", dict(ownField(), value(), 1, maxHeaders), "Fields that replace those of the same name"),
		may("add", dict(ownField(), value(), 1, maxHeaders), "Fields that are added"),
		may("remove", oneOrMore(one(ownField()), 1, maxHeaders), "Fields that are taken away"),
	)
}

const fieldPattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"

func isField(s string) bool {
	return s != "" && len(s) <= 100 && !strings.ContainsFunc(s, func(r rune) bool {
		return r >= 0x80 || !isNameByte(byte(r)) && !strings.ContainsRune("!#$%&'*+.^`|~", r)
	})
}

// matchedField is a header field that requests are told apart by.
func matchedField() *scalar {
	return &scalar{noun: "a header", kind: kindString, pattern: fieldPattern, example: "X-Canary", read: func(s string) (any, *problem) {
		if !isField(s) {
			return nil, refuse("%q is not a header: write a name like X-Canary", clip(s))
		}
		if strings.EqualFold(s, "host") {
			return nil, refuse("%s is matched by the key host, beside headers", s)
		}
		return s, nil
	}}
}

// ownField is a header field that may be changed.
func ownField() *scalar {
	return &scalar{noun: "a header", kind: kindString, pattern: fieldPattern, example: "X-Served-By", read: func(s string) (any, *problem) {
		if !isField(s) {
			return nil, refuse("%q is not a header: write a name like X-Served-By", clip(s))
		}
		switch lower := strings.ToLower(s); lower {
		case "host":
			return nil, refuse("%s is changed by rewrite: {host: NAME}", s)
		case "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect":
			return nil, refuse("%s is the connection's own and cannot be changed", s)
		case "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port":
			return nil, refuse("%s is the listener's: see its keys x_forwarded and forwarded", s)
		default:
			if strings.HasPrefix(lower, "proxy-") {
				return nil, refuse("%s is the connection's own and cannot be changed", s)
			}
		}
		return s, nil
	}}
}

// method is a request method; their case counts.
func method() *scalar {
	return &scalar{noun: "a method", kind: kindString, pattern: `^[A-Z][A-Z0-9-]{0,31}$`, example: "GET", read: func(s string) (any, *problem) {
		ok := len(s) > 0 && len(s) <= 32 && 'A' <= s[0] && s[0] <= 'Z'
		for _, c := range []byte(s) {
			ok = ok && ('A' <= c && c <= 'Z' || isDigit(c) || c == '-')
		}
		if !ok {
			p := refuse("%q is not a method: write one like GET", clip(s))
			if upper := strings.ToUpper(s); upper != s {
				p.try(upper)
			}
			return nil, p
		}
		if s == "CONNECT" || s == "TRACE" {
			return nil, refuse("%s is never forwarded", s)
		}
		return s, nil
	}}
}

// plainHost is a host name without a port.
func plainHost() *scalar {
	return &scalar{noun: "a host", kind: kindString, example: "www.example.com", read: func(s string) (any, *problem) {
		if host, _, ok := strings.Cut(s, ":"); ok {
			return nil, refuse("%q has a port: write it as port", clip(s)).try(host)
		}
		if p := refuseName(s, false); p != nil {
			return nil, p
		}
		return s, nil
	}}
}

// replacement is what a path, or its beginning, is replaced by.
func replacement() *scalar {
	return urlPath("a path", false)
}
