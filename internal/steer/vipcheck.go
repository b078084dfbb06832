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
		x.byService[l.TCP.Service] = append(x.byService[l.TCP.Service], l)
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
		known := x.byService[route.Service]
		if len(known) == 0 || known[len(known)-1] != l {
			x.byService[route.Service] = append(known, l)
		}
	}
}

// vipCheck chooses the port and the check for the VIPs of a service.
func (x *listenerIndex) vipCheck(s *config.Service) vipCheck {
	v := vipCheck{port: s.Check.VIPPort, check: s.Check}
	var listener *config.Listener
	for _, l := range x.byService[s.Name] {
		if v.port == 0 || v.port == l.Bind.Port {
			listener, v.port = l, l.Bind.Port
			break
		}
	}
	if listener == nil || listener.HTTP == nil || s.Check.Kind == config.CheckTCP {
		return v
	}
	// Our listener speaks plain HTTP and picks the service by host and path, so
	// the probe has to ask for something that is routed to this service.
	host, ok := x.routedHost(listener.HTTP, s)
	if !ok {
		// The path of the check belongs to nobody or to another service there:
		// that the VIP takes connections is all that can be asked.
		v.check.Kind, v.check.HTTP = config.CheckTCP, config.HTTPCheck{}
		return v
	}
	v.check.Kind = config.CheckHTTP
	v.check.HTTP.Host = host
	v.check.HTTP.SNI, v.check.HTTP.Insecure = "", false
	return v
}

// routedHost returns a Host header ("" = the address) with which the path of the service's check is
// routed to the service; ok is false if there is none.
func (x *listenerIndex) routedHost(l *config.HTTPListener, s *config.Service) (host string, ok bool) {
	if s.Check.HTTP.Host != "" && x.match(l, s.Check.HTTP.Host, s.Check.HTTP.Path) == s.Name {
		return s.Check.HTTP.Host, true
	}
	for i := range l.Routes {
		r := &l.Routes[i]
		if r.Service != s.Name {
			continue
		}
		host := r.Host
		if suffix, wild := strings.CutPrefix(host, "*."); wild {
			host = "pharos-check." + suffix
		}
		if x.match(l, host, s.Check.HTTP.Path) == s.Name {
			return host, true
		}
	}
	return "", false
}

// match returns the service that a listener sends a request to: the most
// specific host, then the longest path.
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

// covers reports whether path lies under prefix, by whole segments.
func covers(prefix, path string) bool {
	if prefix == "" || prefix == "/" {
		return true
	}
	prefix = strings.TrimSuffix(prefix, "/")
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}
