package node

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

// explainHTTP traces one request on the newest plan.
func (n *Node) explainHTTP(q admin.HTTPQuestion) (*admin.HTTPExplanation, error) {
	plan := n.board.Load()
	if plan == nil {
		return nil, errors.New("this node has not decided anything yet; try again in a moment")
	}
	return n.setup.Load().ExplainHTTP(q, plan, n.backends.Snapshot())
}

// ExplainHTTP traces one request: the listener and route that take it, and the backends
// that it may go to by a plan. live is what the backends carry; nil if nothing runs.
func (s *Setup) ExplainHTTP(q admin.HTTPQuestion, plan *steer.Plan, live []forward.Status) (*admin.HTTPExplanation, error) {
	u, err := url.Parse(q.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an http or https URL", q.URL)
	}
	if !q.Client.IsValid() {
		return nil, errors.New("the client's address is missing")
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]), 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("%q: the port is from 1 to 65535", q.URL)
	}
	e := &admin.HTTPExplanation{Method: q.Method, URL: q.URL, Node: s.Self.Node.Name}
	chosen, err := s.chooseListener(u, uint16(port), q.Listener, e)
	if err != nil {
		return nil, err
	}
	listener := httpListener(chosen.HTTP)
	local := netip.AddrPortFrom(s.Self.Node.Address, uint16(port))
	if all := s.addresses(chosen.Bind, s.Config.Served(chosen)); len(all) > 0 && all[0].Addr().IsValid() {
		local = all[0]
	}
	found, err := l7.Explain(listener, l7.Question{
		Head: requestHead(q, u), Peer: netip.AddrPortFrom(q.Client, 40000), Local: local, TLS: chosen.TLS != nil,
	})
	if err != nil {
		return nil, err
	}
	e.Client, e.ClientWhy, e.Result = found.Client, "who connects", found.String()
	switch {
	case found.Trusted && found.Client != q.Client:
		e.ClientWhy = fmt.Sprintf("said by %s, a trusted proxy", q.Client)
	case found.Trusted:
		e.ClientWhy = "a trusted proxy that says nothing"
	}
	for _, v := range found.Routes {
		e.Routes = append(e.Routes, admin.ExplainedHTTPRoute{
			Number: v.Rule.Index + 1, Title: v.Rule.Title(), Taken: v.Rule == found.Taken, Reason: v.Reason.String(), Detail: v.Detail,
		})
	}
	if found.Service == "" {
		return e, nil
	}
	e.Service = found.Service
	e.Upstream = strings.Split(strings.TrimRight(found.Upstream, "\r\n"), "\r\n")
	s.explainPool(e, plan, live)
	return e, nil
}

// requestHead writes the question as the client would.
func requestHead(q admin.HTTPQuestion, u *url.URL) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", q.Method, u.RequestURI())
	host := u.Host
	for _, h := range q.Headers {
		if name, value, ok := strings.Cut(h, ":"); ok && strings.EqualFold(strings.TrimSpace(name), "host") {
			host = strings.TrimSpace(value)
			continue
		}
		b.WriteString(h + "\r\n")
	}
	fmt.Fprintf(&b, "Host: %s\r\n\r\n", host)
	return []byte(b.String())
}

// chooseListener finds the listener that a request for a URL comes to.
func (s *Setup) chooseListener(u *url.URL, port uint16, wanted string, e *admin.HTTPExplanation) (*config.Listener, error) {
	var chosen *config.Listener
	var near []string
	host, _ := netip.ParseAddr(u.Hostname())
	for i := range s.Config.Listeners {
		l := &s.Config.Listeners[i]
		if l.HTTP == nil {
			continue
		}
		text := l.Bind.String() + map[bool]string{true: " (TLS)"}[l.TLS != nil]
		here := s.addresses(l.Bind, s.Config.Served(l))
		covers := slices.ContainsFunc(here, func(a netip.AddrPort) bool { return !host.IsValid() || !a.Addr().IsValid() || a.Addr() == host })
		if l.Bind.Port != port || (l.TLS != nil) != (u.Scheme == "https") || !covers || wanted != "" && l.Bind.String() != wanted {
			near = append(near, text)
			continue
		}
		if chosen == nil {
			chosen, e.Listener = l, text
		} else {
			e.Others = append(e.Others, "also possible: "+text+", with --listener "+l.Bind.String())
		}
	}
	if chosen == nil {
		at := net.JoinHostPort(u.Hostname(), strconv.Itoa(int(port)))
		if len(near) == 0 {
			return nil, fmt.Errorf("no listener takes HTTP requests at %s: there is none with http", at)
		}
		return nil, fmt.Errorf("no listener of %s takes %s requests at %s: there are %s", s.Self.Node.Name, u.Scheme, at, strings.Join(near, ", "))
	}
	return chosen, nil
}

// explainPool says which backends of the service may get the request, and why.
func (s *Setup) explainPool(e *admin.HTTPExplanation, plan *steer.Plan, live []forward.Status) {
	i, ok := plan.Topology.Service(e.Service)
	if !ok {
		e.Result += ", which the plan does not know: 503"
		return
	}
	balance := plan.Topology.Services[i].Config.Balance
	e.Policy = cmp.Or(balance.By, "auto")
	if e.Policy == "auto" {
		e.Policy = "p2c (auto)"
	}
	if balance.Key != "" {
		e.Policy += " by " + strings.TrimSuffix(balance.Key+":"+balance.KeyName, ":")
	}
	pool, site, ok := plan.Pool(i)
	if !ok {
		e.Result += ", which has no backends at this site: 503"
		return
	}
	status := make(map[netip.AddrPort]*forward.Status)
	for k := range live {
		if live[k].Service == e.Service {
			status[live[k].Address] = &live[k]
		}
	}
	any := false
	for k, b := range pool.Backends {
		out := admin.ExplainedBackend{Address: b.Address, Weight: plan.Weight(i, k), Candidate: site.Backends[k].Active, Why: site.Backends[k].Why.String()}
		if st := status[b.Address]; st != nil && out.Candidate {
			out.Why += fmt.Sprintf(", %d in flight", st.InFlight)
			if st.Limit > 0 {
				out.Why += fmt.Sprintf(" of %d", st.Limit)
			}
			if st.Ejected > 0 {
				out.Why += fmt.Sprintf(", ejected for %s: passed over while others are left", st.EjectedFor)
			}
		}
		any = any || out.Candidate
		e.Backends = append(e.Backends, out)
	}
	if !any {
		e.Result += ", none of whose backends is in use: 503"
	}
}
