package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// HTTPListener forwards requests by host, path and conditions.
type HTTPListener struct {
	Routes []Route // in file order
	Idle   time.Duration
	HTTP3  bool // on the UDP port of the same number; only with TLS
	// TrustedProxies are believed about the client, in TrustedHeader: "x-forwarded-for" or "forwarded".
	TrustedProxies []netip.Prefix
	TrustedHeader  string
	// XForwarded and Forwarded are what backends are told: "append", "set" or "none".
	XForwarded, Forwarded string
	RequestID             string // a header; "" = none
	Errors                []ErrorPage
	AcceptProxy           []netip.Prefix // sources that begin with a PROXY header
	Limits                HTTPLimits
	Times                 HTTPTimes
	AccessLog             *AccessLog // nil = none
}

// HTTPLimits are what an HTTP listener takes; 0 = no limit, but for what has a default.
type HTTPLimits struct {
	HeaderBytes, HeaderFields, URI, Body, MinRate int
	Requests, ClientRequests, ClientConnections   int
	ClientIPv4, ClientIPv6, Clients, Streams      int
}

// HTTPTimes are how long things may take on an HTTP listener; 0 of Request = as long as it takes.
type HTTPTimes struct{ Header, Body, Write, Connect, Response, Tunnel, Request time.Duration }

// RouteLimits are what a route takes; 0 = no limit, or the listener's.
type RouteLimits struct{ Requests, Body int }

// An AccessLog is where requests are written down. File has been joined to the folder of
// the configuration, but for "-", and not been opened.
type AccessLog struct {
	File   string
	Format string // "json", "common" or "combined"
	Sample float64
	Query  bool
}

// An ErrorPage is shown instead of errors of pharos itself. Its files have been joined to
// the folder of the configuration, and not been read: they are there on the nodes only.
type ErrorPage struct {
	Statuses   []int // nil = all others
	HTML, JSON string
}

// A Route sends requests somewhere. Exactly one of Service, Split, Redirect and Respond is set.
type Route struct {
	Name           string
	Host           string // exact, or "*.example.com"; "" = any
	Path           string // prefix on whole segments; default "/"; "" with Exact or Pattern
	Exact          string // the whole path; "" = not so
	Pattern        string // RE2, of the whole path; "" = not so
	Methods        []string
	Headers, Query []Condition
	Clients        []netip.Prefix

	Service  string
	Split    *Split
	Redirect *Redirect
	Respond  *Respond

	Rewrite                         Rewrite
	RequestHeaders, ResponseHeaders HeaderEdit
	Errors                          []ErrorPage
	Limits                          RouteLimits
}

// A Condition is on a header field or a parameter. At most one of its texts is set.
type Condition struct {
	Name                   string
	Value, Prefix, Pattern string
	Absent                 bool // with no text: false means that it is there
}

// A Split shares requests out between services.
type Split struct {
	Key, KeyName string // as in Balance
	Shares       []Share
}

// A Share is the part of one service.
type Share struct {
	Service string
	Weight  int
}

// A Redirect is where clients are sent; what is not set stays as asked.
type Redirect struct {
	Status       int
	Scheme, Host string
	Port         int
	Path, Prefix string
	DropQuery    bool
}

// A Respond is a fixed answer.
type Respond struct {
	Status            int
	ContentType, Body string
}

// A Rewrite is what backends are asked instead.
type Rewrite struct{ Host, Path, Prefix string }

// A HeaderEdit changes header fields.
type HeaderEdit struct {
	Set, Add []Header
	Remove   []string
}

// Services returns the services that a route sends requests to.
func (r *Route) Services() []string {
	switch {
	case r.Split != nil:
		out := make([]string, len(r.Split.Shares))
		for i, s := range r.Split.Shares {
			out[i] = s.Service
		}
		return out
	case r.Service != "":
		return []string{r.Service}
	}
	return nil
}

