package node

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

func (n *Node) adminOptions(s *Setup, socket string) admin.Options {
	var listen netip.AddrPort
	if b := s.Config.Admin.Listen; b.Port != 0 {
		listen = wildcard(s.addresses(b, nil)[0])
	}
	return admin.Options{
		Socket: socket, Listen: listen, Token: s.Config.Admin.Token.Reveal(),
		Status: n.Status, Explain: n.explain, ExplainHTTP: n.explainHTTP, Reload: n.Reload, Ready: n.ready,
		Override: n.override, Overrides: n.overrides, Drains: n.drains, Check: n.check, Keys: n.Keys, ChangeKeys: n.ChangeKeys, Upgrade: n.Upgrade,
		Gatherer: n.counters, Log: n.log,
	}
}

func (n *Node) ready() error {
	if phase := n.phase.Load(); phase != "serving" {
		return fmt.Errorf("%s", phase)
	}
	return nil
}

// explain traces one answer on the newest facts, with some assumed down.
func (n *Node) explain(r admin.ExplainRequest) (*steer.Explanation, error) {
	plan := n.board.Load()
	if plan == nil {
		return nil, errors.New("this node has not decided anything yet; try again in a moment")
	}
	facts := plan.Facts
	facts.Now, facts.AssumeDown = time.Now(), r.Down
	if err := plan.Topology.CheckAssumptions(r.Down); err != nil {
		return nil, err
	}
	now := steer.Decide(plan.Topology, n.decider.view.Load(), facts, plan)
	now.Generation = plan.Generation
	e, err := steer.Explain(now, steer.Question{Name: r.Name, IPv6: r.IPv6, From: r.From})
	if err == nil {
		n.explainForwarding(e, now)
	}
	return e, err
}

// setLoaded puts a setup on show.
func (n *Node) setLoaded(s *Setup) {
	n.setup.Store(s)
	for _, w := range s.Warnings {
		n.log.Warn("config", "warning", w)
	}
	n.metrics.reloadTime.Set(float64(s.Loaded.Unix()))
	n.metrics.geoBuilt.Set(float64(s.Geo.Info().Built.Unix()))
}

// Status returns the node's whole state. Safe for concurrent use; the cost is
// proportional to the number of services.
func (n *Node) Status() *admin.Status {
	now, s := time.Now(), n.setup.Load()
	info := s.Geo.Info()
	out := &admin.Status{
		Node: n.opts.Name, Site: s.Self.Site.Name, Version: n.opts.Version, PID: os.Getpid(),
		Started: n.started, State: n.phase.Load().(string),
		Config: admin.ConfigStatus{File: s.Config.File, Hash: hashText(s.Config.Hash), Loaded: s.Loaded},
		Geo: admin.GeoStatus{
			Name: info.Name, Type: info.Type, Built: info.Built,
			AgeDays: int(now.Sub(info.Built) / (24 * time.Hour)),
		},
		Members: n.members(),
	}
	n.mu.Lock()
	out.Config.LastTry = n.lastTry
	if n.lastError != nil {
		out.Config.LastError = n.lastError.Error()
	}
	if n.geoError != nil {
		out.Geo.LastError = n.geoError.Error()
	}
	dns, speaker, forwarding, web, ordersError := n.dns, n.speaker, n.l4 != nil, n.l7, n.ordersError
	n.mu.Unlock()
	n.fillSafety(out)
	if dns != nil {
		udp, _ := dns.Addrs()
		for _, a := range udp {
			out.Listeners = append(out.Listeners, "dns "+a.String())
		}
	}
	if forwarding {
		out.Listeners = append(out.Listeners, s.forwardingText()...)
	}
	if plan := n.board.Load(); plan != nil {
		n.fillPlan(out, plan)
	}
	if speaker != nil {
		st := speaker.Status()
		out.Speaker = speakerStatus(st)
		markInstalled(out.Routes, st.Routes)
		n.markPeers(out.Routes, st)
	}
	out.VIPs = n.vips.status()
	out.Drains, _ = n.ownDrains()
	out.Degraded = degraded(out, s)
	if where := n.gossip.Status().NameConflict; where != "" {
		out.Degraded = append(out.Degraded, fmt.Sprintf("another node is called %s, too (%s): give each its own name", n.opts.Name, where))
	}
	out.Degraded = append(out.Degraded, blind(n.runner.States(nil))...)
	if web != nil {
		out.Certificates = certificateStatus(web.Certificates())
		out.Degraded = append(out.Degraded, worrying(out.Certificates, now)...)
	}
	if ordersError != nil {
		out.Degraded = append(out.Degraded, "the overrides file was refused: "+firstLine(ordersError.Error()))
	}
	return out
}

