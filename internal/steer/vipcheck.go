package steer

import (
	"strings"

	"github.com/pharos-lb/pharos/internal/config"
)

// A vipCheck is how the other sites probe the VIPs of a service: through the
// listener that users reach, so that the probe fails when they would.
type vipCheck struct {
	port  uint16 // 0 = no listener and no vip_port: the port that the backends share
	check config.Check
}

// listenerIndex finds the listeners that serve a service on its VIPs.
type listenerIndex struct {
	// byService is the listeners of each service that take traffic on VIPs: those bound to
	// "vip" first, then those bound to every address, each in file order.
	byService map[string][]*config.Listener
	// hosts is the routes of each HTTP listener by Route.Host, in file order.
	hosts map[*config.HTTPListener]map[string][]*config.Route
}

func indexListeners(listeners []config.Listener) *listenerIndex {
	x := &listenerIndex{
		byService: make(map[string][]*config.Listener),
		hosts:     make(map[*config.HTTPListener]map[string][]*config.Route),
	}
	for _, wantVIP := range [2]bool{true, false} {
		for i := range listeners {
			l := &listeners[i]
			everywhere := l.Bind.Host == "" && !l.Bind.Addr.IsValid()
			if vip := l.Bind.Host == "vip"; vip != wantVIP || (!vip && !everywhere) {
				continue
			}
			x.add(l)
		}
	}
	return x
}

func (x *listenerIndex) add(l *config.Listener) {
	if l.TCP != nil {
		x.serve(l.TCP.Service, l)
		for _, route := range l.TCP.Routes {
			x.serve(route.Service, l)
		}
		return
	}
	if l.UDP != nil {
		x.serve(l.UDP.Service, l)
		return
	}
	if l.HTTP == nil {
		return
	}
	hosts := make(map[string][]*config.Route)
	x.hosts[l.HTTP] = hosts
	for r := range l.HTTP.Routes {
		route := &l.HTTP.Routes[r]
		hosts[route.Host] = append(hosts[route.Host], route)
		for _, service := range route.Services() {
			x.serve(service, l)
		}
	}
}

// serve notes that l serves a service, once.
func (x *listenerIndex) serve(service string, l *config.Listener) {
	known := x.byService[service]
	if service != "" && (len(known) == 0 || known[len(known)-1] != l) {
		x.byService[service] = append(known, l)
	}
}

// vipCheck chooses the port and the check for the VIPs of a service.
func (x *listenerIndex) vipCheck(s *config.Service) vipCheck {
	v := vipCheck{port: s.Check.VIPPort}
	var listener *config.Listener
	for _, l := range x.byService[s.Name] {
		if l.UDP != nil && s.Check.Kind != config.CheckUDP && s.Check.Kind != config.CheckDNS {
			continue // it answers nothing else
		}
		if v.port == 0 || v.port == l.Bind.Port {
			listener, v.port = l, l.Bind.Port
			break
		}
	}
	v.check = x.through(listener, s, s.Check)
	// What says how much a backend can take, or what its traffic tells, is no business of a VIP.
	v.check.Passive, v.check.Weight, v.check.SlowStart = config.PassiveCheck{}, config.WeightSource{}, 0
	return v
}

// through returns what of a service's check can be asked from another site through a listener, nil for
// none of ours: the same question where it gets through, else that the VIP takes connections.
func (x *listenerIndex) through(l *config.Listener, s *config.Service, check config.Check) config.Check {
	switch check.Kind {
	case config.CheckHTTP, config.CheckHTTPS:
		if l != nil && l.HTTP != nil {
			return x.throughHTTP(l.HTTP, s, check)
		}
		if l != nil && check.HTTP.Version == 3 {
			check.HTTP.Version = 1 // the listener takes no QUIC
		}
		return check
	case config.CheckDNS:
		if l != nil && l.TCP != nil {
			check.DNS.TCP = true
		}
		if l != nil && l.UDP != nil {
			check.DNS.TCP = false
		}
		if l == nil || l.HTTP == nil {
			return check
		}
	case config.CheckTLS, config.CheckGRPC:
		if l == nil || l.TCP != nil {
			return check
		}
	case config.CheckUDP:
		if l == nil || l.UDP != nil {
			return check
		}
	case config.CheckICMP:
		return check // no listener is asked for an echo
	case config.CheckAll, config.CheckAny, config.CheckAtLeast:
		return x.throughEach(l, s, check)
	}
	// The rest has nothing to ask from afar (a command, a file, traffic) or does not get through.
	return onlyTCP(check)
}