// IsPlain reports whether the route takes requests by host and path prefix alone, and
// hands them to one service as they came.
func (r *Route) IsPlain() bool {
	return r.Service != "" && r.Exact == "" && r.Pattern == "" && r.Rewrite == (Rewrite{}) &&
		len(r.Methods)+len(r.Headers)+len(r.Query)+len(r.Clients) == 0
}

func (b *builder) buildHTTP(at *value, serve func(string) string) *HTTPListener {
	l := &HTTPListener{
		Idle:           get[time.Duration](at, "idle"),
		HTTP3:          get[bool](at, "http3"),
		TrustedProxies: each[netip.Prefix](at.list("trusted_proxies")),
		TrustedHeader:  get[string](at, "trusted_header"),
		XForwarded:     get[string](at, "x_forwarded"),
		Forwarded:      get[string](at, "forwarded"),
		RequestID:      get[string](at, "request_id"),
		Errors:         b.errorPages(at),
		AcceptProxy:    each[netip.Prefix](at.list("accept_proxy")),
		Limits:         buildHTTPLimits(at.section("limits")),
		Times:          buildHTTPTimes(at.section("times")),
		AccessLog:      b.buildAccessLog(at.entry("access_log")),
	}
	seen := make(map[string]bool)
	for _, item := range at.list("routes") {
		route := b.buildRoute(item, serve)
		if item.sound("host", "path", "exact", "pattern") && item.entry("methods").isRead() && item.entry("headers").isRead() &&
			item.entry("query").isRead() && item.entry("clients").isRead() {
			key := route.conditions()
			if seen[key] {
				b.refuse(item, refuse("a route for %s%s is already in this listener", cmp.Or(route.Host, "every host "),
					cmp.Or(route.Path, route.Exact, route.Pattern)))
			}
			seen[key] = true
		}
		l.Routes = append(l.Routes, route)
	}
	return l
}

func buildHTTPLimits(at *value) HTTPLimits {
	return HTTPLimits{
		HeaderBytes: get[int](at, "header_bytes"), HeaderFields: get[int](at, "header_fields"), URI: get[int](at, "uri"),
		Body: get[int](at, "body"), MinRate: get[int](at, "min_rate"), Requests: get[int](at, "requests"),
		ClientRequests: get[int](at, "client_requests"), ClientConnections: get[int](at, "client_connections"),
		ClientIPv4: get[int](at, "client_ipv4"), ClientIPv6: get[int](at, "client_ipv6"),
		Clients: get[int](at, "clients"), Streams: get[int](at, "streams"),
	}
}

func buildHTTPTimes(at *value) HTTPTimes {
	d := func(key string) time.Duration { return get[time.Duration](at, key) }
	return HTTPTimes{
		Header: d("header"), Body: d("body"), Write: d("write"), Connect: d("connect"), Response: d("response"),
		Tunnel: d("tunnel"), Request: d("request"),
	}
}

func (b *builder) buildAccessLog(at *value) *AccessLog {
	if at == nil {
		return nil
	}
	a := &AccessLog{Format: formatJSON, Sample: defaultSample}
	name, short := at.data.(string)
	if !short {
		name = get[string](at, "file")
		a.Format, a.Sample, a.Query = get[string](at, "format"), get[float64](at, "sample"), get[bool](at, "query")
	}
	if a.File = name; name != "" && name != "-" {
		a.File = b.resolve(name)
	}
	return a
}

// isRead reports whether everything in a value was read, or it is absent.
func (v *value) isRead() bool {
	if v == nil {
		return true
	}
	bad := func(v *value) bool { return !v.isRead() }
	return (v.entries != nil || v.items != nil || v.data != nil) && !slices.ContainsFunc(v.entries, bad) && !slices.ContainsFunc(v.items, bad)
}

