package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/bgp/probe"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/node"
)

// refusedOpen is in the last error of a session whose OPEN the router refused.
const refusedOpen = "refused our OPEN"

// mostProbes is how many routers are asked at a time.
const mostProbes = 16

// checkBGP looks at the speaker, its addresses and privileges, each router and each prefix.
func checkBGP(ctx context.Context, c *Case) []Finding {
	self := c.Setup.Self
	peers := c.peers()
	if len(peers) == 0 {
		if len(c.Setup.Config.BGP.Prefixes) > 0 {
			return []Finding{note("bgp", "site "+self.Site.Name+" has no peers, so this node announces nothing", "", "add bgp.peers."+self.Site.Name+" if it should")}
		}
		return nil
	}
	here, err := c.Machine.Addresses()
	if err != nil {
		return []Finding{problem("bgp", "the addresses of this machine cannot be read: "+err.Error(), "the system refuses it", "run this as root")}
	}
	out := c.speakerFindings()
	local, missing := c.sources(here, peers)
	out = append(out, missing...)
	if c.hangs() {
		// It has its sockets, and may have its sessions: what is seen from beside it would be taken for a fault, and a second
		// connection can end a session.
		return append(out, note("bgp", "routers, privileges and VIPs are not looked at", "a node runs here, and does not answer what it has and needs",
			"see the check of the node; look again when it answers"))
	}
	if len(local) > 0 { // else this is another machine
		out = append(out, c.privileges(local)...)
		out = append(out, c.vipFindings(here)...)
	}
	probes := c.probePeers(ctx, peers, local)
	for i, p := range peers {
		if p.From.IsValid() {
			out = append(out, c.rangeFindings(p)...)
			continue
		}
		out = append(out, c.peerFindings(p, probes[i])...)
	}
	return slices.Concat(out, c.strangers(), c.routeFindings())
}

// peers are the routers of this node's site.
func (c *Case) peers() (out []config.Peer) {
	for _, p := range c.Setup.Config.BGP.Peers {
		if p.Site == c.Setup.Self.Site.Name {
			out = append(out, p)
		}
	}
	return out
}

// hangs reports whether a node seems to run here, of which nothing is known.
func (c *Case) hangs() bool { return c.Status == nil && c.Trouble != nil }

// statusOf is what the running node says of the peer at an address; nil = nothing.
func (c *Case) statusOf(a netip.Addr) *admin.PeerStatus {
	if c.Status == nil || c.Status.Speaker == nil {
		return nil
	}
	for i := range c.Status.Speaker.Peers {
		if s := &c.Status.Speaker.Peers[i]; s.Address == a {
			return s
		}
	}
	return nil
}

// speakerFindings is the BGP process of the node.
func (c *Case) speakerFindings() []Finding {
	if c.Status == nil {
		return nil
	}
	s := c.Status.Speaker
	if s == nil {
		return []Finding{problem("bgp", "the node runs without BGP, though its site has peers in the configuration", "they were added after it loaded it, or it has not come so far yet",
			"`pharos reload`; `pharos status` says what a node that starts waits for")}
	}
	switch s.State {
	case "running":
		if s.Restarts > 0 {
			return []Finding{note("bgp", fmt.Sprintf("the BGP process is up, and ended %d times before: %s", s.Restarts, s.LastError), "", "see the log if it goes on; a peer that did it is left out and named below")}
		}
		return []Finding{fine("bgp", "the BGP process is up, AS%d", c.Setup.Config.BGP.ASN)}
	case "lapsed":
		return []Finding{problem("bgp", "the BGP process withdrew everything, because the rest of the node was silent for bgp.lease", "the node hangs, or the machine is overloaded",
			"look at the machine's load; everything is announced again as soon as the node answers it")}
	case "backoff":
		return []Finding{problem("bgp", fmt.Sprintf("the BGP process does not stay up (%d ends): %s", s.Restarts, s.LastError), backoffCause(s.LastError), backoffRemedy(s.LastError, c.Setup.Config.BGP.Port))}
	}
	return []Finding{problem("bgp", "the BGP process is "+s.State, "it starts, or the node stops", "wait a moment and look again")}
}

