package l7

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/accesslog"
	"github.com/prometheus/client_golang/prometheus"
)

// latencyBounds are the buckets of the histograms, in seconds.
var latencyBounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// maxMeters is how many routes, and how many backends, are counted by name; the others
// are counted together.
const maxMeters = 1000

// otherName is what those are called.
const otherName = "other"

// A meter counts what came of requests.
type meter struct {
	inFlight atomic.Int64
	classes  [6]atomic.Uint64 // by the first digit of the status; 0 = the client got none
	buckets  [len(latencyBounds) + 1]atomic.Uint64
	sum      atomic.Int64 // nanoseconds
	up, down atomic.Int64 // bytes
}

// count adds a request.
func (m *meter) count(status int, took time.Duration, up, down int64) {
	m.classes[min(max(status/100, 0), 5)].Add(1)
	m.observe(took)
	if up > 0 {
		m.up.Add(up)
	}
	m.down.Add(down)
}

// observe adds a duration.
func (m *meter) observe(took time.Duration) {
	i, s := 0, took.Seconds()
	for i < len(latencyBounds) && s > latencyBounds[i] {
		i++
	}
	m.buckets[i].Add(1)
	m.sum.Add(int64(took))
}

// histogram returns the durations for a scrape; n is how many there are.
func (m *meter) histogram() (n uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(latencyBounds))
	for i := range m.buckets {
		n += m.buckets[i].Load()
		if i < len(latencyBounds) {
			buckets[latencyBounds[i]] = n
		}
	}
	return n, time.Duration(m.sum.Load()).Seconds(), buckets
}

// meters are those of all routes, by what they are called, and of all backends. They
// outlive reloads.
type meters struct {
	backends sync.Map // of *meter by *forward.Backend
	known    atomic.Int64
	rest     meter // of the backends beyond maxMeters

	mu     sync.Mutex // guards routes
	routes map[string]*meter
}

// route returns the meter of a route.
func (m *meters) route(title string) *meter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.routes == nil {
		m.routes = make(map[string]*meter)
	}
	if have := m.routes[title]; have != nil {
		return have
	}
	if len(m.routes) >= maxMeters {
		title = otherName
		if have := m.routes[title]; have != nil {
			return have
		}
	}
	m.routes[title] = new(meter)
	return m.routes[title]
}