func (s *Setup) forwardingText() (out []string) {
	for _, l := range s.l4Listeners() {
		out = append(out, "tcp "+l.Address.String()+" → "+l.Service)
	}
	for _, l := range s.l7Listeners() {
		scheme := "http"
		if l.TLS != nil {
			scheme = "https"
		}
		out = append(out, fmt.Sprintf("%s %s (%d routes)", scheme, l.Address, len(l.Routes)))
	}
	return out
}

func (n *Node) fillPlan(out *admin.Status, plan *steer.Plan) {
	t, view := plan.Topology, n.decider.view.Load()
	orders := ordersOn(plan.Facts.Overrides)
	out.Generation = plan.Generation
	errs := map[health.Target]string{}
	for _, st := range n.runner.States(nil) {
		errs[st.Target] = st.Last.Err
	}
	for i := range t.Services {
		svc, sp := &t.Services[i], &plan.Services[i]
		row := admin.ServiceStatus{Name: svc.Config.Name, FailOpen: sp.FailOpen}
		for j := range svc.Sites {
			site, decided := &svc.Sites[j], &sp.Sites[j]
			ss := admin.SiteStatus{Site: t.Config.Sites[site.Site].Name, Eligible: decided.Eligible, Why: decided.Why}
			ss.Panic = decided.Panics()
			ss.Override = orders.onPool(svc.Config.Name, ss.Site)
			for k, target := range site.Backends {
				backend := targetStatus(view, t.Layout.Targets[target], decided.Backends[k].Active, errs)
				backend.Override = orders.onBackend(t.Layout.Targets[target])
				ss.Backends = append(ss.Backends, backend)
			}
			for _, target := range site.VIPs {
				ss.VIPs = append(ss.VIPs, targetStatus(view, t.Layout.Targets[target], decided.Eligible, errs))
			}
			row.Sites = append(row.Sites, ss)
		}
		out.Services = append(out.Services, row)
	}
	out.Forwarding = n.forwardingStatus(plan)
	for _, r := range plan.Routes {
		out.Routes = append(out.Routes, routeStatus(r, orders.onPrefix(r.Prefix)))
	}
}

func routeStatus(r steer.Route, order string) admin.RouteStatus {
	out := admin.RouteStatus{
		Prefix: r.Prefix, Announce: r.Announce, Why: r.Why, Blame: r.Blame, Lacks: r.Lacks, Override: order,
		Until: r.Until, LocalOnly: r.LocalOnly,
	}
	if r.Announce {
		out.Level = r.Level.String()
	}
	if r.Cause != steer.ReasonNone {
		out.Cause = r.Cause.String()
	}
	return out
}

func targetStatus(view *health.View, t health.Target, active bool, errs map[health.Target]string) admin.TargetStatus {
	v := view.Of(t)
	return admin.TargetStatus{
		Address: t.Addr, Status: v.Status.String(), Why: v.Why.String(), Since: v.Since, Active: active, Error: errs[t],
	}
}

