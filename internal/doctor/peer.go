package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/bgp/probe"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
)

// A patient is one router with what is known of it.
type patient struct {
	config.Peer
	source string // our address
	asn    uint32 // ours
	node   string
	seen   *probe.Result // nil = it was not asked
}

func (p patient) subject() string { return fmt.Sprintf("peer %s (AS%d)", p.Address, p.ASN) }

// compare is the last advice: both sides next to each other.
func (p patient) compare() string {
	return "compare `pharos peer-config --router KIND --peer " + p.Address.String() + " --node " + p.node + "` with what the router has"
}

// peerFindings is one router: its session, its families, its BFD.
func (c *Case) peerFindings(peer config.Peer, seen *probe.Result) []Finding {
	p := patient{Peer: peer, asn: c.Setup.Config.BGP.ASN, node: c.Setup.Self.Node.Name, seen: seen}
	if a := c.Setup.Self.Node.Of(peer.Address.Is4()); a.IsValid() {
		p.source = a.String()
	}
	st := c.statusOf(peer.Address)
	switch {
	case st == nil && c.Status != nil && c.Status.Speaker != nil:
		return []Finding{problem(p.subject(), "the node does not know it", "the node has an older configuration", "`pharos reload`")}
	case st == nil && seen == nil:
		return nil // the source address is missing, which was said
	case st == nil:
		return []Finding{p.examine()}
	case st.State == "established":
		return append(p.established(st, c.Status.Routes), p.bfd(st)...)
	case st.State == "quarantined":
		return []Finding{problem(p.subject(), "it is left out: "+st.LastError, "what it sends is no BGP that can be read, by mistake or on purpose",
			"find out what answers at that address; a change of the peer's configuration lets it in at once")}
	}
	return append([]Finding{p.down(st)}, p.bfd(st)...)
}

// established is a session that is up, and what can be wrong with it all the same.
func (p patient) established(st *admin.PeerStatus, routes []admin.RouteStatus) []Finding {
	families := "no family"
	if len(st.Families) > 0 {
		families = strings.Join(st.Families, " and ")
	}
	out := []Finding{fine(p.subject(), "established for %s, hold time %s, takes %s, was sent %d routes",
		time.Since(st.Since).Round(time.Second), time.Duration(st.HoldSeconds*float64(time.Second)), families, st.Sent)}
	for _, is4 := range []bool{true, false} {
		name, wanted := family(is4), false
		for _, r := range routes {
			wanted = wanted || r.Announce && r.Prefix.Addr().Is4() == is4
		}
		if wanted && !slices.Contains(st.Families, name) {
			out = append(out, problem(p.subject(), "it takes no "+name+" prefixes on this session", "the address family is not active at the router",
				"activate "+name+" unicast for this neighbor there; "+p.compare()))
		}
	}
	if st.Received > 0 && !p.Look {
		out = append(out, note(p.subject(), fmt.Sprintf("it sends %d prefixes, which are not used", st.Received), "nothing filters what it sends to us",
			fmt.Sprintf("send nothing to %s there: more than %d end the session", p.source, p.MaxPrefixes)))
	}
	return out
}

func bfdSubject(p config.Peer) string { return fmt.Sprintf("BFD with %s", p.Address) }

// bfd is the BFD session beside it.
func (p patient) bfd(st *admin.PeerStatus) []Finding {
	b, subject := st.BFD, bfdSubject(p.Peer)
	port := 3784
	if p.BFD.Multihop {
		port = 4784
	}
	switch {
	case b == nil && p.BFD.Interval == 0:
		return []Finding{note(subject, "there is none", "", fmt.Sprintf("a machine that dies without a word is noticed after the hold time of %s; `bfd: {}` makes that 0.9 s", p.Hold))}
	case b == nil:
		return []Finding{problem(subject, "the node runs none, though it is configured", "the node has an older configuration", "`pharos reload`")}
	case b.State == "up":
		return []Finding{fine(subject, "up, silence is noticed in %s, failed %d times", time.Duration(b.DetectionMS)*time.Millisecond, b.Failures)}
	case b.PeerState == "admin_down":
		return []Finding{note(subject, "the router has taken it down on purpose", "", "start it there again (`no shutdown` of the BFD peer) when the work is done")}
	case strings.HasPrefix(b.LastError, "cannot send"):
		return []Finding{problem(subject, b.LastError, "this machine does not let its packets out", fmt.Sprintf("look at the route to %s and at this machine's firewall for UDP port %d", p.Address, port))}
	case b.DetectionMS == 0 && b.Failures == 0:
		kind, other := "single-hop", "multihop"
		if p.BFD.Multihop {
			kind, other = other, kind
		}
		return []Finding{problem(subject, "the router was never heard",
			fmt.Sprintf("it has no BFD for %s, has %s BFD where this peer has %s, or UDP port %d is dropped on the way", p.source, other, kind, port),
			fmt.Sprintf("turn BFD on for this neighbor there; FRR uses multihop BFD with ebgp-multihop and with ttl-security: set bfd.multihop then; let UDP %d pass", port))}
	}
	return []Finding{problem(subject, fmt.Sprintf("%s (%s there), failed %d times: %s", b.State, b.PeerState, b.Failures, cmp.Or(b.LastError, "no reason known")),
		"the router or the path between went silent for longer than interval × multiplier, or the router cannot hear us",
		fmt.Sprintf("look at the path for lost packets, at the router's load, and at filters for UDP port %d in both directions", port))}
}