// throughEach does so for each of the checks that another combines.
func (x *listenerIndex) throughEach(l *config.Listener, s *config.Service, check config.Check) config.Check {
	of := make([]config.WeightedCheck, len(check.Of))
	asks := false
	for i, w := range check.Of {
		of[i] = config.WeightedCheck{Weight: w.Weight, Check: x.through(l, s, w.Check)}
		asks = asks || of[i].Check.Kind != config.CheckTCP
	}
	if !asks {
		return onlyTCP(check) // one connection tells as much as several
	}
	check.Of = of
	return check
}

// onlyTCP keeps the schedule of a check and asks for a connection.
func onlyTCP(check config.Check) config.Check {
	check.Kind = config.CheckTCP
	check.HTTP, check.TLS, check.DNS, check.UDP = config.HTTPCheck{}, config.TLSCheck{}, config.DNSCheck{}, config.UDPCheck{}
	check.GRPC, check.Exec, check.File = config.GRPCCheck{}, config.ExecCheck{}, config.FileCheck{}
	check.Of, check.Need = nil, 0
	return check
}

// throughHTTP is through for our own listener, which speaks plain HTTP/1.1 and picks the
// service by host and path: the probe has to ask for something that is routed to this service.
func (x *listenerIndex) throughHTTP(l *config.HTTPListener, s *config.Service, check config.Check) config.Check {
	host, ok := x.routedHost(l, s.Name, check.HTTP)
	if !ok {
		// The path of the check belongs to nobody or to another service there:
		// that the VIP takes connections is all that can be asked.
		return onlyTCP(check)
	}
	check.Kind = config.CheckHTTP
	check.HTTP.Host = host
	check.HTTP.SNI, check.HTTP.Insecure, check.TLS = "", false, config.TLSCheck{}
	check.HTTP.Version = min(check.HTTP.Version, 1)
	return check
}

// routedHost returns a Host header ("" = the address) with which the path of a check is
// routed to a service; ok is false if there is none.
func (x *listenerIndex) routedHost(l *config.HTTPListener, service string, check config.HTTPCheck) (host string, ok bool) {
	if check.Host != "" && x.match(l, check.Host, check.Path) == service {
		return check.Host, true
	}
	for i := range l.Routes {
		r := &l.Routes[i]
		if r.Service != service {
			continue
		}
		host := r.Host
		if suffix, wild := strings.CutPrefix(host, "*."); wild {
			host = "pharos-check." + suffix
		}
		if x.match(l, host, check.Path) == service {
			return host, true
		}
	}
	return "", false
}

// match returns the service that a listener sends a request to: the most
// specific host, then the longest path. It is "" where a route that asks for more than a
// host and a path, or does not pass the request on as it is, might take it.
func (x *listenerIndex) match(l *config.HTTPListener, host, path string) string {
	hosts := x.hosts[l]
	candidates := []string{host}
	for rest := host; ; {
		_, after, ok := strings.Cut(rest, ".")
		if !ok || after == "" {
			break
		}
		rest = after
		candidates = append(candidates, "*."+rest)
	}
	candidates = append(candidates, "")
	path, _, _ = strings.Cut(path, "?")
	for _, c := range candidates {
		best := -1
		routes := hosts[c]
		for i, r := range routes {
			switch {
			case !r.IsPlain() && mayCover(r, path):
				return ""
			case !r.IsPlain():
				continue
			}
			if covers(r.Path, path) && (best < 0 || len(r.Path) > len(routes[best].Path)) {
				best = i
			}
		}
		if best >= 0 {
			return routes[best].Service
		}
	}
	return ""
}

// mayCover reports whether a route might take requests for a path.
func mayCover(r *config.Route, path string) bool {
	return r.Pattern != "" || r.Exact == path || r.Path != "" && covers(r.Path, path)
}

// covers reports whether path lies under prefix, by whole segments.
func covers(prefix, path string) bool {
	if prefix == "" || prefix == "/" {
		return true
	}
	prefix = strings.TrimSuffix(prefix, "/")
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}
