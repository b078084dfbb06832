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
	Limits    Intake
	Networks  []geo.Network // sorted by Name
	Geo       Geo
	DNS       DNS
	VIPs      VIPs
	BGP       BGP
	Drain     Drain
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
	// Keys are all keys of the ring, each like Key, which is the first and the one to
	// send with; at most 16, all different.
	Keys []Secret
	// KeyFile is the secret file, for `pharos keys`; "" if the key came from elsewhere.
	// In it is one key in base64 a line; # begins a comment. It and the files below
	// have been joined to the folder of the configuration if they were relative.
	KeyFile string
	// SignKeyFile holds this node's Ed25519 seed in base64; "" = reports are not signed,
	// and no node has a PublicKey. {node} in it stands for the node's name. It has
	// not been read: it is there on its node only.
	SignKeyFile string
	// SeedsDNS and SeedsFile name further places to look for nodes: a fully qualified
	// DNS name (A, AAAA; or SRV when it begins with "_") and a file with one
	// address:port a line. "" = none.
	SeedsDNS, SeedsFile string
	// Canaries are address:ports outside the fleet, at most 16. While most of them
	// accept connections this node takes itself as connected; while none does it
	// doubts itself.
	Canaries []netip.AddrPort
	// OverridesFile is a file form of overrides for automation; "" = none.
	OverridesFile string
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
	// Second is its address of the other family, for BGP; zero = none.
	Second netip.Addr
	// VIPInterface is where this node puts the VIPs: its own, the site's or vips.interface; "" = they are there already.
	VIPInterface string
	// Zone is the availability zone within the site; "" = the site has none. All nodes of a site have one, or none has.
	Zone string
	// PublicKey is the node's Ed25519 key in 32 bytes, no other node's; nil = its reports are not signed.
	PublicKey []byte
}

// A Service is what users reach by name or VIP.
type Service struct {
	Name   string
	Policy []Policy // at least one; default [geo, nearest]
	Check  Check
	// Balance is how the backends of a pool share the work.
	Balance Balance
	// Transport is what HTTP requests go to them in.
	Transport Transport
	// Panic is the share of a pool's backends that have to be up for those that are down to get no
	// work, 0 … 1; 0 = they never do while another is up.
	Panic float64
	// Overflow is where a site's work goes that its own pool has nobody for.
	Overflow Overflow
	// BackendGone is "keep", "drain" or "abort": what becomes of what its tcp and udp listeners have open to a backend that is gone, whatever
	// those say; "" = what they say. GoneAfter is the time of drain.
	BackendGone string
	GoneAfter   time.Duration
	Pools       []Pool // sorted by Site; never empty
	// VIPs are the unicast addresses per site, sorted by Site.
	VIPs []VIP
	// Anycast are the addresses shared by all sites; may be empty.
	Anycast []netip.Addr
	// MinSites is how many sites answer at least, whatever the checks say; 1 … number of pools; default 1.
	MinSites int
}

// A Pool is the backends of a service at a site.
type Pool struct {
	Site     string
	Backends []Backend // in file order; never empty; addresses unique in the pool
}

// A Backend is one upstream server.
type Backend struct {
	Address netip.AddrPort
	Weight  int    // 1 … 1000; default 1
	Zone    string // the availability zone within the site; "" = none is known
}

// A Balance is how the backends of a pool share the work.
type Balance struct {
	// By is the algorithm: p2c, ewma, round-robin, least, maglev, bounded, ring or source;
	// "" = nobody chose: p2c, and maglev for datagrams.
	By string
	// Key is what maglev, bounded and ring hash: client, flow, path, host, header or cookie,
	// the latter two with KeyName; "" = client.
	Key, KeyName string
	// Load is how much more than the average a backend may carry with bounded, above 1; default 1.25, 0 without bounded.
	Load float64
	// Limit bounds what each backend carries, and how fast work comes; all zero = nothing does.
	Limit Limit
	// Eject says whom to pass over for what became of its work; all zero = nobody.
	Eject Eject
}

