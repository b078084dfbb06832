package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pharos-lb/pharos/bgp/peerconfig"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/node"
)

func newPeerConfig() *cobra.Command {
	var router, site, name, peer, format string
	cmd := &cobra.Command{
		Use:   "peer-config [FILE]",
		Short: "Print what the routers have to be told",
		Long: `Peer-config prints the other side of the BGP sessions in a configuration, ready for
a router: neighbors, filters that let in exactly the prefixes of this fleet and
send it nothing, maximum-prefix, GRACEFUL_SHUTDOWN, timers, BFD, TTL security. In
place of a password stands REPLACE-WITH-THE-PASSWORD. It asks and changes nobody.
Of peers that are a prefix (from) --peer names the router.

The forms for FRR and BIRD are tested with those; the others follow the vendors'
manuals: read them before they go live.`,
		Example: "  pharos peer-config --router frr\n  pharos peer-config pharos.yaml --router junos --site fra",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := defaultConfig
			if len(args) == 1 {
				file = args[0]
			}
			if err := checkFormat(cmd, format); err != nil {
				return err
			}
			if !slices.Contains(peerconfig.Kinds(), router) {
				return usage(cmd, fmt.Errorf("--router %q: want one of %s", router, strings.Join(peerconfig.Kinds(), ", ")))
			}
			only := selection{site: site, node: name}
			if peer != "" {
				var err error
				if only.peer, err = netip.ParseAddr(peer); err != nil {
					return usage(cmd, fmt.Errorf("--peer %q: want an address", peer))
				}
				only.peer = only.peer.Unmap()
			}
			setup, err := node.Load(file, name)
			if err != nil {
				return err
			}
			return printPeerConfig(cmd, setup.Config, router, format, only)
		},
	}
	cmd.Flags().StringVar(&router, "router", "", "kind of router: "+strings.Join(peerconfig.Kinds(), ", "))
	cmd.Flags().StringVar(&site, "site", "", "only the routers of this site")
	cmd.Flags().StringVar(&name, "node", "", "only the sessions of this node")
	cmd.Flags().StringVar(&peer, "peer", "", "only the router with this address; a router that connects from a prefix (from) has to be named")
	addFormat(cmd, &format)
	return cmd
}

// A selection narrows the sessions down; empty = all.
type selection struct {
	site, node string
	peer       netip.Addr
}

// A peerText is the JSON form of one router's configuration.
type peerText struct {
	Site   string     `json:"site"`
	Peer   netip.Addr `json:"peer"`
	ASN    uint32     `json:"asn"`
	Router string     `json:"router"`
	Text   string     `json:"text"`
}

func printPeerConfig(cmd *cobra.Command, cfg *config.Config, kind, format string, only selection) error {
	texts := []peerText{}
	for _, p := range cfg.BGP.Peers {
		r, ok := peerRouter(cfg, p, only)
		if p.From.IsValid() && !only.peer.IsValid() && (only.site == "" || only.site == p.Site) {
			fmt.Fprintf(cmd.ErrOrStderr(), "left out: the routers of %s that connect from %s; --peer ADDRESS prints what one of them needs\n", p.Site, p.From)
		}
		if !ok {
			continue
		}
		text, err := peerconfig.Render(kind, r)
		if err != nil {
			return err
		}
		texts = append(texts, peerText{p.Site, p.Address, p.ASN, kind, text})
	}
	if len(texts) == 0 {
		return fmt.Errorf("%s has no BGP peer that fits: bgp.peers names the routers of each site", cfg.File)
	}
	if format == formatJSON {
		return writeJSON(cmd.OutOrStdout(), texts)
	}
	for i, t := range texts {
		if i > 0 {
			fmt.Fprintln(cmd.OutOrStdout())
		}
		fmt.Fprint(cmd.OutOrStdout(), t.Text)
	}
	return nil
}

// peerRouter is one peer as the router sees the session; false = it was not asked for.
func peerRouter(cfg *config.Config, p config.Peer, only selection) (peerconfig.Router, bool) {
	if only.site != "" && p.Site != only.site {
		return peerconfig.Router{}, false
	}
	if p.From.IsValid() { // one of its routers can be asked for
		if !p.From.Contains(only.peer) {
			return peerconfig.Router{}, false
		}
		p.Address, p.Port = only.peer, 179
	}
	if only.peer.IsValid() && p.Address != only.peer {
		return peerconfig.Router{}, false
	}
	r := peerconfig.Router{
		Site: p.Site, Address: p.Address, ASN: p.ASN, Port: p.Port, Fleet: cfg.BGP.ASN, Passive: p.Passive,
		Password: p.Password.IsSet(), Hold: p.Hold, Multihop: p.Multihop, TTLSecurity: p.TTLSecurity,
		BFD: peerconfig.BFD{Interval: p.BFD.Interval, Multiplier: p.BFD.Multiplier, Multihop: p.BFD.Multihop},
	}
	if cfg.BGP.Listen {
		r.FleetPort = cfg.BGP.Port
	}
	for _, site := range cfg.Sites {
		for _, n := range site.Nodes {
			if a := n.Of(p.Address.Is4()); site.Name == p.Site && a.IsValid() && (only.node == "" || n.Name == only.node) {
				r.Nodes = append(r.Nodes, peerconfig.Node{Name: n.Name, Address: a})
			}
		}
	}
	for _, prefix := range cfg.BGP.Prefixes {
		if slices.Contains(prefix.Sites, p.Site) && !denied(prefix, p) {
			r.Prefixes = append(r.Prefixes, prefix.Prefix)
		}
	}
	slices.SortFunc(r.Prefixes, netip.Prefix.Compare)
	return r, len(r.Nodes) > 0
}

// denied reports whether a peer never hears of a prefix: the first `to` that means it says so.
func denied(prefix config.Prefix, p config.Peer) bool {
	for _, to := range prefix.To {
		if slices.ContainsFunc(to.Peers, func(in netip.Prefix) bool { return in.Bits() <= p.Within().Bits() && in.Contains(p.Address) }) {
			return to.Deny
		}
	}
	return false
}
