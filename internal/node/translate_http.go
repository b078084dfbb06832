package node

import (
	"strings"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7"
	"github.com/pharos-lb/pharos/forward/l7/accesslog"
	"github.com/pharos-lb/pharos/forward/l7/route"
	"github.com/pharos-lb/pharos/internal/config"
)

// httpListener is a configured listener but for its address and TLS.
func httpListener(c *config.HTTPListener) l7.Listener {
	l := l7.Listener{
		Idle: c.Idle, HTTP3: c.HTTP3, Pages: errorPages(c.Errors), Routes: make([]l7.Route, len(c.Routes)),
		Origin: l7.Origin{
			Trusted: c.TrustedProxies, ByForwarded: c.TrustedHeader == "forwarded",
			XForwarded: forwardedMode(c.XForwarded), Forwarded: forwardedMode(c.Forwarded), RequestID: c.RequestID,
		},
		AcceptProxy: c.AcceptProxy, Limits: httpLimits(&c.Limits), Times: l7.Times(c.Times), AccessLog: accessLog(c.AccessLog),
	}
	for i := range c.Routes {
		l.Routes[i] = httpRoute(&c.Routes[i])
	}
	return l
}

func httpLimits(c *config.HTTPLimits) l7.Limits {
	l := l7.Limits{
		HeaderBytes: c.HeaderBytes, HeaderFields: c.HeaderFields, URI: c.URI, Body: int64(c.Body), MinRate: c.MinRate,
		Requests: c.Requests, ClientRequests: c.ClientRequests, ClientConnections: c.ClientConnections,
		ClientBits4: c.ClientIPv4, ClientBits6: c.ClientIPv6, Clients: c.Clients, Streams: c.Streams,
	}
	if c.MinRate == 0 {
		l.MinRate = -1
	}
	return l
}

func accessLog(c *config.AccessLog) *l7.AccessLog {
	if c == nil {
		return nil
	}
	a := &l7.AccessLog{File: c.File, Sample: c.Sample, Query: c.Query}
	switch c.Format {
	case "common":
		a.Format = accesslog.Common
	case "combined":
		a.Format = accesslog.Combined
	}
	return a
}

func forwardedMode(word string) l7.Mode {
	switch word {
	case "append":
		return l7.ModeAppend
	case "set":
		return l7.ModeSet
	case "none":
		return l7.ModeNone
	}
	return l7.ModeDefault
}

func errorPages(list []config.ErrorPage) []l7.Page {
	var out []l7.Page
	for _, p := range list {
		out = append(out, l7.Page(p))
	}
	return out
}

func httpRoute(c *config.Route) l7.Route {
	r := l7.Route{
		Name: c.Name, Host: c.Host, Path: c.Path, Pattern: c.Pattern, Methods: c.Methods, Clients: c.Clients,
		Headers: conditions(c.Headers), Query: conditions(c.Query),
		Service: c.Service, Rewrite: route.Rewrite(c.Rewrite),
		Request: headerEdit(c.RequestHeaders), Response: headerEdit(c.ResponseHeaders),
	}
	if c.Exact != "" {
		r.Path, r.Exact = c.Exact, true
	}
	if c.Split != nil {
		r.Split = &route.Split{Key: forward.KeyOf(c.Split.Key, c.Split.KeyName)}
		for _, s := range c.Split.Shares {
			r.Split.Shares = append(r.Split.Shares, route.Share(s))
		}
	}
	if to := c.Redirect; to != nil {
		r.Redirect = &route.Redirect{
			Status: to.Status, Scheme: to.Scheme, Host: to.Host, Port: uint16(to.Port), Path: to.Path, Prefix: to.Prefix, DropQuery: to.DropQuery,
		}
	}
	if c.Respond != nil {
		r.Respond = &route.Response{Status: c.Respond.Status, ContentType: c.Respond.ContentType, Body: c.Respond.Body}
	}
	r.Extra = &l7.Extra{
		Pages:  errorPages(c.Errors),
		Limits: l7.RouteLimits{Requests: c.Limits.Requests, Body: int64(c.Limits.Body)},
	}
	return r
}

func conditions(list []config.Condition) []route.Condition {
	var out []route.Condition
	for _, c := range list {
		to := route.Condition{Name: c.Name}
		switch {
		case c.Value != "":
			to.Test, to.Value = route.Equals, c.Value
		case c.Prefix != "":
			to.Test, to.Value = route.Prefix, c.Prefix
		case c.Pattern != "":
			to.Test, to.Value = route.Matches, c.Pattern
		case c.Absent:
			to.Test = route.Absent
		}
		out = append(out, to)
	}
	return out
}

func headerEdit(c config.HeaderEdit) route.Edit {
	e := route.Edit{Remove: c.Remove}
	for _, h := range c.Set {
		e.Set = append(e.Set, route.Header{Name: h.Name, Value: strings.TrimSpace(h.Value)})
	}
	for _, h := range c.Add {
		e.Add = append(e.Add, route.Header{Name: h.Name, Value: strings.TrimSpace(h.Value)})
	}
	return e
}