// conditions is the same for routes that take the same requests.
func (r *Route) conditions() string {
	methods := slices.Sorted(slices.Values(r.Methods))
	byName := func(a, b Condition) int { return strings.Compare(a.Name, b.Name) }
	headers, query := slices.Clone(r.Headers), slices.SortedFunc(slices.Values(r.Query), byName)
	for i := range headers {
		headers[i].Name = strings.ToLower(headers[i].Name)
	}
	slices.SortFunc(headers, byName)
	clients := slices.SortedFunc(slices.Values(r.Clients), netip.Prefix.Compare)
	path := r.Path
	if trimmed := strings.TrimRight(path, "/"); trimmed != "" {
		path = trimmed
	}
	text := fmt.Sprintf("%q %q %q %q %q %v", r.Host, path, r.Exact, r.Pattern, methods, clients)
	for _, list := range [][]Condition{headers, query} {
		text += ";"
		for _, c := range list {
			text += fmt.Sprintf(" %q %q %q %q %t", c.Name, c.Value, c.Prefix, c.Pattern, c.Absent)
		}
	}
	return text
}

func (b *builder) buildRoute(at *value, serve func(string) string) Route {
	r := Route{
		Name: get[string](at, "name"), Host: get[string](at, "host"), Path: get[string](at, "path"),
		Exact: get[string](at, "exact"), Pattern: get[string](at, "pattern"),
		Methods: each[string](at.list("methods")), Clients: each[netip.Prefix](at.list("clients")),
		Headers: conditionsOf(at.entry("headers")), Query: conditionsOf(at.entry("query")),
		RequestHeaders: editOf(at.entry("request_headers")), ResponseHeaders: editOf(at.entry("response_headers")),
		Errors: b.errorPages(at),
		Limits: RouteLimits{Requests: get[int](at.section("limits"), "requests"), Body: get[int](at.section("limits"), "body")},
	}
	if at.entry("exact") != nil || at.entry("pattern") != nil {
		r.Path = ""
	}
	for _, key := range []string{"path", "exact"} {
		if p := get[string](at, key); at.given(key) {
			b.refusePath(at.entry(key), p)
		}
	}
	if at.entry("service") != nil {
		r.Service = serve(get[string](at, "service"))
	}
	if split := at.entry("split"); split != nil {
		r.Split = b.buildSplit(split, serve)
	}
	if to := at.entry("redirect"); to != nil {
		r.Redirect = b.buildRedirect(at, to)
	}
	if answer := at.entry("respond"); answer != nil {
		r.Respond = &Respond{
			Status: get[int](answer, "status"), ContentType: get[string](answer, "content_type"), Body: get[string](answer, "body"),
		}
	}
	if rw := at.entry("rewrite"); rw != nil {
		r.Rewrite = Rewrite{Host: get[string](rw, "host"), Path: get[string](rw, "path"), Prefix: get[string](rw, "prefix")}
		b.checkReplacement(at, rw)
		if at.entry("redirect") != nil || at.entry("respond") != nil {
			b.refuseKey(rw, refuse("is for requests that reach a service"))
		}
	}
	return r
}

// refusePath refuses a path that no request can have: one with dot segments or bad escapes.
func (b *builder) refusePath(at *value, path string) {
	for i := 0; i < len(path); i++ {
		if path[i] == '%' && (i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2])) {
			b.refuse(at, refuse("%q has a %% that does not begin an escape like %%20", clip(path)))
			return
		}
	}
	for _, segment := range strings.Split(path, "/") {
		dots := strings.NewReplacer("%2e", ".", "%2E", ".").Replace(segment)
		if dots == "." || dots == ".." {
			b.refuse(at, refuse("%q has the segment %q, which is refused in requests", clip(path), segment))
			return
		}
		if strings.Contains(segment, "%00") {
			b.refuse(at, refuse("%q has an escaped NUL, which is refused in requests", clip(path)))
			return
		}
	}
}

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

