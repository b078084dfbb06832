package node

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

// guarded has everything that the guards of a reload look at.
const guarded = `
cluster: {name: g, port: 7946, secret: "${GOSSIP}"}
admin: {socket: a.sock, listen: "127.0.0.1:9153", token: "${TOKEN}"}
sites:
  a: {location: FRA, nodes: {a1: 127.9.1.1, a2: 127.9.1.9}}
  b: {location: SIN, nodes: {b1: 127.9.1.2}}
  c: {location: IAD, nodes: {c1: 127.9.1.3}}
  d: {location: GRU, nodes: {d1: 127.9.1.4}}
services:
  one: {check: {tcp: {}}, backends: {a: ["127.9.1.11:80"], b: ["127.9.1.14:80"]}, vip: {a: 127.9.1.81, b: 127.9.1.91}}
  two: {check: {tcp: {}}, backends: {a: ["127.9.1.12:80"], b: ["127.9.1.15:80"]}, vip: {a: 127.9.1.82, b: 127.9.1.92}}
  three: {check: {tcp: {}}, backends: {a: ["127.9.1.13:80"], b: ["127.9.1.16:80"]}, vip: {a: 127.9.1.83, b: 127.9.1.93}}
zones:
  x.test: {names: {n1: {service: one}}}
  y.test: {names: {n2: {service: one}}}
  z.test: {names: {n3: {service: one}}}
listeners:
  - {bind: "vip:8080", tcp: {service: one}}
  - {bind: "vip:8081", tcp: {service: one}}
  - {bind: "vip:8082", http: {routes: [{service: two}]}}
bgp:
  asn: 64500
  prefixes:
    - {prefix: 192.0.2.0/24, requires: [one]}
    - {prefix: 198.51.100.0/24, requires: [two]}
    - {prefix: 203.0.113.0/24, requires: [three]}
  peers: {a: [{address: 127.9.1.7, asn: 64501}], b: [{address: 127.9.1.8, asn: 64501}]}
`

// secrets sets what guarded takes from the environment.
func secrets(t *testing.T, gossip, token string) {
	t.Helper()
	t.Setenv("GOSSIP", base64.StdEncoding.EncodeToString([]byte(strings.Repeat(gossip, 16))))
	t.Setenv("TOKEN", strings.Repeat(token, 20))
}

// parse makes the part of a1's setup that the guards look at.
func parse(t *testing.T, text string) *Setup {
	t.Helper()
	cfg, err := config.Parse("pharos.yaml", []byte(text), config.Sources{Getenv: os.LookupEnv})
	if err != nil {
		t.Fatal(err)
	}
	self, err := findSelf(cfg, "a1")
	if err != nil {
		t.Fatal(err)
	}
	db, err := geo.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	topology, err := steer.Compile(cfg, db, "a1")
	if err != nil {
		t.Fatal(err)
	}
	return &Setup{Config: cfg, Self: self, Topology: topology}
}

// edit replaces each old text, which must be there once, by the one after it.
func edit(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		text = replaceOnce(t, text, pairs[i], pairs[i+1])
	}
	return text
}

func TestWhatNeedsARestart(t *testing.T) {
	secrets(t, "A", "k")
	old := parse(t, guarded)
	for _, tt := range []struct {
		name          string
		change        []string
		gossip, token string
		want          string // "" = no restart needed
	}{
		{name: "nothing", gossip: "A", token: "k"},
		{name: "others' addresses", change: []string{"127.9.1.2}", "127.9.1.22}", "a2: 127.9.1.9", "a2: 127.9.1.99"}, gossip: "A", token: "k"},
		{name: "cluster name", change: []string{"name: g,", "name: h,"}, gossip: "A", token: "k", want: `cluster.name changed from "g" to "h"`},
		{name: "port", change: []string{"port: 7946", "port: 7947"}, gossip: "A", token: "k", want: "cluster.port changed"},
		{name: "site", change: []string{"a1: 127.9.1.1, ", "", "{b1: 127.9.1.2}", "{b1: 127.9.1.2, a1: 127.9.1.1}"}, gossip: "A", token: "k", want: `site changed from "a" to "b"`},
		{name: "address", change: []string{"a1: 127.9.1.1,", "a1: 127.9.1.21,"}, gossip: "A", token: "k", want: `address changed from "127.9.1.1" to "127.9.1.21"`},
		{name: "gossip key", gossip: "B", token: "k"},
		{name: "admin socket", change: []string{"a.sock", "b.sock"}, gossip: "A", token: "k", want: "admin changed"},
		{name: "admin address", change: []string{":9153", ":9154"}, gossip: "A", token: "k", want: "admin changed"},
		{name: "admin token", gossip: "A", token: "K", want: "admin changed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			secrets(t, tt.gossip, tt.token)
			err := checkRestart(old, parse(t, edit(t, guarded, tt.change...)))
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "needs a restart")):
				t.Errorf("got %v, want a refusal with %q", err, tt.want)
			}
		})
	}
}

