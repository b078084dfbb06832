package l7

import (
	"bytes"
	"context"
	"net/netip"
	"strconv"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/route"
)

// A Route sends requests to a service, or answers them.
type Route = route.Route

// ends are the two ends of a client's connection.
type ends struct {
	// peer is who connected, and local where to; or what a PROXY header says of that.
	peer, local netip.AddrPort
	// from and to are the same as text, from without its port.
	from, to []byte
	secure   bool // the client speaks TLS
	// via is who connected, whatever a PROXY header says; invalid without TCP.
	via  netip.Addr
	whom forward.Client
}

func newEnds(c *forward.Conn[settings]) *ends {
	e := &ends{peer: c.Source, local: c.Destination, secure: c.Stream.IsTLS()}
	if !e.peer.IsValid() {
		e.peer, e.local = addrPort(c.Stream.RemoteAddr()), addrPort(c.Stream.LocalAddr())
	}
	if e.via = e.peer.Addr(); c.Source.IsValid() {
		e.via = addrPort(c.Stream.RemoteAddr()).Addr()
	}
	e.from = e.peer.Addr().AppendTo(nil)
	e.to = e.local.AppendTo(nil)
	e.whom.Source, e.whom.Destination = e.peer, e.local
	if state, ok := c.Stream.TLS(); ok {
		e.whom.Authority, e.whom.ALPN = state.ServerName, state.NegotiatedProtocol
	}
	return e
}

// dispatch decides what becomes of w.req, which has been read, does it, and reports
// whether another request may follow on the client's connection.
func (w *work) dispatch(ctx context.Context) bool {
	r, set := &w.req, w.set
	w.keep = r.persistent()
	if r.handed != nil {
		w.welcome()
	}
	w.identify(set)
	if f := w.tooLong(); f.bad() {
		return w.early(f)
	}
	if f := w.admit(); f.bad() {
		return w.early(f)
	}
	w.ask = route.Request{
		Method: r.method, Host: r.hostname, Path: r.path, Query: r.query(), Client: w.who, Fields: r,
	}
	rule := set.routes.Match(&w.ask, &w.space)
	if rule == nil {
		return w.early(fault{status: 404, text: "no route for this request"})
	}
	w.rule = rule
	if f := w.admitRoute(); f.bad() {
		return w.early(f)
	}
	switch {
	case rule.Redirect != nil:
		return w.redirect(rule)
	case rule.Respond != nil:
		return w.respond(rule)
	case rule.Split != nil:
		return w.exchange(ctx, rule.Split.Pick(w.hash(splitKey(rule.Split.Key))))
	}
	return w.exchange(ctx, rule.Service)
}

// splitKey is what a split goes by: the client's address unless it says otherwise.
func splitKey(key forward.Key) forward.Key {
	if key.Kind == forward.KeyNone {
		key.Kind = forward.KeyClient
	}
	return key
}

// early answers a request whose body has not been looked at.
func (w *work) early(f fault) bool {
	w.keep = w.keep && !w.req.chunked && w.req.length <= 0
	return w.reply(f)
}

// query is the target behind the question mark.
func (r *request) query() []byte {
	if len(r.path) < len(r.target) {
		return r.target[len(r.path)+1:]
	}
	return nil
}

// Field implements route.Fields.
func (r *request) Field(name string, from int) (value []byte, next int) {
	for i := from; i < len(r.fields); i++ {
		if f := &r.fields[i]; len(f.name) == len(name) && is(f.name, name) {
			return f.value, i + 1
		}
	}
	return nil, -1
}

