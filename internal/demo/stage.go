package demo

import (
	_ "embed"
	"fmt"
	"net/netip"
)

// configText is the fleet's configuration; a test holds it against the
// addresses below.
//
//go:embed demo.yaml
var configText []byte

// What every site shares.
const (
	zoneName    = "demo.test"
	steeredName = "www.demo.test"
	routeText   = "192.0.2.0/24" // documentation space (RFC 5737): only the route is shown
	nodeASN     = 64500
	routerASN   = 64496 // 64496, 64497, 64498
	bgpPort     = 1790
	gossipPort  = 7946
	webPort     = 8080
	tcpPort     = 8081
	backendPort = 9000
)

// dnsAddress is where every node answers DNS: the kernel spreads the queries
// over those that live.
var dnsAddress = netip.MustParseAddrPort("127.0.0.1:5300")

// A stageSite is one site of the demo.
type stageSite struct {
	name     string
	city     string
	index    int // 1, 2, 3: third byte of its addresses
	client   netip.Prefix
	country  string
	backends [2]string // names
}

// sites are the demo's, with the client network that each first example of
// the tour uses.
var sites = []stageSite{
	{"fra", "Frankfurt", 1, netip.MustParsePrefix("46.4.0.0/24"), "Germany", [2]string{"fra-b1", "fra-b2"}},
	{"iad", "Washington", 2, netip.MustParsePrefix("8.8.8.0/24"), "USA", [2]string{"iad-b1", "iad-b2"}},
	{"sin", "Singapore", 3, netip.MustParsePrefix("203.116.0.0/24"), "Singapore", [2]string{"sin-b1", "sin-b2"}},
}

func (s stageSite) address(last byte) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 1, byte(s.index), last})
}

func (s stageSite) node() string           { return s.name + "1" }
func (s stageSite) nodeAddr() netip.Addr   { return s.address(1) }
func (s stageSite) vip() netip.AddrPort    { return netip.AddrPortFrom(s.address(80), webPort) }
func (s stageSite) router() netip.AddrPort { return netip.AddrPortFrom(s.address(254), bgpPort) }
func (s stageSite) routerASN() uint32      { return uint32(routerASN + s.index - 1) }
func (s stageSite) backend(i int) netip.AddrPort {
	return netip.AddrPortFrom(s.address(byte(11+i)), backendPort)
}

// A target is what `break` takes: a site, a backend or a node.
type target struct {
	site    int
	backend int  // −1: both
	node    bool // the process
}

// find resolves the name of a site ("fra"), a backend ("fra-b1") or a node ("fra1").
func find(name string) (target, error) {
	for i, s := range sites {
		switch name {
		case s.name:
			return target{site: i, backend: -1}, nil
		case s.node():
			return target{site: i, node: true}, nil
		case s.backends[0], s.backends[1]:
			b := 0
			if name == s.backends[1] {
				b = 1
			}
			return target{site: i, backend: b}, nil
		}
	}
	return target{}, fmt.Errorf("the demo has no %q; it has the sites fra, iad, sin, the backends fra-b1, fra-b2, …, and the nodes fra1, iad1, sin1", name)
}