// down is a session that does not come up, with what the node knows and what the probe found.
func (p patient) down(st *admin.PeerStatus) Finding {
	found := "the session is " + st.State
	if st.LastError != "" {
		found += ": " + st.LastError
	}
	// A router without a session has no BFD either: what the probe found is nearer to the cause.
	shadowed := strings.HasPrefix(st.LastError, "BFD: ") && p.seen != nil && p.seen.Cause != probe.Spoke
	if f, ok := p.told(found, st.LastError); ok && !shadowed {
		return f
	}
	if p.seen != nil && p.seen.Cause == probe.Said {
		found += " (" + p.seen.Detail + ")"
		if f, ok := p.told(found, p.seen.Detail); ok {
			return f
		}
		return problem(p.subject(), found, "it says so itself", p.compare())
	}
	if p.seen != nil && p.seen.Cause != probe.Spoke && p.seen.Cause != probe.Mute {
		f := p.examine()
		f.Found = found + "; " + f.Found
		if strings.Contains(st.Hint, "password") && p.seen.Cause == probe.Silent {
			f.Why = st.Hint + "; if not: " + f.Why // the kernel's counters know more, of the last minute
		}
		return f
	}
	if p.Passive {
		return problem(p.subject(), found, cmp.Or(st.Hint, "this peer is passive: the router has to connect"), "see that the router dials "+p.source+"; "+p.compare())
	}
	return problem(p.subject(), found, cmp.Or(st.Hint, "the router has not said why"), p.compare())
}

// told is what one of the two sides said about the other in BGP itself.
func (p patient) told(found, said string) (Finding, bool) {
	low := strings.ToLower(said)
	has := func(texts ...string) bool {
		for _, t := range texts {
			if strings.Contains(low, t) {
				return true
			}
		}
		return false
	}
	finding := func(why, do string, args ...any) (Finding, bool) {
		return problem(p.subject(), found, why, fmt.Sprintf(do, args...)), true
	}
	switch {
	case p.seen != nil && p.seen.Heard != nil && p.seen.Heard.ASN != p.ASN:
		return p.otherASN(found), true
	case has("as number mismatch", "bad peer as"):
		return finding(fmt.Sprintf("the AS numbers disagree: AS%d is said to the router, AS%d is expected of it", p.asn, p.ASN),
			"the router's neighbor %s needs remote AS %d, and its own must be %d", p.source, p.asn, p.ASN)
	case has("bad bgp identifier"):
		return finding("both sides have the same router ID", "give the router another router ID, or the node another address")
	case has("unacceptable hold time"):
		return finding(fmt.Sprintf("one side does not take the other's hold time, ours is %s", p.Hold), "set `hold` of the peer to what the router allows, or lower its minimum there")
	case has("maximum number of prefixes"):
		return finding("the router's limit on prefixes is reached", "raise maximum-prefix for %s there; it must hold all of bgp.prefixes", p.source)
	case has("administrative shutdown", "administrative reset", "administratively"):
		return finding("somebody shut the session down at the router", "`no shutdown` of neighbor %s there, when the work is done", p.source)
	case has("connection rejected", "peer de-configured"):
		return finding("the router does not know us", "it needs a neighbor %s with remote AS %d; %s", p.source, p.asn, p.compare())
	case has("more prefixes than its limit"):
		return finding(fmt.Sprintf("it sends more than %d prefixes", p.MaxPrefixes), "send nothing to %s there, or raise max_prefixes", p.source)
	case has("md5 key"):
		return finding("this kernel takes no TCP MD5 key", "use a kernel with CONFIG_TCP_MD5SIG, or a peer without password")
	case has("connects to"):
		return finding("the router has another address of ours", "its neighbor must be %s", p.source)
	case has("hold timer expired"):
		return finding("the connection stands, but nothing came for the hold time", "look at the router's load, and for a path that loses large packets (MTU) or all of them")
	case strings.HasPrefix(low, "bfd: "):
		return finding("BFD ended the session", "see BFD with %s", p.Address)
	case has("waits for bfd"):
		return finding("`strict` keeps BGP waiting for BFD", "see BFD with %s, or take `bfd.strict` out", p.Address)
	}
	return Finding{}, false
}

func (p patient) otherASN(found string) Finding {
	return problem(p.subject(), found+fmt.Sprintf(" (its OPEN says AS%d)", p.seen.Heard.ASN), fmt.Sprintf("the router at %s is of AS%d, AS%d is configured", p.Address, p.seen.Heard.ASN, p.ASN),
		fmt.Sprintf("set asn: %d at this peer, or correct the address if another router was meant", p.seen.Heard.ASN))
}

func family(is4 bool) string {
	if is4 {
		return "ipv4"
	}
	return "ipv6"
}