// degraded lists what an operator should look at.
func degraded(st *admin.Status, s *Setup) []string {
	out := []string{}
	if st.State != "serving" {
		out = append(out, "this node is "+st.State)
	}
	if st.Config.LastError != "" {
		out = append(out, "the newest reload was refused: "+firstLine(st.Config.LastError))
	}
	if st.Geo.LastError != "" {
		out = append(out, "the replaced geo database was refused: "+firstLine(st.Geo.LastError))
	}
	for _, svc := range st.Services {
		if svc.FailOpen {
			out = append(out, fmt.Sprintf("service %s: no site is fit, so those that are not are answered (fail-open)", svc.Name))
		}
		for _, site := range svc.Sites {
			if !site.Eligible && site.Why != steer.ReasonNoAddress {
				out = append(out, fmt.Sprintf("service %s at %s: %s", svc.Name, site.Site, site.Why))
				continue
			}
			switch site.Why {
			case steer.ReasonBudget, steer.ReasonMassFailure, steer.ReasonMinimum:
				out = append(out, fmt.Sprintf("service %s at %s: %s", svc.Name, site.Site, site.Why))
			}
			if site.Panic {
				out = append(out, fmt.Sprintf("service %s at %s: too few backends are up to carry it all, so those that are down are used as well (panic)", svc.Name, site.Site))
			}
			for _, b := range site.Backends {
				if b.Status == health.StatusDown.String() {
					out = append(out, fmt.Sprintf("service %s at %s: backend %s is down", svc.Name, site.Site, b.Address))
				}
			}
		}
	}
	for _, r := range st.Routes {
		switch {
		case r.Announce && r.Error != "":
			out = append(out, fmt.Sprintf("prefix %s cannot be announced: %s", r.Prefix, r.Error))
		case r.Announce && !r.Installed:
			out = append(out, fmt.Sprintf("prefix %s is not announced yet", r.Prefix))
		}
		if r.Announce && r.Cause != "" {
			out = append(out, fmt.Sprintf("prefix %s is to go, and is kept: %s (%s)%s", r.Prefix, r.Why, r.Cause, lacking(r.Lacks)))
		}
		for _, p := range r.Peers {
			if p.Seen == admin.SeenNot {
				out = append(out, fmt.Sprintf("prefix %s was sent to %s, but no node that looks sees it: the router may drop it by policy", r.Prefix, p.Address))
			}
		}
		if !r.Announce && r.Why != steer.ReasonSiteNotAllowed && r.Why != steer.ReasonStandby {
			out = append(out, fmt.Sprintf("prefix %s is not announced: %s%s", r.Prefix, r.Why, lacking(r.Lacks)))
		}
	}
	if st.Speaker != nil {
		if st.Speaker.State != "running" {
			out = append(out, fmt.Sprintf("BGP speaker is %s: %s", st.Speaker.State, st.Speaker.LastError))
		}
		for _, r := range st.Speaker.Ranges {
			switch {
			case r.Error != "":
				out = append(out, fmt.Sprintf("no BGP peer can connect from %s: %s", r.From, r.Error))
			case r.Full:
				out = append(out, fmt.Sprintf("%d BGP peers connected from %s, and no more are let in (max_peers)", r.MaxPeers, r.From))
			}
		}
		for _, p := range st.Speaker.Peers {
			if p.State != "established" {
				text := fmt.Sprintf("BGP peer %s is %s", p.Address, p.State)
				if why := cmp.Or(p.Hint, p.LastError); why != "" {
					text += ": " + why
				}
				out = append(out, text)
			}
			if p.BFD != nil && p.BFD.State != "up" {
				out = append(out, fmt.Sprintf("BFD with peer %s is %s: %s", p.Address, p.BFD.State, p.BFD.LastError))
			}
		}
	}
	return append(out, fleetTroubles(st, s)...)
}

// lacking adds what a prefix lacks.
func lacking(what string) string {
	if what == "" {
		return ""
	}
	return ": " + what
}

func speakerStatus(s bgp.Status) *admin.SpeakerStatus {
	out := &admin.SpeakerStatus{State: s.Child.State, PID: s.Child.PID, Restarts: s.Child.Restarts, LastError: s.Child.LastError, Strangers: s.Strangers}
	for _, p := range s.Peers {
		out.Peers = append(out.Peers, admin.PeerStatus{
			Address: p.Address, From: p.From, ASN: p.ASN, State: p.State, Since: p.Since, Sent: p.Sent, LastError: p.LastError,
			Hint: p.Hint, Received: p.Received, RouterID: p.RouterID, HoldSeconds: p.Hold.Seconds(),
			Families: familiesOf(p), RouteRefresh: p.Refresh,
			BFD: bfdStatus(p.BFD),
		})
	}
	for _, r := range s.Ranges {
		out.Ranges = append(out.Ranges, admin.RangeStatus{From: r.From, ASN: r.ASN, MaxPeers: r.Most, Sessions: r.Sessions, Full: r.Full, Error: r.Error})
	}
	return out
}

func familiesOf(p bgp.PeerStatus) (out []string) {
	if p.IPv4 {
		out = append(out, "ipv4")
	}
	if p.IPv6 {
		out = append(out, "ipv6")
	}
	return out
}

// markInstalled adds what the speaker did about each route.
func markInstalled(routes []admin.RouteStatus, installed []bgp.RouteStatus) {
	for i := range routes {
		for _, r := range installed {
			if r.Prefix == routes[i].Prefix {
				routes[i].Installed, routes[i].Error = r.Installed, r.Error
			}
		}
	}
}

func hashText(h uint64) string { return fmt.Sprintf("%016x", h) }

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
