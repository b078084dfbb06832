package l7

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// Limits bound what a listener takes. 0 is the default of each, or no limit.
type Limits struct {
	// HeaderBytes and HeaderFields bound a request's head, URI its target; at most, and by
	// default, 16 KiB, 128 and 8 KiB. 431, and 414.
	HeaderBytes, HeaderFields, URI int
	// Body bounds a request's body in bytes (413).
	Body int64
	// Requests is how many of the listener may be in work at a time (503).
	Requests int
	// ClientRequests is how many a second one client may send, with a burst of one second
	// (429); ClientConnections how many connections it may have. ClientBits4 and
	// ClientBits6 are how many bits of an address make a client (0 means 32 and 64),
	// Clients is how many are remembered (0 means forward.DefaultClients).
	ClientRequests, ClientConnections int
	ClientBits4, ClientBits6, Clients int
	// Streams is how many HTTP/2 streams a connection may have open; 0 means 128.
	Streams int
	// MinRate is how many bytes a second a request's body of known length has to come at on
	// average after a grace of 10 s (408); negative = any. 0 means DefaultMinRate.
	MinRate int
}

// Times bound how long things may take on a listener; 0 is what Options say.
type Times struct {
	// Header bounds the arrival of a request's head from its first byte, a PROXY header and
	// a TLS handshake; Body the silence of a client in a body, Write how long it may take
	// nothing of what is sent to it.
	Header, Body, Write time.Duration
	// Connect bounds one attempt to reach a backend, Response its silence.
	Connect, Response time.Duration
	// Tunnel bounds the silence of both sides after an upgrade.
	Tunnel time.Duration
	// Request bounds a request from its first byte to the end of its answer, upgraded
	// connections not; 0 = as long as it takes.
	Request time.Duration
}

// settle fills in what Options say.
func (t *Times) settle(o *Options) error {
	for _, d := range []time.Duration{t.Header, t.Body, t.Write, t.Connect, t.Response, t.Tunnel, t.Request} {
		if d < 0 {
			return errors.New("times must not be negative")
		}
	}
	t.Header, t.Body = cmp.Or(t.Header, o.HeaderTimeout), cmp.Or(t.Body, o.BodyTimeout)
	t.Write, t.Response = cmp.Or(t.Write, o.ResponseTimeout), cmp.Or(t.Response, o.ResponseTimeout)
	t.Connect, t.Tunnel = cmp.Or(t.Connect, o.Connect), cmp.Or(t.Tunnel, o.TunnelIdle)
	return nil
}

// DefaultMinRate is the slowest that a body may come, in bytes a second.
const DefaultMinRate = 128

// minRateGrace is how long a body may be slower than that.
const minRateGrace = 10 * time.Second

// RouteLimits bound what one route takes; 0 = what the listener says.
type RouteLimits struct {
	// Requests is how many may be in work at a time (503).
	Requests int
	// Body bounds a request's body in bytes (413).
	Body int64
}

// A shed is why a request was refused before it reached a backend, or broken off.
type shed uint8

const (
	shedNone shed = iota
	shedHeader
	shedURI
	shedBody
	shedHeaderTime
	shedBodyTime
	shedBodyRate
	shedRequests
	shedRoute
	shedServiceRate
	shedClientRate
	shedClientConnections
	shedRequestTime
	shedProxyTime
	shedProxyBad
	shedCount
)

var shedTexts = [shedCount]string{
	"", "header", "uri", "body", "header_time", "body_time", "body_rate", "requests", "route_requests", "service_rate",
	"client_requests", "client_connections", "request_time", "proxy_timeout", "proxy_invalid",
}

// check fills in the defaults and refuses what cannot be.
func (l *Limits) check() error {
	var errs []error
	for _, b := range []struct {
		what        string
		value       *int
		least, most int
	}{
		{"header bytes", &l.HeaderBytes, 256, forward.BufferSize},
		{"header fields", &l.HeaderFields, 1, maxFields},
		{"uri", &l.URI, 16, maxTarget},
		{"streams", &l.Streams, 1, 1000},
	} {
		if *b.value = cmp.Or(*b.value, map[string]int{"streams": maxStreams}[b.what], b.most); *b.value < b.least || *b.value > b.most {
			errs = append(errs, fmt.Errorf("limits: %s is %d, want %d … %d", b.what, *b.value, b.least, b.most))
		}
	}
	if l.Body < 0 || l.Requests < 0 || l.ClientRequests < 0 || l.ClientConnections < 0 || l.Clients < 0 {
		errs = append(errs, errors.New("limits must not be negative"))
	}
	l.MinRate = cmp.Or(l.MinRate, DefaultMinRate)
	return errors.Join(errs...)
}

