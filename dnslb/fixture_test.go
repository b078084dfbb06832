package dnslb

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/pharos-lb/pharos/dnslb/zone"
	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// master is the zone that most tests ask.
const master = `
$TTL 3600
@        IN SOA ns1 hostmaster 2026112201 7200 900 1209600 300
         IN NS  ns1
         IN NS  ns2.elsewhere.net.
         IN MX  10 mail
ns1      60 IN A 192.0.2.53
mail     IN A 192.0.2.25
         IN AAAA 2001:db8::25
txt      IN TXT "hello" "world"
alias    IN CNAME mail
loop     IN CNAME pool
pool     IN CNAME loop
c1       IN CNAME c2
c2       IN CNAME c3
c3       IN CNAME www
dangling IN CNAME nowhere
outside  IN CNAME www.elsewhere.net.
tofail   IN CNAME gone
toany    IN CNAME any
*.wild   IN TXT "wild"
sub.wild IN A 192.0.2.1
a.b.ent  IN A 192.0.2.2
child    IN NS ns.child
         IN NS ns2.elsewhere.net.
         IN DS 12345 13 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF
ns.child IN A 192.0.2.99
x.child  IN TXT "occluded"
old      IN DNAME new
a.new    IN A 192.0.2.77
www      IN TXT "beside a steered name"
big      IN TXT "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
         IN TXT "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
         IN TXT "2222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222"
tobig    IN CNAME big
`

func specs() []zone.Spec {
	return []zone.Spec{{
		Name: "example.com.", Master: master, MasterFile: "example.com.zone",
		Steered: []zone.Steered{
			{FQDN: "www.example.com.", Service: "web", TTL: 30},
			{FQDN: "*.geo.example.com.", Service: "web", TTL: 30},
			{FQDN: "any.example.com.", Service: "web", TTL: 30, Anycast: true},
			{FQDN: "four.example.com.", Service: "four", TTL: 30},
			{FQDN: "gone.example.com.", Service: "gone", TTL: 30},
		},
	}}
}

func addrs(texts ...string) []netip.Addr {
	out := make([]netip.Addr, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParseAddr(text)
	}
	return out
}

// fleet is three sites on three continents. Loopback clients are in an
// operator network in Singapore.
func fleet(t testing.TB) *config.Config {
	t.Helper()
	cfg := &config.Config{
		Networks: []geo.Network{{
			Name:     "lab",
			Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
			Place:    geo.Place{Country: "SG", Continent: "AS"},
		}},
		Services: []config.Service{
			{
				Name: "four", Policy: []config.Policy{{Kind: config.PolicyFailover, Order: []string{"iad", "fra"}}},
				VIPs: []config.VIP{{Site: "fra", Addresses: addrs("198.51.100.4")}, {Site: "iad", Addresses: addrs("203.0.113.4")}},
			},
			{
				Name: "web", Policy: []config.Policy{{Kind: config.PolicyGeo}, {Kind: config.PolicyNearest}},
				VIPs: []config.VIP{
					{Site: "fra", Addresses: addrs("198.51.100.80", "198.51.100.81", "2001:db8:1::80")},
					{Site: "iad", Addresses: addrs("203.0.113.80", "2001:db8:2::80")},
					{Site: "sin", Addresses: addrs("192.0.2.80", "2001:db8:3::80")},
				},
				Anycast: addrs("192.0.2.200"),
			},
		},
		Zones: []config.Zone{{Name: "example.com."}},
	}
	for _, s := range []string{"fra", "iad", "sin"} {
		location, err := geo.Locate(strings.ToUpper(s))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Sites = append(cfg.Sites, config.Site{
			Name: s, Location: location, Nodes: []config.Node{{Name: s + "1", Address: netip.MustParseAddr("127.0.0.1")}},
		})
	}
	for i := range cfg.Services {
		cfg.Services[i].Check = config.Check{Kind: config.CheckTCP, VIPPort: 443}
	}
	for _, s := range specs()[0].Steered {
		if s.Service != "gone" {
			cfg.Zones[0].Names = append(cfg.Zones[0].Names,
				config.Name{FQDN: s.FQDN, Service: s.Service, TTL: time.Duration(s.TTL) * time.Second, Anycast: s.Anycast})
		}
	}
	return cfg
}

// newBoard publishes a real plan made from the embedded country data.
func newBoard(t testing.TB, down ...string) *steer.Board {
	t.Helper()
	db, err := geo.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	topology, err := steer.Compile(fleet(t), db, "fra1")
	if err != nil {
		t.Fatal(err)
	}
	board := new(steer.Board)
	board.Publish(steer.Decide(topology, nil, steer.Facts{Ready: true, AssumeDown: down}, nil))
	return board
}

func newSet(t testing.TB) *zone.Set {
	t.Helper()
	set, err := zone.Compile(specs())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// start runs a server on a free loopback port; it ends with the test.
func start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Listen == nil {
		o.Listen = []netip.AddrPort{loopback}
	}
	if o.Board == nil {
		o.Board = newBoard(t)
	}
	if o.Sockets == 0 {
		o.Sockets = 2
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.SetZones(newSet(t))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func address(s *Server) string {
	udp, _ := s.Addrs()
	return udp[0].String()
}

// ask sends one query and returns the response.
func ask(t testing.TB, s *Server, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	client := &dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: 4096}
	reply, _, err := client.Exchange(m, address(s))
	if err != nil {
		t.Fatalf("%s %v: %v", network, m.Question, err)
	}
	return reply
}

func query(name, rtype string) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.StringToType[rtype])
	m.RecursionDesired = false
	return m
}

// withSubnet adds EDNS and a client subnet option to a query.
func withSubnet(m *dns.Msg, prefix string) *dns.Msg {
	p := netip.MustParsePrefix(prefix)
	family := uint16(1)
	if p.Addr().Is6() {
		family = 2
	}
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{
		Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: uint8(p.Bits()), Address: net.IP(p.Addr().AsSlice()),
	})
	return m
}

// lines renders the records of a section in one line each: owner, TTL, type, data.
func lines(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, strings.Join(strings.Fields(strings.Replace(rr.String(), "\tIN\t", "\t", 1)), " "))
		}
	}
	return out
}

func subnetOf(m *dns.Msg) *dns.EDNS0_SUBNET {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if s, ok := o.(*dns.EDNS0_SUBNET); ok {
				return s
			}
		}
	}
	return nil
}