// An Overflow names the sites that take what a pool cannot.
type Overflow struct {
	On bool
	To []string // most preferred first; nil = all of the service's, the nearest first
}

// A Limit is what a backend carries at a time and what the service takes a second, from each node.
type Limit struct {
	PerBackend int           // 0 = any number; then Queue and Wait are 0
	Queue      int           // how many wait for one that is full
	Wait       time.Duration // how long; default 1s
	Rate       int           // new connections, sessions and requests a second; 0 = any number
}

// Eject is passive ejection of backends.
type Eject struct {
	Errors      int     // in a row; 0 = they do not eject
	SuccessRate float64 // share of the pool's median, 0 = does not eject
	Latency     float64 // multiple of the pool's median, 0 = does not eject
	Window      time.Duration
	MinWork     int
	For, MaxFor time.Duration
	MaxShare    float64
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

// Intake is what all listeners of a node take together.
type Intake struct {
	Connections int // of tcp listeners, and as many of http ones; default 16384
	Rate        int // new ones a second; 0 = any number
	SessionRate int // new UDP sessions a second; 0 = any number
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

// A Listener takes traffic in and hands it to pools. Exactly one of TCP,
// UDP and HTTP is set.
type Listener struct {
	Bind Bind
	TCP  *TCPListener
	UDP  *UDPListener
	HTTP *HTTPListener
	TLS  *TLSListener // only with HTTP; nil = plain text
}

// Geo is the geo data.
type Geo struct {
	// Databases are mmdb files, later ones fill what earlier ones leave unknown;
	// empty = the embedded country data. Relative names have been joined to the
	// folder of the configuration.
	Databases []string
}

// VIPs says how the service addresses come onto the nodes' interfaces.
type VIPs struct {
	Interface string        // "" = only where a site or node names its own
	Linger    time.Duration // 0 … 30s; default 5s
}

// BGP is what is announced and to whom.
type BGP struct {
	ASN      uint32 // 0 = no BGP
	Port     uint16 // listened on and default for peers; default 179
	Listen   bool   // accept sessions; default true
	Prefixes []Prefix
	Peers    []Peer        // of every site, sorted by Site, then Address
	Lease    time.Duration // the child withdraws when the parent is silent for this long; default 3s
	// Socket is a unix socket for the gobgp command line, joined to the folder of
	// the configuration if it was relative; "" = none.
	Socket string
	// Restart is how long the routers keep the routes of a node that dies without a word;
	// 0 = they withdraw them at once.
	Restart time.Duration
	// Depreference is how a site that is not preferred says so.
	Depreference Depreference
}

// Depreference is what a site adds to a route while another site should be taken.
type Depreference struct {
	Prepend   int    // our ASN, to eBGP peers; 0 … 16; default 3
	MED       uint32 // default 100
	LocalPref uint32 // to iBGP peers, instead of theirs; default 50
}

// Attributes are what a route says of itself. 0 and empty = nothing, or what the more general place says:
// a prefix's `to` goes before the prefix, that before the peer, that before its group. Communities of all are sent.
type Attributes struct {
	MED         uint32
	LocalPref   uint32 // iBGP only
	Prepend     int    // further times our ASN stands in the path, 0 … 16; eBGP only
	Communities []Community
	Large       []LargeCommunity
	Extended    []string // "rt:64500:1" or "soo:64500:1"
}

// A LargeCommunity is an RFC 8092 community, "64500:1:2".
type LargeCommunity [3]uint32

// A Prefix is announced while what it requires is servable at the site.
type Prefix struct {
	Prefix   netip.Prefix // masked
	Requires []string     // services; sorted
	// Listeners are ports, and DNS names, that have to answer at each of its addresses on
	// the node itself: see Doors. Sorted.
	Listeners []uint16
	DNS       []string
	Attributes
	// To is what some peers hear instead; the first that means a peer counts.
	To []PeerRoute
	// Sites that may announce it; sorted; default: every site with peers.
	Sites []string
	// MinSites: no site withdraws it while fewer others serve it; at most as many as
	// Sites. 0 = each site decides alone; default.
	MinSites int
	// WarmUp is how long all must have been well before it is announced; 0 … 1h, default 0.
	WarmUp time.Duration
	// HalfLife is that of the flap penalty; 0 = none, at most 1h; default 1m.
	HalfLife time.Duration
	// Standby are the sites that announce it when the others serve less than Need;
	// sorted, a part of Sites. StandbyAnnounce: meanwhile they announce it less
	// preferred, else not at all.
	Standby         []string
	StandbyAnnounce bool
	// LocalOnly are the sites whose routers are to keep it in their AS; sorted, a part of Sites.
	LocalOnly []string
	// Capacity is what sites can take, sorted by site; one not named has 1. Need is how
	// much of it is needed; at least 1; default 1.
	Capacity []SiteCapacity
	Need     int
}

// A SiteCapacity is what a site can take of a prefix, in units of the operator's.
type SiteCapacity struct {
	Site  string
	Units int // 0 … 1e9
}

// The values of standby_mode.
const (
	StandbyHold     = "hold"
	StandbyAnnounce = "announce"
)

// Drain is how long the stages take in which something goes out by order.
type Drain struct {
	// Depreference is how long a prefix is announced less preferred; 0 … 24h, default 30s.
	Depreference time.Duration
	// TrafficBelow ends that early: once fewer connections and queries than this begin in a second at the prefix's
	// addresses; 0 = it takes its time, default.
	TrafficBelow float64
	// Connections is how long those that are open may take to end before the drain counts as done; 0 … 24h, default 5m.
	Connections time.Duration
	// Stop is how long a node that is told to stop may take for all of it; 1s … 24h, default 15s.
	Stop time.Duration
}

// A PeerRoute is what some peers hear of a prefix.
type PeerRoute struct {
	Peers   []netip.Prefix // sorted; peers whose address is in one of them; never empty
	Deny    bool           // they do not hear of it
	NextHop netip.Addr     // zero = the node's address
	Attributes
}

// A Community is a standard BGP community (RFC 1997).
type Community struct{ High, Low uint16 }

// A Peer is one router of a site.
type Peer struct {
	Site    string
	Address netip.Addr
	// From, instead of Address, is a prefix from which any router of AS ASN may connect,
	// at most MaxPeers (1 … 256; default 16) of them at a time.
	From     netip.Prefix
	MaxPeers int
	ASN      uint32
	Port     uint16
	Password Secret        // TCP MD5; from password_file or ${ENV}
	Hold     time.Duration // 3s … 65535s; default 9s
	Multihop int           // TTL 2 … 255; 0 = directly connected
	// TTLSecurity is how many hops away it may be (RFC 5082), 1 … 254; 0 = not checked.
	TTLSecurity int
	Passive     bool
	MaxPrefixes int // per family that it may send before its session ends; default 10000
	// Look: what it sends of our prefixes is shown, and used for nothing else.
	Look  bool
	Group string
	BFD   BFD
	Attributes
}

// Is4 reports whether its sessions run over IPv4.
func (p Peer) Is4() bool {
	if p.From.IsValid() {
		return p.From.Addr().Is4()
	}
	return p.Address.Is4()
}

// Within is the peer among prefixes: its address, or From.
func (p Peer) Within() netip.Prefix {
	if p.From.IsValid() {
		return p.From
	}
	return netip.PrefixFrom(p.Address, p.Address.BitLen())
}

// BFD is bidirectional forwarding detection beside a BGP session.
type BFD struct {
	Interval   time.Duration // 10ms … 1m; default 300ms; 0 = no BFD
	Multiplier int           // 2 … 255; default 3
	Multihop   bool          // RFC 5883; default: when the peer has Multihop
	MinTTL     int           // of multihop packets, 1 … 255; 0 = any
	Strict     bool          // BGP waits for it
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