// A gate is what counts against a listener's limits. It outlives reloads that leave them alone.
type gate struct {
	limits      Limits
	requests    atomic.Int64
	rate        *forward.Clients // of requests
	connections *forward.Clients
}

func newGate(l Limits) *gate {
	limits := forward.ClientLimits{Bits4: l.ClientBits4, Bits6: l.ClientBits6, Table: l.Clients}
	g := &gate{limits: l}
	limits.Rate = l.ClientRequests
	g.rate = forward.NewClients(limits, nil)
	limits.Rate, limits.Open = 0, l.ClientConnections
	g.connections = forward.NewClients(limits, nil)
	return g
}

// gates are those of the listeners, by address.
type gates struct {
	mu  sync.Mutex // guards all
	all map[netip.AddrPort]*gate
}

// get returns the gate of a listener, the one that it has if its limits are the same. Another one counts from keep on.
func (g *gates) get(address netip.AddrPort, l Limits) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	if have := g.all[address]; have != nil && have.limits == l {
		return have
	}
	return newGate(l)
}

// keep makes those in the settings the ones that there are.
func (g *gates) keep(listens []forward.Listen[settings]) {
	all := make(map[netip.AddrPort]*gate, len(listens))
	for i := range listens {
		all[listens[i].Address] = listens[i].Settings.gate
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = all
}

// admit takes a request in, or says why not. finish takes it out again.
func (w *work) admit() fault {
	g := w.set.gate
	if n := g.requests.Add(1); g.limits.Requests > 0 && n > int64(g.limits.Requests) {
		g.requests.Add(-1)
		return fault{status: 503, text: "too many requests are in work", retry: 1, shed: shedRequests}
	}
	w.gate = g
	if _, err := g.rate.Enter(w.who); err != nil {
		return fault{status: 429, text: "too many requests from this client", retry: 1, shed: shedClientRate}
	}
	return fault{}
}

// admitRoute does the same for the route that takes the request.
func (w *work) admitRoute() fault {
	x := &w.set.extras[w.rule.Index]
	w.meter = x.meter
	if n := w.meter.inFlight.Add(1); x.limits.Requests > 0 && n > int64(x.limits.Requests) {
		return fault{status: 503, text: "too many requests are in work on this route", retry: 1, shed: shedRoute}
	}
	if most := w.maxBody(); most > 0 && w.req.length > most {
		return fault{status: 413, text: "request body is too large", shed: shedBody}
	}
	return fault{}
}

// admitTo makes the request ready for a backend of a service, which takes only so many a second.
func (w *work) admitTo(service string) fault {
	if f := w.prepare(); f.bad() {
		return f
	}
	if !w.server.registry.Load().Admit(service) {
		return fault{status: 503, text: fmt.Sprintf("too many requests a second for service %q", service), retry: 1, shed: shedServiceRate}
	}
	return fault{}
}

// maxBody is how large a body may be; 0 = any size.
func (w *work) maxBody() int64 {
	if most := w.set.extras[w.rule.Index].limits.Body; most > 0 {
		return most
	}
	return w.set.gate.limits.Body
}

// tooLong says whether a head breaks a limit of its listener.
func (w *work) tooLong() fault {
	l := &w.set.gate.limits
	switch {
	case len(w.req.target) > l.URI:
		return fault{status: 414, text: "request target is too long", shed: shedURI}
	case len(w.req.fields) > l.HeaderFields:
		return fault{status: 431, text: "too many header fields", shed: shedHeader}
	}
	if l.HeaderBytes < forward.BufferSize {
		size := len(w.req.method) + len(w.req.target)
		for i := range w.req.fields {
			size += len(w.req.fields[i].name) + len(w.req.fields[i].value) + len(": \r\n")
		}
		if size > l.HeaderBytes {
			return fault{status: 431, text: "header fields are too large", shed: shedHeader}
		}
	}
	return fault{}
}

// tooSlow reports whether a body of known length of which so much has come since then
// comes too slowly.
func (w *work) tooSlow(since time.Time, got int64) bool {
	rate := int64(w.set.gate.limits.MinRate)
	took := time.Since(since)
	return rate > 0 && took > minRateGrace && got < rate*int64(took/time.Second)
}

// admitConn counts a connection of its client, and returns what takes it back; false if
// the client has too many.
func (s *Server) admitConn(c *forward.Conn[settings], e netip.Addr) (leave func(), ok bool) {
	table := c.Settings().gate.connections
	counted, err := table.Enter(e)
	switch {
	case err != nil:
		s.metrics.shed[shedClientConnections].Add(1)
		return nil, false
	case !counted:
		return func() {}, true
	}
	return func() { table.Leave(e) }, true
}