// sources finds the source addresses of the sessions: those that are there, and a finding for each that is not.
func (c *Case) sources(here map[netip.Addr]string, peers []config.Peer) (local map[netip.Addr]string, out []Finding) {
	local = map[netip.Addr]string{}
	for _, p := range peers {
		a := c.Setup.Self.Node.Of(p.Is4())
		if !a.IsValid() || local[a] != "" {
			continue
		}
		name, ok := here[a]
		if !ok {
			subject := "address " + a.String()
			if !slices.ContainsFunc(out, func(f Finding) bool { return f.Subject == subject }) {
				out = append(out, problem(subject, "it is on no interface of this machine, so no session can come from it",
					"this is another machine than "+c.Setup.Self.Node.Name+", or the address was not set up",
					"run this on "+c.Setup.Self.Node.Name+", give an interface the address, or change it in sites."+c.Setup.Self.Site.Name+".nodes"))
			}
			continue
		}
		local[a] = name
	}
	for a, name := range local {
		out = append(out, fine("address "+a.String(), "on %s", name))
	}
	slices.SortFunc(out, func(x, y Finding) int { return strings.Compare(x.Subject, y.Subject) })
	return local, out
}

// privileges says whether the node can listen for its peers and bind its VIPs.
func (c *Case) privileges(local map[netip.Addr]string) (out []Finding) {
	b, pid := c.Setup.Config.BGP, 0
	who := "a process of this user"
	if c.Status != nil {
		pid, who = c.Status.PID, fmt.Sprintf("process %d", c.Status.PID)
	}
	if has, known := c.Machine.Capable(pid, capBind); b.Listen && int(b.Port) < c.Machine.LeastPort() && known && !has && c.Status == nil {
		out = append(out, problem("bgp", fmt.Sprintf("%s may not listen on port %d", who, b.Port), "ports below "+fmt.Sprint(c.Machine.LeastPort())+" take CAP_NET_BIND_SERVICE",
			"start the node by its systemd unit (deploy/pharos.service), which has it, or set bgp.listen: false if the routers need not dial"))
	} else if b.Listen && c.Status == nil {
		out = append(out, c.portFindings(local, b.Port)...)
	}
	iface := c.Setup.Self.Node.VIPInterface
	if iface == "" {
		return out
	}
	if !c.Machine.Interface(iface) {
		out = append(out, problem("vips", "there is no interface "+iface, "its name is another here, or it was not made", "make it (`ip link`), or name another in `vips.interface`, or `vip_interface` of the site or node"))
	}
	if has, known := c.Machine.Capable(pid, capAdmin); known && !has {
		out = append(out, problem("vips", who+" may not put addresses on "+iface, "that takes CAP_NET_ADMIN",
			"start the node with the drop-in deploy/pharos-vips.conf, or leave the addresses to the system and `vips` out of the configuration"))
	}
	return out
}

// portFindings tries the listening sockets of a node that does not run.
func (c *Case) portFindings(local map[netip.Addr]string, port uint16) (out []Finding) {
	for a := range local {
		at := netip.AddrPortFrom(a, port)
		if err := c.Machine.MayListen(at); errors.Is(err, unix.EADDRINUSE) {
			out = append(out, problem("bgp", "something else listens on "+at.String(), "another BGP speaker (bird, frr, another pharos) runs here",
				"`ss -ltnp sport = :"+fmt.Sprint(port)+"` names it; stop it, or give pharos another `bgp.port`"))
		} else if err != nil {
			out = append(out, problem("bgp", fmt.Sprintf("nothing can listen on %s: %v", at, err), "the system refuses it", "see the error; bgp.listen: false does without"))
		}
	}
	return out
}

