package steer

import (
	"net/netip"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

// doored is web at fra and iad with an anycast address behind a listener and a DNS socket; its prefix requires both.
func doored(t *testing.T) *Topology {
	t.Helper()
	web := service(steps(config.PolicyGeo), "fra", "iad")
	web.Anycast = []netip.Addr{netip.MustParseAddr("198.18.0.80"), netip.MustParseAddr("198.19.0.80")}
	cfg := fleet(web)
	cfg.DNS.Listen = []config.Bind{{Addr: netip.MustParseAddr("198.18.0.53"), Port: 53}}
	cfg.Listeners = []config.Listener{{Bind: config.Bind{Host: "vip", Port: 443}, TCP: &config.TCPListener{Service: "web"}}}
	cfg.BGP = config.BGP{ASN: 64500, Peers: []config.Peer{{Site: "fra"}, {Site: "iad"}}, Prefixes: []config.Prefix{{
		Prefix: netip.MustParsePrefix("198.18.0.0/24"), Requires: []string{"web"}, Listeners: []uint16{443}, DNS: []string{"www.example.com."},
		Sites: []string{"fra", "iad"},
	}}}
	return compile(t, cfg, "fra1")
}

// A prefix is announced once this node answers at each of its doors, and withdrawn once it does not at one.
func TestDoors(t *testing.T) {
	topology := doored(t)
	if got := topology.Doors(); len(got) != 2 || got[0].String() != "DNS at 198.18.0.53:53 for www.example.com" || got[1].String() != "listener 198.18.0.80:443" {
		t.Fatalf("doors %v", got)
	}
	type doors = []health.Status
	const none, unknown, up, down = health.StatusNone, health.StatusUnknown, health.StatusUp, health.StatusDown
	for _, c := range []struct {
		name    string
		doors   doors
		missing string
		order   string
		before  bool // announced before
		want    string
		lacks   string
	}{
		{"all open", doors{up, up}, "", "", false, "preferred: in use", ""},
		{"nothing known", nil, "", "", false, "withdrawn: not probed through the VIP yet", "DNS at 198.18.0.53:53 for www.example.com"},
		{"one not asked yet", doors{up, none}, "", "", false, "withdrawn: not probed through the VIP yet", "listener 198.18.0.80:443"},
		{"one not asked, one closed", doors{unknown, down}, "", "", false, "withdrawn: a listener takes no connections", "listener 198.18.0.80:443"},
		{"nothing known any more", nil, "", "", true, "preferred: in use", ""},
		{"one closes", doors{up, down}, "", "", true, "withdrawn: a listener takes no connections", "listener 198.18.0.80:443"},
		{"DNS falls silent", doors{down, up}, "", "", true, "withdrawn: DNS does not answer through the VIP", "DNS at 198.18.0.53:53 for www.example.com"},
		{"up by order", doors{down, down}, "", "up prefix/198.18.0.0/24", false, "preferred: up by order, whatever the checks say", ""},
		{"a VIP is missing", doors{up, up}, "198.18.0.80", "", true, "withdrawn: a VIP of it is not on this node", "VIP 198.18.0.80"},
		{"up by order, without its VIP", doors{up, up}, "198.18.0.80", "up prefix/198.18.0.0/24", true, "withdrawn: a VIP of it is not on this node", "VIP 198.18.0.80"},
		{"a VIP of another prefix is missing", doors{up, up}, "198.19.0.80", "", true, "preferred: in use", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			facts := Facts{Ready: true, Now: now, Doors: doors{up, up}}
			var plan *Plan
			if c.before {
				plan = Decide(topology, view(t, topology, nil), facts, nil)
			}
			facts.Doors, facts.Now = c.doors, now.Add(time.Second)
			if c.missing != "" {
				facts.Missing = []netip.Addr{netip.MustParseAddr(c.missing)}
			}
			if c.order != "" {
				facts.Overrides = ordered(t, c.order)
			}
			plan = Decide(topology, view(t, topology, nil), facts, plan)
			if r := &plan.Routes[0]; routeLine(r) != c.want || r.Lacks != c.lacks {
				t.Errorf("got %q, lacks %q; want %q, %q", routeLine(r), r.Lacks, c.want, c.lacks)
			}
		})
	}
}
