package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
)

// vipFindings looks whether the anycast addresses of the announced prefixes are on this machine.
func (c *Case) vipFindings(here map[netip.Addr]string) (out []Finding) {
	iface := c.Setup.Self.Node.VIPInterface
	for _, p := range c.prefixes() {
		vips := c.vipsIn(p.Prefix)
		if len(vips) == 0 {
			out = append(out, note("prefix "+p.Prefix.String(), "no service of this site has an address in it", "what answers in it pharos does not know", ""))
		}
		for _, a := range vips {
			subject := "VIP " + a.String()
			if name, ok := here[a]; ok {
				out = append(out, fine(subject, "on %s", name))
				continue
			}
			switch {
			case iface == "":
				out = append(out, problem(subject, "it is on no interface of this machine, so what the routers send here for it is lost", "pharos does not set it up: there is no `vips`",
					fmt.Sprintf("`ip addr add %s dev lo` (and at every start), or let pharos do it with `vips: {interface: lo}`", netip.PrefixFrom(a, a.BitLen()))))
			case c.Status == nil:
				out = append(out, note(subject, "it is not on "+iface+" yet", "", "the node puts it there when it starts"))
			default:
				out = append(out, problem(subject, "it is not on "+iface+": its prefix is held back", c.whyUnbound(a), "mend that; the node puts the address back by itself"))
			}
		}
	}
	return out
}

func (c *Case) whyUnbound(a netip.Addr) string {
	for _, v := range c.Status.VIPs {
		if v.Address == a && v.Error != "" {
			return v.Error
		}
	}
	return "somebody removed it a moment ago, or its interface is gone"
}

// prefixes are those that this site may announce.
func (c *Case) prefixes() (out []config.Prefix) {
	for _, p := range c.Setup.Config.BGP.Prefixes {
		if slices.Contains(p.Sites, c.Setup.Self.Site.Name) {
			out = append(out, p)
		}
	}
	return out
}

// vipsIn are the addresses in a prefix of services that this site serves.
func (c *Case) vipsIn(in netip.Prefix) (out []netip.Addr) {
	site := c.Setup.Self.Site.Name
	for _, s := range c.Setup.Config.Services {
		if !slices.ContainsFunc(s.Pools, func(p config.Pool) bool { return p.Site == site }) {
			continue
		}
		all := slices.Clone(s.Anycast)
		for _, v := range s.VIPs {
			if v.Site == site {
				all = append(all, v.Addresses...)
			}
		}
		for _, a := range all {
			if in.Contains(a) {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// routeFindings follows each prefix to the routers.
func (c *Case) routeFindings() (out []Finding) {
	if c.Status == nil || c.Status.Speaker == nil {
		return nil
	}
	for _, r := range c.Status.Routes {
		subject := "prefix " + r.Prefix.String()
		switch {
		case !r.Announce:
			why := r.Why.String()
			if r.Blame != "" {
				why = "service " + r.Blame + ": " + why
			}
			if r.Override != "" {
				why += " (" + r.Override + ")"
			}
			out = append(out, note(subject, "it is not announced from here", why, ""))
		case r.Error != "":
			out = append(out, problem(subject, "it should be announced and is not: "+r.Error, "the speaker holds it back", "mend what it names; it is announced by itself then"))
		case !r.Installed:
			out = append(out, problem(subject, "it should be announced, and the BGP process does not hold it yet", "it starts, or is not well", "see the BGP process above"))
		default:
			out = append(out, c.sentFindings(subject, r)...)
		}
	}
	return out
}

// sentFindings is an installed prefix at each router.
func (c *Case) sentFindings(subject string, r admin.RouteStatus) (out []Finding) {
	var sent, seen []string
	for _, p := range r.Peers {
		st := c.statusOf(p.Address)
		up := st != nil && st.State == "established"
		switch {
		case !p.Wanted:
			out = append(out, note(subject, p.Address.String()+" does not hear of it", "`to` denies it", ""))
		case !up: // said with the peer
		case !p.Sent && !slices.Contains(st.Families, family(r.Prefix.Addr().Is4())): // so was that
		case !p.Sent:
			out = append(out, problem(subject, "it is not in what was sent to "+p.Address.String(), "the session came up a moment ago, or the BGP process refuses to export it",
				"look again in some seconds; `gobgp neighbor "+p.Address.String()+" adj-out` over bgp.gobgp_socket shows what was sent"))
		case p.Seen == admin.SeenNot:
			out = append(out, problem(subject, "it was sent to "+p.Address.String()+", and no node that looks sees it anywhere", "the router drops it by policy: FRR drops everything of an eBGP neighbor without route-maps (RFC 8212), prefix lists may not hold it",
				"permit it in the router's import policy: `pharos peer-config --router KIND --peer "+p.Address.String()+"` has one"))
		default:
			sent = append(sent, p.Address.String())
			if p.Seen == admin.SeenYes {
				seen = append(seen, p.Address.String())
			}
		}
	}
	if len(sent) > 0 {
		text := "sent to " + strings.Join(sent, ", ")
		if len(seen) > 0 {
			text += "; taken by " + strings.Join(seen, ", ") + ", as others see"
		} else {
			text += "; whether they take it BGP does not tell (see `look`)"
		}
		out = append(out, fine(subject, "%s", text))
	}
	return out
}