// keepRoutes forgets the routes that are in none of the settings.
func (m *meters) keepRoutes(listens []forward.Listen[settings]) {
	used := make(map[*meter]bool)
	for i := range listens {
		for k := range listens[i].Settings.extras {
			used[listens[i].Settings.extras[k].meter] = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for title, have := range m.routes {
		if !used[have] {
			delete(m.routes, title)
		}
	}
}

// backend returns the meter of a backend.
func (m *meters) backend(b *forward.Backend) *meter {
	if have, ok := m.backends.Load(b); ok {
		return have.(*meter)
	}
	if m.known.Load() >= maxMeters {
		return &m.rest
	}
	have, loaded := m.backends.LoadOrStore(b, new(meter))
	if !loaded {
		m.known.Add(1)
	}
	return have.(*meter)
}

// sweep forgets backends that are not known any more.
func (m *meters) sweep() {
	m.backends.Range(func(key, _ any) bool {
		if key.(*forward.Backend).Retired() {
			m.backends.Delete(key)
			m.known.Add(-1)
		}
		return true
	})
}

var (
	descRequests = prometheus.NewDesc("pharos_l7_requests_total",
		"Requests that a route took, by the class of the answer's status; none: the client got no answer.", []string{"route", "class"}, nil)
	descDuration = prometheus.NewDesc("pharos_l7_request_duration_seconds",
		"From a request's first byte to the end of its answer, by route.", []string{"route"}, nil)
	descRequestBytes = prometheus.NewDesc("pharos_l7_request_body_bytes_total",
		"Bytes of request bodies, by route.", []string{"route"}, nil)
	descResponseBytes = prometheus.NewDesc("pharos_l7_response_bytes_total",
		"Bytes sent to clients, by route.", []string{"route"}, nil)
	descRouteInFlight = prometheus.NewDesc("pharos_l7_inflight_requests",
		"Requests in work, by route.", []string{"route"}, nil)
	descBackend = prometheus.NewDesc("pharos_l7_backend_duration_seconds",
		"From a request's being sent to the head of the backend's answer.", []string{"service", "backend"}, nil)
	descRefused = prometheus.NewDesc("pharos_l7_refused_requests_total",
		"Requests and connections that broke a limit.", []string{"reason"}, nil)
)

// collect sends what the meters say. Routes without requests are left out.
func (m *meters) collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	routes := make(map[string]*meter, len(m.routes))
	for title, one := range m.routes {
		routes[title] = one
	}
	m.mu.Unlock()
	for title, one := range routes {
		n, sum, buckets := one.histogram()
		if n == 0 && one.inFlight.Load() == 0 {
			continue
		}
		ch <- prometheus.MustNewConstHistogram(descDuration, n, sum, buckets, title)
		for i := range one.classes {
			if count := one.classes[i].Load(); count > 0 {
				class := "none"
				if i > 0 {
					class = strconv.Itoa(i) + "xx"
				}
				ch <- prometheus.MustNewConstMetric(descRequests, prometheus.CounterValue, float64(count), title, class)
			}
		}
		ch <- prometheus.MustNewConstMetric(descRequestBytes, prometheus.CounterValue, float64(one.up.Load()), title)
		ch <- prometheus.MustNewConstMetric(descResponseBytes, prometheus.CounterValue, float64(one.down.Load()), title)
		ch <- prometheus.MustNewConstMetric(descRouteInFlight, prometheus.GaugeValue, float64(one.inFlight.Load()), title)
	}
	m.backends.Range(func(key, value any) bool {
		b := key.(*forward.Backend)
		if b.Retired() { // there may be another of that name by now
			return true
		}
		n, sum, buckets := value.(*meter).histogram()
		ch <- prometheus.MustNewConstHistogram(descBackend, n, sum, buckets, b.Service(), b.Address().String())
		return true
	})
	if n, sum, buckets := m.rest.histogram(); n > 0 {
		ch <- prometheus.MustNewConstHistogram(descBackend, n, sum, buckets, otherName, otherName)
	}
}

// finish counts and logs a request that has come to its end, whatever that was.
func (w *work) finish() {
	if w.gate != nil {
		w.gate.requests.Add(-1)
	}
	if w.meter != nil {
		w.meter.inFlight.Add(-1)
	}
	if w.status == 0 && w.ask.Method == nil {
		return // nothing that could be called a request
	}
	took := time.Since(w.since)
	if w.meter != nil {
		w.meter.count(w.status, took, w.upBytes, w.downBytes)
	}
	if log := w.set.log; log != nil && (log.sample >= 1 || w.status >= 500 || rand.Float64() < log.sample) {
		w.record(log, took)
	}
}

// record writes the request to the access log.
func (w *work) record(log *accessLog, took time.Duration) {
	e := accesslog.Entry{
		Time: w.since, Took: took, Client: w.who, Peer: w.ends.peer.Addr(),
		Method: w.ask.Method, Target: w.ask.Path, Host: w.ask.Host, Proto: "HTTP/1.1",
		Status: w.status, Up: w.upBytes, Down: w.downBytes,
		Listener: w.set.name, Service: w.service, Backend: w.backend, RequestID: w.requestID, Trouble: w.trouble,
		Referer: w.referer, UserAgent: w.agent,
	}
	if w.ask.Method == nil { // it was refused before it was understood
		e.Line, e.Proto = w.line, ""
	}
	if !w.kept {
		e.Referer, e.UserAgent = w.told("referer"), w.told("user-agent")
	}
	switch {
	case w.req.version == 2:
		e.Proto = "HTTP/2"
	case w.req.version == 3:
		e.Proto = "HTTP/3"
	case w.req.minor == 0 && e.Proto != "":
		e.Proto = "HTTP/1.0"
	}
	if log.query {
		e.Query = w.ask.Query
	} else {
		e.Referer = accesslog.WithoutQuery(e.Referer)
	}
	if w.rule != nil {
		e.Route = w.set.extras[w.rule.Index].title
	}
	log.Append(log.format, &e)
}

// maxLoggedLine bounds what is written down of a request that was not understood.
const maxLoggedLine = 1 << 10

// rememberLine keeps the first line of what came, or what there is of it, for the access log.
func (w *work) rememberLine(came []byte) {
	log := w.set.log
	if log == nil {
		return
	}
	line := bytes.TrimLeft(came, "\r\n")
	if end := bytes.IndexAny(line, "\r\n"); end >= 0 {
		line = line[:end]
	}
	start := len(w.arena)
	if query := bytes.IndexByte(line, '?'); query >= 0 && !log.query {
		w.arena = append(w.arena, line[:min(query, maxLoggedLine)]...)
		version := bytes.LastIndex(line, []byte(" HTTP/"))
		line = line[max(version, query, 0):]
		if version < query { // nothing that is known follows the query
			line = nil
		}
	}
	w.arena = append(w.arena, line[:min(len(line), maxLoggedLine)]...)
	w.line = w.arena[start:len(w.arena):len(w.arena)]
}

// remember keeps what the access log will want of the head, whose bytes may be written
// over by the body.
func (w *work) remember() {
	if w.set.log == nil {
		return
	}
	keep := func(p *[]byte) {
		start := len(w.arena)
		w.arena = append(w.arena, *p...)
		*p = w.arena[start:len(w.arena):len(w.arena)]
	}
	keep(&w.ask.Method)
	keep(&w.ask.Path)
	keep(&w.ask.Query)
	keep(&w.ask.Host)
	w.referer, w.agent, w.kept = w.told("referer"), w.told("user-agent"), true
	keep(&w.referer)
	keep(&w.agent)
}