// probePeers asks the routers that there is no session with. Those with one are left in peace: a second connection can
// end the first.
func (c *Case) probePeers(ctx context.Context, peers []config.Peer, local map[netip.Addr]string) []*probe.Result {
	out := make([]*probe.Result, len(peers))
	slots := make(chan struct{}, mostProbes)
	var wg sync.WaitGroup
	for i, p := range peers {
		source := c.Setup.Self.Node.Of(p.Is4())
		st := c.statusOf(p.Address)
		if p.From.IsValid() || local[source] == "" || st != nil && (st.State == "established" || st.State == "quarantined") {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			r := c.Machine.Probe(ctx, c.target(p, source), probe.Options{Timeout: c.Timeout, Open: c.speaks(st)})
			out[i] = &r
		})
	}
	wg.Wait()
	return out
}

// speaks reports whether a router is told our OPEN. A node that runs has said it, and knows the answer, unless it was refused
// in a way that the BGP library keeps to itself: then to say it again costs nothing, while the node does not say it.
func (c *Case) speaks(st *admin.PeerStatus) bool {
	if c.Status == nil {
		return c.Open
	}
	return st != nil && (st.State == "idle" || st.State == "active") && strings.Contains(st.LastError, refusedOpen)
}

func (c *Case) target(p config.Peer, source netip.Addr) probe.Target {
	return probe.Target{
		Local: source, Peer: p.Address, Port: p.Port, Password: p.Password.Reveal(), ASN: c.Setup.Config.BGP.ASN, PeerASN: p.ASN,
		RouterID: node.RouterID(c.Setup.Self.Node), Hold: p.Hold, Multihop: p.Multihop, TTLSecurity: p.TTLSecurity,
	}
}

// rangeFindings is a prefix of peers, and the routers that came from it.
func (c *Case) rangeFindings(p config.Peer) (out []Finding) {
	subject := fmt.Sprintf("peers from %s (AS%d)", p.From, p.ASN)
	if c.Status == nil || c.Status.Speaker == nil {
		return nil
	}
	at := slices.IndexFunc(c.Status.Speaker.Ranges, func(r admin.RangeStatus) bool { return r.From == p.From })
	if at < 0 {
		return []Finding{problem(subject, "the node does not know them", "the node has an older configuration", "`pharos reload`")}
	}
	switch r := c.Status.Speaker.Ranges[at]; {
	case r.Error != "":
		out = append(out, problem(subject, "no router can connect: "+r.Error, "the BGP process cannot listen for them", "mend what it names; it is tried again every two seconds"))
	case r.Full:
		out = append(out, problem(subject, fmt.Sprintf("%d routers came, and no more are let in", r.MaxPeers), "max_peers is reached", "raise max_peers, or find out who connects: `pharos peers`"))
	case r.Sessions == 0:
		out = append(out, note(subject, "no router has connected", "", "each needs a neighbor "+c.Setup.Self.Node.Of(p.Is4()).String()+fmt.Sprintf(" with remote AS %d", c.Setup.Config.BGP.ASN)))
	default:
		out = append(out, fine(subject, "%d of at most %d routers have a session", r.Sessions, r.MaxPeers))
	}
	for i := range c.Status.Speaker.Peers {
		st := &c.Status.Speaker.Peers[i]
		if st.From != p.From {
			continue
		}
		one := p
		one.Address, one.From = st.Address, netip.Prefix{}
		// BFD there is none, and cannot be: no advice to turn it on.
		out = append(out, slices.DeleteFunc(c.peerFindings(one, nil), func(f Finding) bool { return f.Level == Note && f.Subject == bfdSubject(one) })...)
	}
	return out
}

// strangers are routers that connect and are not peers.
func (c *Case) strangers() (out []Finding) {
	if c.Status == nil || c.Status.Speaker == nil {
		return nil
	}
	for _, a := range c.Status.Speaker.Strangers {
		out = append(out, note("stranger "+a.String(), "it connected to the BGP port and is no peer", "a router that uses another address than the one configured, or somebody else",
			"if it is a router of yours: set its source address (`update-source`, `source address`) to the one in bgp.peers, or put this one there"))
	}
	return out
}
