package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ResolverName is what the resolver is called in answers.
const ResolverName = "unbound"

// A resolver is an unbound beside the client, which asks the fleet for its zones as the resolvers of its users do:
// any of the name servers, with the client's subnet (ECS), and out of its cache while an answer lives.
type resolver struct {
	space  *namespace
	dir    string
	daemon *daemon // nil until it is started
}

// buildResolver readies the resolver; without unbound the lab has none, and says so.
func (l *Lab) buildResolver() error {
	if len(l.layout.Config.Zones) == 0 || len(l.delegated()) == 0 {
		return nil
	}
	if _, err := findRouterTool("unbound", "unbound"); err != nil {
		l.say("the lab has no resolver: %v", err)
		return nil
	}
	r := &resolver{space: l.net.spaces[len(l.net.spaces)-1], dir: filepath.Join(l.folder.path, "resolver")}
	if err := os.MkdirAll(r.dir, 0o750); err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	l.resolver = r
	return nil
}

// delegated are the name servers of the zones: the nodes, where the client reaches them.
func (l *Lab) delegated() (servers []netip.AddrPort) {
	for _, s := range l.layout.DNS {
		if !s.Inside && s.IsValid() {
			servers = append(servers, s.AddrPort)
		}
	}
	return servers
}

// unboundConfig writes the resolver's configuration.
func unboundConfig(dir string, own []netip.Addr, zones []string, servers []netip.AddrPort) string {
	var b strings.Builder
	fmt.Fprintf(&b, `server:
  directory: %q
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  num-threads: 1
  so-reuseport: no
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  qname-minimisation: no
  do-not-query-localhost: no
  module-config: "subnetcache iterator"
  send-client-subnet: 0.0.0.0/0
  send-client-subnet: ::/0
  client-subnet-always-forward: yes
  max-client-subnet-ipv4: 24
  max-client-subnet-ipv6: 56
  outbound-msg-retry: 3
  infra-keep-probing: yes
`, dir)
	for _, a := range own {
		fmt.Fprintf(&b, "  interface: %s\n  outgoing-interface: %s\n", a, a)
	}
	for _, z := range zones {
		fmt.Fprintf(&b, "  local-zone: %q transparent\n", z) // of those that it would not ask for, too: "test."
	}
	for _, z := range zones {
		fmt.Fprintf(&b, "stub-zone:\n  name: %q\n", z)
		for _, s := range servers {
			fmt.Fprintf(&b, "  stub-addr: %s@%d\n", s.Addr(), s.Port())
		}
	}
	return b.String() + "remote-control:\n  control-enable: no\n"
}

// start starts the resolver; the nil *resolver does nothing.
func (r *resolver) start(l *Layout, servers []netip.AddrPort) (err error) {
	if r == nil {
		return nil
	}
	var zones []string
	for _, z := range l.Config.Zones {
		zones = append(zones, z.Name)
	}
	file := filepath.Join(r.dir, "unbound.conf")
	if err := os.WriteFile(file, []byte(unboundConfig(r.dir, clientAddrs, zones, servers)), 0o600); err != nil {
		return err
	}
	if r.daemon, err = startDaemon(r.space, r.dir, "unbound", "unbound", "-d", "-c", file); err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	return nil
}

func (r *resolver) stop() {
	if r != nil && r.daemon != nil {
		r.daemon.stop()
		r.daemon = nil
	}
}

// resolveTimeout is how long a client waits for its resolver, which may have to try several name servers.
const resolveTimeout = 5 * time.Second

// Resolve asks the lab's resolver, from a client's address.
func (l *Lab) Resolve(ctx context.Context, q Question) (Answer, error) {
	q.Resolver = true // it recurses for nobody who does not ask for that
	if l.resolver == nil || l.resolver.daemon == nil {
		return Answer{}, errors.New("the lab has no resolver: install unbound (Debian: unbound)")
	}
	if err := l.resolver.daemon.alive(); err != nil {
		return Answer{}, fmt.Errorf("resolver: %w", err)
	}
	if _, err := newQuery(0, q); err != nil {
		return Answer{}, err
	}
	space, err := l.net.client(q.From)
	if err != nil {
		return Answer{}, err
	}
	server := netip.AddrPortFrom(clientAddrs[0], 53)
	if q.From.Is6() {
		server = netip.AddrPortFrom(clientAddrs[1], 53)
	}
	var conn *net.UDPConn
	err = space.do(func() (err error) {
		var local *net.UDPAddr
		if q.From.IsValid() {
			local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(q.From, 0))
		}
		conn, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(server))
		return err
	})
	if err != nil {
		return Answer{}, err
	}
	a := askWithin(ctx, conn, q, resolveTimeout)
	a.Node, a.Sites = ResolverName, l.sitesOf(a.Addresses)
	return a, nil
}

// resolverWithin bounds how long the resolver may take to resolve its first name.
const resolverWithin = 10 * time.Second

// awaitResolver waits until the resolver resolves a name of the fleet.
func (l *Lab) awaitResolver(ctx context.Context) error {
	name := l.firstName()
	if l.resolver == nil || name == "" {
		return nil
	}
	inner, cancel := context.WithTimeout(ctx, resolverWithin)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := l.Resolve(inner, Question{Name: name, IPv6: l.isIPv6(name)})
		switch {
		case err != nil && inner.Err() == nil:
			return err
		case err == nil && a.RCode == "Success":
			return nil
		}
		select {
		case <-tick.C:
		case <-inner.Done():
			if ctx.Err() == nil {
				l.say("the resolver does not resolve %s: %s%s", name, a.RCode, a.Error)
			}
			return ctx.Err()
		}
	}
}

// firstName is the first steered name that is answered by site, else the first, without its last dot.
func (l *Lab) firstName() (name string) {
	for _, z := range l.layout.Config.Zones {
		for _, n := range z.Names {
			if n.FQDN[0] == '*' {
				continue
			}
			if plain := strings.TrimSuffix(n.FQDN, "."); !n.Anycast {
				return plain
			} else if name == "" {
				name = plain
			}
		}
	}
	return name
}
