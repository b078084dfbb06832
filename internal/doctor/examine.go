package doctor

import (
	"fmt"
	"strings"

	"github.com/pharos-lb/pharos/bgp/probe"
)

// examine is what a probe found, with its cause and what to do.
func (p patient) examine() Finding {
	r := p.seen
	at := fmt.Sprintf("TCP port %d from %s", p.Port, p.source)
	say := func(found, why, do string) Finding { return problem(p.subject(), found, why, do) }
	switch r.Cause {
	case probe.Spoke:
		return p.spoke()
	case probe.Mute:
		return note(p.subject(), at+" is open, and the router said nothing", "it waits for our OPEN, so that its side cannot be seen from here", "start the node, or look with --open")
	case probe.Deaf:
		return say(at+" is open, the router speaks and acknowledges nothing that we send", "something between drops this direction, or its TTL security wants fewer hops than there are",
			"look at filters on the way to "+p.Address.String()+", and at the distance")
	case probe.Closed:
		return say(at+" is open, and the router closed the connection without a word",
			"it does not know "+p.source+", or the neighbor is shut down there, or it backs off after an error",
			fmt.Sprintf("it needs a neighbor %s with remote AS %d; %s", p.source, p.asn, p.compare()))
	case probe.Said:
		if f, ok := p.told("the router refuses: "+r.Detail, r.Detail); ok {
			return f
		}
		return say("the router refuses: "+r.Detail, "it says so itself", p.compare())
	case probe.Foreign:
		return say(at+" is open, and what answers is not BGP: "+r.Detail, "something else than a router's BGP listens there", "correct the address or the `port` of this peer")
	case probe.Refused:
		return say(at+" is refused", "the address is there, and nothing listens on the port, or a firewall rejects it",
			"start BGP on the router with a neighbor "+p.source+"; see that it listens on that address and that `port` is right")
	case probe.NoSource:
		return say(at+" cannot be used: "+r.Detail, "this machine does not have the address "+p.source, "give an interface the address, or change it in `sites`")
	case probe.NoKey:
		return say("the connection cannot be signed: "+r.Detail, "this kernel takes no TCP MD5 key", "use a kernel with CONFIG_TCP_MD5SIG, or a peer without password")
	case probe.Forbidden:
		return say(at+" is forbidden here: "+r.Detail, "this machine's own firewall or policy does not let it out", "permit TCP to "+p.Address.String()+" in the output rules")
	case probe.NoPassword:
		return say(at+" is answered without the TCP MD5 password, and not with it", "the router has no password for "+p.source, "set the password there, or take it out of this peer")
	case probe.Further:
		return p.further()
	case probe.WantsTTL:
		return say(at+" is answered only to a TTL of 255", "the router has TTL security (GTSM) for "+p.source+" and this peer has not",
			"set ttl_security at this peer to the router's number of hops (1 if directly connected), or take it off there")
	case probe.LacksTTL:
		return say(at+" is answered, but not with a TTL that ttl_security: "+fmt.Sprint(p.TTLSecurity)+" lets pass",
			"the router has no TTL security for "+p.source+", or is further away than that", "set TTL security alike there, correct the number of hops, or use `multihop`")
	case probe.Unreachable:
		return say(fmt.Sprintf("%s is not reachable from %s: %s", p.Address, p.source, r.Detail), "nobody has that address on the link, or there is no route to it",
			"look at the link and the neighbor's address (`ip neigh`, `ip route get "+p.Address.String()+" from "+p.source+"`)")
	case probe.Silent:
		return p.silent(at)
	}
	return say(at+": "+r.Detail, "the system says no more", p.compare())
}

func (p patient) further() Finding {
	hops := p.seen.Hops
	if p.Multihop > 0 {
		return problem(p.subject(), fmt.Sprintf("it is reached with a TTL of %d, multihop is %d", hops, p.Multihop), "it is further away than configured",
			fmt.Sprintf("set multihop: %d here and at the router", hops))
	}
	return problem(p.subject(), fmt.Sprintf("it is not directly connected: a TTL of %d reaches it, 1 does not", hops), "eBGP packets leave with a TTL of 1 unless `multihop` is set",
		fmt.Sprintf("set multihop: %d here and at the router, or correct the address", hops))
}

// silent is a router that answers to nothing.
func (p patient) silent(at string) Finding {
	why := "a firewall drops it, the router has a TCP MD5 password and this peer has none, or nobody has the address any more"
	do := fmt.Sprintf("let TCP %d pass in both directions; if the router has a password for %s, set password_file here", p.Port, p.source)
	if p.Password.IsSet() {
		why = "the TCP MD5 passwords differ (wrong signatures are dropped in silence), or a firewall drops it"
		do = fmt.Sprintf("set the same password on both sides (mind blanks and newlines); let TCP %d pass in both directions", p.Port)
	}
	return problem(p.subject(), at+" gets no answer", why, do)
}

// spoke is a router that answered with its OPEN: what it says of itself is compared.
func (p patient) spoke() Finding {
	h := p.seen.Heard
	found := "the router answers"
	if h.ASN != p.ASN {
		return p.otherASN(found)
	}
	var families []string
	for name, on := range map[string]bool{"ipv4": h.IPv4, "ipv6": h.IPv6} {
		if on {
			families = append(families, name)
		}
	}
	if len(families) == 2 {
		families = []string{"ipv4", "ipv6"}
	}
	took := ""
	if p.seen.Took {
		took = ", and takes ours"
	}
	return fine(p.subject(), "the router answers: AS%d, router ID %s, hold time %s, %s%s", h.ASN, h.RouterID, h.Hold, strings.Join(families, " and "), took)
}

// backoffCause and backoffRemedy read why the BGP process ended.
func backoffCause(last string) string {
	low := strings.ToLower(last)
	switch {
	case strings.Contains(low, "address already in use"):
		return "another BGP speaker (bird, frr, another pharos) has the port"
	case strings.Contains(low, "permission denied"):
		return "ports below 1024 take CAP_NET_BIND_SERVICE"
	case strings.Contains(low, "cannot assign requested address"):
		return "this machine does not have the address"
	case strings.Contains(low, "by what peer"):
		return "a peer sends what ends it; that peer is left out"
	}
	return "see the log of the node"
}

func backoffRemedy(last string, port uint16) string {
	low := strings.ToLower(last)
	switch {
	case strings.Contains(low, "address already in use"):
		return fmt.Sprintf("`ss -ltnp sport = :%d` names it; stop it, or give pharos another `bgp.port`", port)
	case strings.Contains(low, "permission denied"):
		return "start the node by its systemd unit (deploy/pharos.service), or set bgp.listen: false"
	case strings.Contains(low, "cannot assign requested address"):
		return "give an interface the node's address, or change it in `sites`"
	case strings.Contains(low, "by what peer"):
		return "find out what answers at that peer's address"
	}
	return "report it with the log, if it is not plain from there"
}