// One third of each kind may go without a word, two thirds may not.
func TestLargeRemovalsAreRefused(t *testing.T) {
	secrets(t, "A", "k")
	old := parse(t, guarded)
	const (
		three = "  three: {check: {tcp: {}}, backends: {a: [\"127.9.1.13:80\"], b: [\"127.9.1.16:80\"]}, vip: {a: 127.9.1.83, b: 127.9.1.93}}\n"
		two   = "  two: {check: {tcp: {}}, backends: {a: [\"127.9.1.12:80\"], b: [\"127.9.1.15:80\"]}, vip: {a: 127.9.1.82, b: 127.9.1.92}}\n"
		c     = "  c: {location: IAD, nodes: {c1: 127.9.1.3}}\n"
		d     = "  d: {location: GRU, nodes: {d1: 127.9.1.4}}\n"
	)
	for _, tt := range []struct {
		name   string
		change []string
		want   string
	}{
		{"nothing", nil, ""},
		{"one service", []string{three, "", "requires: [three]", "requires: [one]"}, ""},
		{"two services", []string{
			three, "", "requires: [three]", "requires: [one]",
			two, "", "requires: [two]", "requires: [one]", "[{service: two}]", "[{service: one}]",
		}, "remove 2 of 3 services (three, two)"},
		{"one zone", []string{"  z.test: {names: {n3: {service: one}}}\n", "", "{n1: {service: one}}", "{n1: {service: one}, n3.z: {service: one}}"}, ""},
		{"two zones", []string{
			"  z.test: {names: {n3: {service: one}}}\n", "", "  y.test: {names: {n2: {service: one}}}\n", "",
		}, "remove 2 of 3 zones (y.test., z.test.)"},
		{"one name", []string{"n3:", "n4:"}, ""},
		{"two names", []string{"n3:", "n4:", "n2:", "n5:"}, "remove 2 of 3 steered names (n2.y.test., n3.z.test.)"},
		{"one site", []string{c, ""}, ""},
		{"two of four sites", []string{c, "", d, ""}, "remove 2 of 4 sites (c, d)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := checkRemoval(old.Config, parse(t, edit(t, guarded, tt.change...)).Config)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want a refusal with %q", err, tt.want)
			}
		})
	}
}

// What is announced now keeps somebody to announce it to and somewhere to lead.
func TestLossOfAnnouncedRoutesIsRefused(t *testing.T) {
	secrets(t, "A", "k")
	old := parse(t, guarded)
	prefix := netip.MustParsePrefix
	const peers = "{a: [{address: 127.9.1.7, asn: 64501}], b: [{address: 127.9.1.8, asn: 64501}]}"
	onlyB := []string{peers, "{b: [{address: 127.9.1.8, asn: 64501}]}"}
	for _, tt := range []struct {
		name      string
		announced []string
		change    []string
		want      string
	}{
		{"nothing changes", []string{"192.0.2.0/24", "198.51.100.0/24"}, nil, ""},
		{"peers vanish", []string{"192.0.2.0/24"}, onlyB, "withdraw 192.0.2.0/24"},
		{"peers vanish, nothing announced", nil, onlyB, ""},
		{"one of two peers vanishes", []string{"192.0.2.0/24"}, []string{peers, "{a: [{address: 127.9.1.7, asn: 64501}]}"}, ""},
		{"prefix not for this site any more", []string{"192.0.2.0/24"}, []string{"192.0.2.0/24, ", "192.0.2.0/24, sites: [b], "}, "withdraw 192.0.2.0/24"},
		{"prefix gone", []string{"203.0.113.0/24"}, []string{"203.0.113.0/24", "100.64.0.0/24"}, "no site would announce 203.0.113.0/24 any more (a, b did)"},
		{"prefix gone, announced elsewhere", []string{"192.0.2.0/24"}, []string{"203.0.113.0/24", "100.64.0.0/24"}, "no site would announce 203.0.113.0/24 any more"},
		{"two prefixes gone", nil, []string{"203.0.113.0/24", "100.64.0.0/24", "198.51.100.0/24", "100.64.1.0/24"}, "remove 2 of 3 prefixes (198.51.100.0/24, 203.0.113.0/24)"},
		{"last HTTP listener", []string{"198.51.100.0/24"}, []string{"[{service: two}]", "[{service: one}]"}, "last listener of service two"},
		{"last HTTP listener, not announced", []string{"192.0.2.0/24"}, []string{"[{service: two}]", "[{service: one}]"}, ""},
		{"one of two TCP listeners", []string{"192.0.2.0/24"}, []string{"  - {bind: \"vip:8081\", tcp: {service: one}}\n", ""}, ""},
		{"both TCP listeners", []string{"192.0.2.0/24"}, []string{
			"  - {bind: \"vip:8080\", tcp: {service: one}}\n", "", "  - {bind: \"vip:8081\", tcp: {service: one}}\n", "",
		}, "last listener of service one"},
		{"never had a listener", []string{"203.0.113.0/24"}, []string{"[{service: two}]", "[{service: one}]"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan := &steer.Plan{}
			for _, text := range []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"} {
				plan.Routes = append(plan.Routes, steer.Route{Prefix: prefix(text), Announce: strings.Contains(fmt.Sprint(tt.announced), text)})
			}
			next := parse(t, edit(t, guarded, tt.change...))
			err := checkAllowed(old, next, plan, admin.Allowed{})
			if all := checkAllowed(old, next, plan, admin.Allowed{Remove: true, Withdraw: true}); all != nil {
				t.Errorf("refused although it is allowed: %v", all)
			}
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want a refusal with %q", err, tt.want)
			}
		})
	}
	if err := checkAllowed(old, old, nil, admin.Allowed{}); err != nil {
		t.Errorf("before the first plan: %v", err)
	}
}
