package config

import (
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/geo"
)

// A Config is one validated configuration. Every cross-reference holds, every
// default is filled in, every list is sorted by name unless its order means
// something. It is immutable.
type Config struct {
	// File is the name it was read from, as the operator gave it.
	File string
	// Hash is a 64-bit FNV-1a hash of every byte that went into it (the YAML, the
	// values of ${ENV} and the zone files, but no secret, and not where the files
	// lie): equal hashes mean equal behaviour.
	Hash uint64

	Cluster   Cluster
	Sites     []Site    // sorted by Name
	Services  []Service // sorted by Name
	Zones     []Zone    // sorted by Name
	Listeners []Listener
	Networks  []geo.Network // sorted by Name
	Geo       Geo
	DNS       DNS
	BGP       BGP
	Admin     Admin
	Tests     []Test
}

// Cluster is how the nodes gossip.
type Cluster struct {
	Name string // label; members of other clusters are refused
	Port uint16 // gossip UDP and TCP port on every node's address; default 7946
	// Key is the gossip key. Key.Reveal returns the 16, 24 or 32 raw bytes, already
	// decoded from the file's base64. None = not encrypted, which is only possible
	// while every node's address is loopback.
	Key Secret
	// Wait bounds how long a starting node stays silent while it waits for its
	// first verdicts; default 5s.
	Wait time.Duration
}

// A Site is a place with nodes.
type Site struct {
	Name     string
	Location geo.Location // resolved from IATA code, cloud region or coordinates
	Nodes    []Node       // sorted by Name; never empty
}

// A Node is one machine running pharos. Names are unique in the fleet.
type Node struct {
	Name    string
	Address netip.Addr // gossip and BGP source address
}

// A Service is what users reach by name or VIP.
type Service struct {
	Name   string
	Policy []Policy // at least one; default [geo, nearest]
	Check  Check
	Pools  []Pool // sorted by Site; never empty
	// VIPs are the unicast addresses per site, sorted by Site.
	VIPs []VIP
	// Anycast are the addresses shared by all sites; may be empty.
	Anycast []netip.Addr
}

// A Pool is the backends of a service at a site.
type Pool struct {
	Site     string
	Backends []Backend // in file order; never empty; addresses unique in the pool
}

// A Backend is one upstream server.
type Backend struct {
	Address netip.AddrPort
	Weight  int // 1 … 1000; default 1
}

// A VIP is the unicast addresses of a service at a site.
type VIP struct {
	Site      string
	Addresses []netip.Addr // at most 8, in file order
}

// PolicyKind names a steering policy.
type PolicyKind string

// The policies.
const (
	PolicyGeo      PolicyKind = "geo"
	PolicyNearest  PolicyKind = "nearest"
	PolicyWeighted PolicyKind = "weighted"
	PolicyFailover PolicyKind = "failover"
)

// A Policy is one step of a service's filter chain. Written bare (`geo`) or
// with arguments (`{failover: [fra, iad]}`).
type Policy struct {
	Kind PolicyKind
	// Rules, for geo: places to sites in the order of preference. Empty = by the sites' own
	// country, then continent.
	Rules []GeoRule
	// Order, for failover: sites, most preferred first; sites not named follow
	// together. Never empty for failover.
	Order []string
	// Weights, for weighted: sorted by Site; a site not named has weight 1; 0 =
	// only when nothing else is left. Empty = all 1.
	Weights []SiteWeight
}

// A GeoRule sends clients of one place to sites.
type GeoRule struct {
	// Where is a country code ("DE"), a country and region ("US-CA"), a
	// continent ("continent:EU"), a network ("network:office") or "default".
	Where string
	Sites []string // most preferred first
}

// A SiteWeight is one site's weight in a weighted policy, 0 … 1000.
type SiteWeight struct {
	Site   string
	Weight int
}

// CheckKind names a health check.
type CheckKind string

// The kinds of check.
const (
	CheckTCP   CheckKind = "tcp"
	CheckHTTP  CheckKind = "http"
	CheckHTTPS CheckKind = "https"
)

// A Check is a service's health check.
type Check struct {
	Kind CheckKind // default tcp
	HTTP HTTPCheck // for http and https

	Every   time.Duration // 100ms … 1h; default 2s
	Timeout time.Duration // 10ms … 1m, at most Every; default min(Every, 2s)
	Jitter  float64       // share of Every, 0 … 0.5; default 0.1
	Rise    int           // successes to come up, 1 … 100; default 2
	Fall    int           // failures to go down, 1 … 100; default 3
	Recheck time.Duration // interval after a first failure until decided; 10ms … Every; default min(Every, 250ms)
	// VIPPort is the port at which other sites probe the service's VIPs; 0 = the
	// port of the listener that serves it, else the port its backends share.
	VIPPort uint16
}

