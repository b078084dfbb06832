// Package peerconfig writes the other side of a BGP session: what a router that peers with pharos nodes has to be told.
//
// It prints text and changes nothing. What it prints accepts exactly the prefixes that pharos may announce, sends pharos
// nothing, limits the number of prefixes, lets GRACEFUL_SHUTDOWN (RFC 8326) lower the preference, and sets BFD, TTL security,
// multihop and timers as our side has them. Passwords never appear: Placeholder stands for them. cmd/pharos calls it.
//
//	text, err := peerconfig.Render("frr", peerconfig.Router{ASN: 64496, Address: router, Fleet: 64500, Nodes: nodes, …})
//
// The FRR and BIRD forms are loaded by those in the tests; the others were loaded by no router.
package peerconfig

import (
	"embed"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/template"
	"time"
)

// Placeholder stands where the TCP MD5 password goes.
const Placeholder = "REPLACE-WITH-THE-PASSWORD"

// A Node is one pharos node that the router peers with.
type Node struct {
	Name    string
	Address netip.Addr
}

// BFD is the session's BFD; zero = none.
type BFD struct {
	Interval   time.Duration
	Multiplier int
	Multihop   bool
}

// A Router is one router with its pharos neighbors.
type Router struct {
	Site        string
	Address     netip.Addr
	ASN         uint32
	Port        uint16 // where we dial it
	Fleet       uint32 // our AS number
	FleetPort   uint16 // where our nodes listen; 0 = they do not
	Nodes       []Node // sorted by name; never empty
	Passive     bool   // we wait for the router
	Password    bool
	Hold        time.Duration
	Multihop    int
	TTLSecurity int
	BFD         BFD
	Prefixes    []netip.Prefix // what it may hear
}

// Kinds are the routers that Render knows.
func Kinds() []string { return []string{"frr", "bird", "junos", "ios-xr", "eos", "sros"} }

//go:embed templates/*.tmpl
var files embed.FS

// Render returns the configuration for a kind of router.
func Render(kind string, r Router) (string, error) {
	if !slices.Contains(Kinds(), kind) {
		return "", fmt.Errorf("router %q is not known: want one of %s", kind, strings.Join(Kinds(), ", "))
	}
	t, err := template.New(kind+".tmpl").Funcs(template.FuncMap{
		"upper": strings.ToUpper, "name": name, "seq": func(i int) int { return 10 * (i + 1) },
	}).ParseFS(files, "templates/"+kind+".tmpl")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, r); err != nil {
		return "", err
	}
	return b.String(), nil
}

// name makes a node's name fit for every router: letters, digits, underscores.
func name(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, s)
}

// The rest is for the templates.

// Internal reports whether the session is iBGP.
func (r Router) Internal() bool { return r.ASN == r.Fleet }

// V4 returns the IPv4 prefixes.
func (r Router) V4() []netip.Prefix { return r.of(true) }

// V6 returns the IPv6 prefixes.
func (r Router) V6() []netip.Prefix { return r.of(false) }

func (r Router) of(is4 bool) (out []netip.Prefix) {
	for _, p := range r.Prefixes {
		if p.Addr().Is4() == is4 {
			out = append(out, p)
		}
	}
	return out
}

// Maximum is how many prefixes of a family the router should take: twice as many as there are, and room for some.
func (r Router) Maximum() int { return max(10, 2*len(r.Prefixes)) }

// Over4 reports whether the session runs over IPv4.
func (r Router) Over4() bool { return r.Address.Is4() }

// HoldSeconds and KeepaliveSeconds are the timers.
func (r Router) HoldSeconds() int { return int(r.Hold / time.Second) }

// KeepaliveSeconds is a third of the hold time.
func (r Router) KeepaliveSeconds() int { return max(1, r.HoldSeconds()/3) }

// IntervalMS is BFD's interval.
func (r Router) IntervalMS() int64 { return r.BFD.Interval.Milliseconds() }

// HasBFD reports whether the session has BFD.
func (r Router) HasBFD() bool { return r.BFD.Interval > 0 }

// RouterPassive reports whether the router has to wait for us.
func (r Router) RouterPassive() bool { return r.FleetPort == 0 }

// OtherPort reports whether our nodes listen elsewhere than on 179.
func (r Router) OtherPort() bool { return r.FleetPort != 0 && r.FleetPort != 179 }

// MinTTL is the least TTL that a multihop BFD packet of ours arrives with: it leaves with 255.
func (r Router) MinTTL() int { return max(1, 256-r.Multihop) }

// SecureTTL is the least TTL that TTL security lets pass.
func (r Router) SecureTTL() int { return 256 - r.TTLSecurity }
