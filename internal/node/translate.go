package node

import (
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/cluster"
	"github.com/pharos-lb/pharos/dnslb"
	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4"
	"github.com/pharos-lb/pharos/forward/l7"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
)

// This file is where the configuration's words become each tier's own Options.

func probeChecks(s *Setup) []probe.Check {
	probes := s.Topology.Probes(s.Self.Node.Name)
	out := make([]probe.Check, len(probes))
	for i, p := range probes {
		out[i] = probeCheck(p)
	}
	return out
}

func (n *Node) probeOptions(s *Setup) probe.Options {
	initial := map[health.Target]health.Status{}
	if view := n.decider.view.Load(); view != nil {
		for i, t := range view.Layout.Targets {
			initial[t] = view.Verdicts[i].Status
		}
	}
	return probe.Options{
		Checks: probeChecks(s), Initial: initial, Keeper: []string{"/proc/self/exe", KeeperVerb},
		Log: n.log, Registerer: n.registry,
	}
}

// seeds are the other nodes of the fleet.
func seeds(s *Setup) []netip.AddrPort {
	var out []netip.AddrPort
	for _, site := range s.Config.Sites {
		for _, other := range site.Nodes {
			if other.Name != s.Self.Node.Name {
				out = append(out, netip.AddrPortFrom(other.Address, s.Config.Cluster.Port))
			}
		}
	}
	return out
}

func (n *Node) meta(s *Setup) cluster.Meta {
	return cluster.Meta{Site: s.Self.Site.Name, Version: n.opts.Version, Config: s.Config.Hash}
}

// gossipKeys are the keys of the ring, the one that is sent with first.
func (s *Setup) gossipKeys() [][]byte {
	var keys [][]byte
	for _, key := range s.Config.Cluster.Keys {
		keys = append(keys, []byte(key.Reveal()))
	}
	return keys
}

func (n *Node) clusterOptions(s *Setup) (cluster.Options, error) {
	sign, err := s.signKey()
	return cluster.Options{
		Name: s.Self.Node.Name, Label: s.Config.Cluster.Name,
		Bind: netip.AddrPortFrom(s.Self.Node.Address, s.Config.Cluster.Port),
		Keys: s.gossipKeys(), Seeds: seeds(s), Meta: n.meta(s), Epoch: n.epoch,
		SignKey: sign, PublicKeys: s.publicKeys(),
		Deliver: n.decider.inbox.deliver, DeliverOverrides: n.decider.inbox.deliverOrders,
		Discover: n.discover, Answer: n.answer,
		Log: n.log, Registerer: n.registry,
	}, err
}

// forwardOptions has the outcomes of forwarded traffic told to the passive checks.
func (n *Node) forwardOptions(s *Setup) forward.Options {
	site := s.Self.Site.Name
	return forward.Options{
		Pools: forward.FromBoard(&n.board), Registerer: n.registry,
		Outcome: func(service string, address netip.AddrPort, ok bool) {
			n.runner.Outcome(health.Target{Kind: health.KindBackend, Service: service, Site: site, Addr: address}, ok)
		},
	}
}

func (n *Node) dnsOptions(s *Setup) dnslb.Options {
	return dnslb.Options{
		Listen: s.dnsAddresses(), Board: &n.board, Shared: s.Config.DNS.Shared, Tunables: s.dnsTunables(),
		Log: n.log, Registerer: n.registry, Room: addProcessors,
	}
}

func (s *Setup) dnsTunables() dnslb.Tunables {
	d := s.Config.DNS
	name := d.ServerName
	if name == "" {
		name = s.Self.Node.Name
	}
	return dnslb.Tunables{UDPSize: d.UDPSize, TCPMax: d.TCPMax, TCPIdle: d.TCPIdle, ECS: d.ECS, ServerID: name}
}

// wildcard turns "every address" into the address that means it for TCP.
func wildcard(a netip.AddrPort) netip.AddrPort {
	if a.Addr().IsValid() {
		return a
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())
}

// dnsAddresses are where DNS is answered.
func (s *Setup) dnsAddresses() []netip.AddrPort {
	var out []netip.AddrPort
	for _, b := range s.Config.DNS.Listen {
		out = append(out, s.addresses(b, nil)...)
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

func (s *Setup) l4Listeners() []l4.Listener {
	var out []l4.Listener
	gone := s.departures()
	for i := range s.Config.Listeners {
		l := &s.Config.Listeners[i]
		if l.TCP == nil {
			continue
		}
		for _, a := range s.addresses(l.Bind, s.Config.Served(l)) {
			out = append(out, tcpListener(wildcard(a), l.Bind, l.TCP, gone))
		}
	}
	return out
}

func (s *Setup) l7Listeners() []l7.Listener {
	var out []l7.Listener
	for i := range s.Config.Listeners {
		l := &s.Config.Listeners[i]
		if l.HTTP == nil {
			continue
		}
		listener := httpListener(l.HTTP)
		listener.TLS, listener.Overflow = s.tls(l.TLS), overflows(l.Bind)
		services := s.Config.Served(l)
		listener.Transports = s.transports(services)
		for _, a := range s.addresses(l.Bind, services) {
			listener.Address = wildcard(a)
			out = append(out, listener)
		}
	}
	return out
}

// transports are how the backends of services are spoken to.
func (s *Setup) transports(services []string) []forward.Transport {
	var out []forward.Transport
	for i := range s.Topology.Services {
		if slices.Contains(services, s.Topology.Services[i].Config.Name) {
			out = append(out, forward.TransportOf(s.Topology, i))
		}
	}
	return out
}