// redirect sends the client elsewhere.
func (w *work) redirect(rule *route.Rule) bool {
	to := rule.Redirect
	start := len(w.arena)
	out := w.arena
	scheme := to.Scheme
	if scheme == "" {
		scheme = string(w.scheme())
	}
	out = append(append(out, scheme...), "://"...)
	host, port := w.req.hostname, uint64(to.Port)
	if to.Host != "" {
		host = []byte(to.Host)
	}
	if host == nil { // HTTP/1.0 without one
		host = w.ends.to[:bytes.LastIndexByte(w.ends.to, ':')]
	}
	out = append(out, host...)
	if port == 0 && to.Scheme == "" && to.Host == "" {
		if authority := w.req.authority; len(authority) > len(w.req.hostname)+1 {
			port, _ = strconv.ParseUint(string(authority[len(w.req.hostname)+1:]), 10, 32)
		}
	}
	if port != 0 && (scheme != "http" || port != 80) && (scheme != "https" || port != 443) {
		out = strconv.AppendUint(append(out, ':'), port, 10)
	}
	raw := w.req.path
	if string(raw) == "*" {
		raw = []byte("/")
	}
	at := len(out)
	out = rule.AppendPath(out, to.Path, to.Prefix, raw, &w.space)
	if wrong := route.CheckPath(out[at:]); wrong != "" || out[at] != '/' {
		return w.early(malformed("request target cannot be redirected"))
	}
	if query := w.req.query(); len(query) > 0 && !to.DropQuery {
		out = append(append(out, '?'), query...)
	}
	w.arena = out
	status := to.Status
	if status == 0 {
		status = 302
	}
	w.keep = w.keep && !w.req.chunked && w.req.length <= 0
	n := notice{status: status}
	n.add(nameLocation, out[start:])
	return w.say(&n)
}

// respond gives a fixed answer.
func (w *work) respond(rule *route.Rule) bool {
	w.keep = w.keep && !w.req.chunked && w.req.length <= 0
	n := notice{status: rule.Respond.Status, body: []byte(rule.Respond.Body), contentType: rule.Respond.ContentType}
	return w.say(&n)
}

// prepare makes of the request what the backend is to get: it rewrites its target and
// its host, edits its fields, and adds those that say where it came from. The fields
// are then complete: whoever writes them only leaves out those that are a hop's.
func (w *work) prepare() fault {
	r := &w.req
	rule := w.rule
	asked := r.authority
	if rw := &rule.Rewrite; *rw != (route.Rewrite{}) && string(r.path) != "*" {
		if rw.Path != "" || rw.Prefix != "" {
			query := r.query()
			start := len(w.arena)
			w.arena = rule.AppendPath(w.arena, rw.Path, rw.Prefix, r.path, &w.space)
			path := w.arena[start:len(w.arena):len(w.arena)]
			if wrong := route.CheckPath(path); wrong != "" || len(path) == 0 || path[0] != '/' {
				return malformed("request target cannot be rewritten")
			}
			if len(query) > 0 {
				w.arena = append(append(w.arena, '?'), query...)
			}
			r.target = w.arena[start:len(w.arena):len(w.arena)]
			r.path = r.target[:len(path)]
		}
		if rw.Host != "" {
			r.authority = w.text(rw.Host)
		}
	}
	if e := &rule.Request; !e.Empty() {
		r.fields = w.edit(r.fields, e)
	}
	w.addForwarded(w.set, asked)
	return fault{}
}

// text keeps s for the time of the request.
func (w *work) text(s string) []byte {
	start := len(w.arena)
	w.arena = append(w.arena, s...)
	return w.arena[start:len(w.arena):len(w.arena)]
}

// edit applies e to the fields of a message.
func (w *work) edit(fields []field, e *route.Edit) []field {
	for i := range fields {
		if e.Takes(fields[i].name) {
			fields[i].drop = true
		}
	}
	for _, list := range [2][]route.Header{e.Set, e.Add} {
		for _, h := range list {
			fields = append(fields, field{name: w.text(h.Name), value: w.text(h.Value)})
		}
	}
	return fields
}

// editAnswer makes of a backend's answer what the client is to get.
func (w *work) editAnswer() {
	if w.lease.Backend != nil && w.lease.Backend.Elsewhere() {
		return // the other site has done so
	}
	if w.rule != nil && !w.rule.Response.Empty() {
		w.res.fields = w.edit(w.res.fields, &w.rule.Response)
	}
	if len(w.requestID) > 0 {
		for i := range w.res.fields {
			if f := &w.res.fields[i]; f.kind == kindOther && is(f.name, w.set.requestIDLow) {
				f.drop = true
			}
		}
		w.res.fields = append(w.res.fields, field{name: w.text(w.set.origin.RequestID), value: w.requestID})
	}
}
