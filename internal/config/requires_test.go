package config_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
)

// What a prefix requires besides services becomes a door at each of its addresses, as each node has them.
func TestDoors(t *testing.T) {
	c := mustParse(t, "pharos.yaml", `
sites:
  fra: {location: FRA, nodes: {fra1: 127.0.0.1}}
  iad: {location: IAD, nodes: {iad1: 127.0.0.2}}
services:
  web: {backends: {fra: "10.0.0.1:80", iad: "10.0.0.2:80"}, vip: {fra: 192.0.2.1, iad: 192.0.2.2, anycast: [198.51.100.1, 198.51.101.1]}}
  db: {check: tcp, backends: {fra: "10.0.0.1:81"}, vip: {fra: 192.0.2.3, anycast: 198.51.100.3}}
zones:
  example.com: {records: "@ SOA ns1 hostmaster 1 2 3 4 5\n@ NS ns1\nns1 A 127.0.0.1\n", names: {www: {service: web}}}
dns: {listen: [":53", "203.0.113.53:5300"]}
listeners:
  - {bind: "vip:443", tcp: {service: web}}
  - {bind: "vip:80", http: {routes: [{service: db}]}}
bgp:
  asn: 64500
  prefixes:
    - {prefix: 192.0.2.0/24, requires: [db, "listener:443", web], sites: [fra]}
    - {prefix: 198.51.100.0/24, requires: ["dns:WWW.example.com.", "listener:443"]}
    - {prefix: 203.0.113.0/24, requires: "dns:example.com"}
  peers:
    fra: [{address: 127.0.0.9, asn: 64496}]
    iad: [{address: 127.0.0.10, asn: 64496}]
`)
	var got []string
	for i := range c.BGP.Prefixes {
		p := &c.BGP.Prefixes[i]
		got = append(got, fmt.Sprint(p.Prefix, p.Requires, p.Listeners, p.DNS))
		for _, site := range c.Sites {
			for _, d := range c.Doors(p, site.Name, site.Nodes[0]) {
				if slices.Contains(p.Sites, site.Name) {
					got = append(got, site.Name+" "+d.String())
				}
			}
		}
	}
	want := []string{
		"192.0.2.0/24 [db web] [443] []",
		"fra listener 192.0.2.1:443",
		"198.51.100.0/24 [] [443] [www.example.com.]",
		"fra DNS at 198.51.100.1:53 for www.example.com",
		"fra listener 198.51.100.1:443",
		"fra DNS at 198.51.100.3:53 for www.example.com",
		"iad DNS at 198.51.100.1:53 for www.example.com",
		"iad listener 198.51.100.1:443",
		"203.0.113.0/24 [] [] [example.com.]",
		"fra DNS at 203.0.113.53:5300 for example.com",
		"iad DNS at 203.0.113.53:5300 for example.com",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("doors (-want +got):\n%s", diff)
	}
}

// A door is where the node listens: at the VIPs of all for what only redirects, not at a second address for "node".
func TestDoorsAreWhereNodesListen(t *testing.T) {
	c := mustParse(t, "pharos.yaml", `
cluster: {secret_file: gossip.key}
sites:
  fra: {location: FRA, nodes: {fra1: {address: 192.0.2.1, second_address: "2001:db8::1"}}}
services:
  web: {backends: {fra: "10.0.0.1:80"}, vip: {fra: [192.0.2.80, "2001:db8::80"]}}
listeners:
  - {bind: "vip:443", http: {routes: [{service: web}]}}
  - {bind: "vip:80", http: {routes: [{redirect: {scheme: https}}]}}
  - {bind: "node:8080", http: {routes: [{service: web}]}}
  - {bind: ":8081", http: {routes: [{service: web}]}}
bgp:
  asn: 64500
  prefixes:
    - {prefix: 192.0.2.0/24, requires: ["listener:80", "listener:8080"]}
    - {prefix: "2001:db8::/32", requires: ["listener:80", "listener:8081"]}
  peers: {fra: [{address: 127.0.0.9, asn: 64496}]}
`)
	want := []string{
		"listener 192.0.2.1:8080", "listener 192.0.2.80:80",
		"listener [2001:db8::1]:8081", "listener [2001:db8::80]:80", "listener [2001:db8::80]:8081",
	}
	var got []string
	for i := range c.BGP.Prefixes {
		for _, d := range c.Doors(&c.BGP.Prefixes[i], "fra", c.Sites[0].Nodes[0]) {
			got = append(got, d.String())
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("doors (-want +got):\n%s", diff)
	}
	six := config.Prefix{Prefix: netip.MustParsePrefix("2001:db8::/32"), Listeners: []uint16{8080}}
	if got := c.Doors(&six, "fra", c.Sites[0].Nodes[0]); len(got) > 0 {
		t.Errorf("got %v, where nothing listens", got)
	}
}