// checkReplacement checks path and prefix of a rewrite or redirect at a route.
func (b *builder) checkReplacement(route, at *value) {
	if prefix := at.entry("prefix"); prefix != nil {
		if route.entry("exact") != nil || route.entry("pattern") != nil {
			b.refuseKey(prefix, refuse("replaces the beginning of the path, but the route has no path: write path"))
		}
		if data, ok := prefix.data.(string); ok {
			b.refusePath(prefix, data)
		}
	}
	if path := at.entry("path"); path != nil && route.entry("pattern") == nil {
		if data, ok := path.data.(string); ok {
			b.refusePath(path, data)
		}
	}
}

func (b *builder) buildRedirect(route, at *value) *Redirect {
	r := &Redirect{
		Status: get[int](at, "status"), Scheme: get[string](at, "scheme"), Host: get[string](at, "host"), Port: get[int](at, "port"),
		Path: get[string](at, "path"), Prefix: get[string](at, "prefix"), DropQuery: get[bool](at, "drop_query"),
	}
	if at.given("status") && !slices.Contains([]int{301, 302, 303, 307, 308}, r.Status) {
		b.refuse(at.entry("status"), refuse("%d is no redirect: write 301, 302, 303, 307 or 308", r.Status))
	}
	leads := func(key string) bool { return at.entry(key) != nil || at.isMeant(key) }
	if !slices.ContainsFunc([]string{"scheme", "host", "port", "path", "prefix"}, leads) {
		b.refuse(at, refuse("leads to itself: give a scheme, host, port, path or prefix"))
	}
	b.checkReplacement(route, at)
	return r
}

func (b *builder) buildSplit(at *value, serve func(string) string) *Split {
	word := get[keyWord](at, "key")
	s := &Split{Key: cmp.Or(word.kind, "client"), KeyName: word.name}
	total := 0
	for name, item := range at.entry("services").chosen {
		weight, _ := item.data.(int)
		total += weight
		s.Shares = append(s.Shares, Share{Service: serve(name), Weight: weight})
	}
	if services := at.entry("services"); services != nil && total == 0 && len(s.Shares) > 0 &&
		!slices.ContainsFunc(services.entries, func(e *value) bool { return e.data == nil }) {
		b.refuse(services, refuse("has no weight above 0"))
	}
	return s
}

func conditionsOf(at *value) []Condition {
	var out []Condition
	for name, item := range at.chosen {
		c := Condition{Name: name}
		if short, ok := item.data.(string); ok {
			c.Value = short
		} else {
			c.Value, c.Prefix, c.Pattern = get[string](item, "value"), get[string](item, "prefix"), get[string](item, "pattern")
			c.Absent = item.given("present") && !get[bool](item, "present")
		}
		out = append(out, c)
	}
	return out
}

func editOf(at *value) HeaderEdit {
	if at == nil {
		return HeaderEdit{}
	}
	list := func(key string) []Header {
		var out []Header
		for name, item := range at.entry(key).chosen {
			text, _ := item.data.(string)
			out = append(out, Header{Name: name, Value: text})
		}
		return out
	}
	return HeaderEdit{Set: list("set"), Add: list("add"), Remove: each[string](at.list("remove"))}
}

func (b *builder) errorPages(at *value) []ErrorPage {
	var out []ErrorPage
	seen := make(map[int]bool)
	for _, item := range at.list("errors") {
		page := ErrorPage{Statuses: each[int](item.list("status")), HTML: b.fileOf(item, "html"), JSON: b.fileOf(item, "json")}
		if item.entry("html") == nil && item.entry("json") == nil && !item.isMeant("html", "json") {
			b.refuse(item, refuse("has no page: write html, json or both"))
		}
		statuses := page.Statuses
		if item.entry("status") == nil {
			statuses = []int{0}
		}
		for _, s := range statuses {
			if seen[s] {
				b.refuse(item, refuse("%s has a page already", cmp.Or(map[bool]string{true: "every other status"}[s == 0], fmt.Sprint(s))))
			}
			seen[s] = true
		}
		out = append(out, page)
	}
	return out
}