// HTTPCheck is the HTTP part of a check.
type HTTPCheck struct {
	Method   string   // GET or HEAD; default GET
	Path     string   // default "/"
	Host     string   // Host header; "" = the address
	SNI      string   // TLS server name, for https; default Host without its port, "" if that is an address
	Headers  []Header // sent; sorted by Name
	Status   []StatusRange
	Body     string // must occur in the first 64 KiB of the body; "" = any
	Insecure bool   // https: do not verify the certificate
}

// A Header is one header field. Its value may be a credential (from ${ENV}), so,
// like a Secret, it is never printed.
type Header struct{ Name, Value string }

// A StatusRange is an inclusive range of HTTP status codes; default 200–399.
type StatusRange struct{ From, To int }

// A Zone is one authoritative zone.
type Zone struct {
	Name string // lower case, fully qualified ("example.com.")
	// Master is the RFC 1035 text of the ordinary records, from `file` or
	// `records`, not parsed here. It may be blank while there are Names: the SOA is
	// then made up.
	Master string
	// MasterFile names Master in errors; "" if there is neither file nor records.
	MasterFile string
	// MasterLine is the line of File that is line 1 of Master, which all its lines
	// follow one by one; 0 where they do not (a zone file, or records that are not
	// written as a literal block, `records: |`).
	MasterLine int
	Names      []Name // sorted by FQDN
}

// A Name is one steered name.
type Name struct {
	FQDN    string // lower case, fully qualified; "*" labels are allowed leftmost
	Service string
	TTL     time.Duration // 1s … 24h, whole seconds; default 30s
	Anycast bool          // answer the service's anycast addresses instead of steering
}

// DNS is where and how DNS is answered.
type DNS struct {
	Listen     []Bind // default ":53"
	UDPSize    uint16 // largest UDP response offered, 512 … 4096; default 1232
	TCPMax     int    // connections in all, 1 … 100000; default 4096
	TCPIdle    time.Duration
	ECS        bool   // heed EDNS Client Subnet; default true
	Shared     bool   // other processes may answer on the same addresses
	ServerName string // NSID and id.server; default the node's name
}

// A Bind is a place to listen: ":53", "192.0.2.1:53", "node:53" (this node's
// address) or "vip:443" (this site's VIPs of the services that the listener
// serves, and their anycast addresses).
type Bind struct {
	Host string     // "", "node", "vip", or empty when Addr is set
	Addr netip.Addr // a literal address
	Port uint16
}

// A Listener takes traffic in and hands it to pools. Exactly one of TCP and
// HTTP is set.
type Listener struct {
	Bind Bind
	TCP  *TCPListener
	HTTP *HTTPListener
}

// TCPListener forwards connections to one service.
type TCPListener struct {
	Service string
	Idle    time.Duration // both directions silent; default 10m
	Connect time.Duration // to a backend; default 2s
}

// HTTPListener forwards requests by host and path.
type HTTPListener struct {
	Routes []Route // in file order; the most specific host, then longest path wins
	Idle   time.Duration
}

// A Route sends requests to a service.
type Route struct {
	Host    string // exact, or "*.example.com"; "" = any
	Path    string // prefix on whole segments; default "/"
	Service string
}

// Geo is the geo data.
type Geo struct {
	// Databases are mmdb files, later ones fill what earlier ones leave unknown;
	// empty = the embedded country data. Relative names have been joined to the
	// folder of the configuration.
	Databases []string
}

// BGP is what is announced and to whom.
type BGP struct {
	ASN      uint32 // 0 = no BGP
	Port     uint16 // listened on and default for peers; default 179
	Listen   bool   // accept sessions; default true
	Prefixes []Prefix
	Peers    []Peer        // of every site, sorted by Site, then Address
	Lease    time.Duration // the child withdraws when the parent is silent for this long; default 3s
}

// A Prefix is announced while what it requires is servable at the site.
type Prefix struct {
	Prefix   netip.Prefix // masked
	Requires []string     // services; sorted
	// Communities are standard communities, "64500:100".
	Communities []Community
	// Sites that may announce it; sorted; default: every site with peers.
	Sites []string
}

// A Community is a standard BGP community (RFC 1997).
type Community struct{ High, Low uint16 }

// A Peer is one router of a site.
type Peer struct {
	Site     string
	Address  netip.Addr
	ASN      uint32
	Port     uint16
	Password Secret        // TCP MD5; from password_file or ${ENV}
	Hold     time.Duration // 3s … 65535s; default 9s
	Multihop int           // TTL 2 … 255; 0 = directly connected
	Passive  bool
}

// Admin is the API.
type Admin struct {
	Socket string // unix socket, at most 107 bytes; default /run/pharos/pharos.sock
	Listen Bind   // TCP; Port 0 = none
	Token  Secret // required with Listen
}

// A Test is one assertion that `pharos validate` checks.
type Test struct {
	Name   string // a steered name, fully qualified
	Type   string // A or AAAA; default A
	From   string // address, prefix, country "BR", "US-CA", "continent:SA", or "network:office"
	Down   []string
	Expect []string // sites, any of which is right; never empty
	Line   int      // in the file, for messages
}
