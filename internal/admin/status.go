package admin

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/internal/steer"
)

// Status is one node's whole state, as it sees itself and the fleet.
type Status struct {
	Node    string    `json:"node"`
	Site    string    `json:"site"`
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// State is "starting", "serving", "stopping", or "draining" after an upgrade.
	State string `json:"state"`
	// Degraded lists everything that is not as it should be, one line each; empty = healthy.
	Degraded []string `json:"degraded"`

	Config     ConfigStatus    `json:"config"`
	Geo        GeoStatus       `json:"geo"`
	Generation uint64          `json:"generation"`
	Listeners  []string        `json:"listeners"`
	Services   []ServiceStatus `json:"services"`
	// Forwarding are the pools of this node's site.
	Forwarding []PoolStatus  `json:"forwarding"`
	Routes     []RouteStatus `json:"routes"`
	// Speaker is the BGP child process; nil without BGP.
	Speaker *SpeakerStatus `json:"speaker,omitempty"`
	// VIPs are the addresses that pharos keeps on an interface; null = it does not.
	VIPs []VIPStatus `json:"vips,omitempty"`
	// Overrides are the operators' orders that stand, sorted by scope.
	Overrides []OverrideStatus `json:"overrides"`
	// Drains is how far what is ordered out has come at this node.
	Drains []DrainStatus `json:"drains,omitempty"`
	// Sites is how many sites the fleet has, Heard of how many a fresh report is
	// held. Minority: so few that only this node's own site is judged anew.
	Sites    int  `json:"sites"`
	Heard    int  `json:"heard"`
	Minority bool `json:"minority,omitempty"`
	// Doubt is why this node does not trust its own probes; "" = it does.
	Doubt string `json:"doubt,omitempty"`
	// StateTrouble is why the state folder cannot be written or was not trusted;
	// "" = nothing.
	StateTrouble string `json:"state_trouble,omitempty"`
	// Members are the nodes of the cluster that this one knows of, itself too.
	Members []MemberStatus `json:"members"`
	// Certificates are those of the listeners that terminate TLS.
	Certificates []CertificateStatus `json:"certificates,omitempty"`
}

// CertificateStatus is one certificate that a listener serves.
type CertificateStatus struct {
	Listener string   `json:"listener"`
	File     string   `json:"file"`
	Names    []string `json:"names"`
	// NotAfter is until when it is valid, StapleUntil until when its OCSP response is.
	NotAfter    time.Time `json:"not_after"`
	StapleUntil time.Time `json:"staple_until,omitzero"`
	// Error is why what is on disk is not what is served; "" if it is.
	Error string `json:"error,omitempty"`
}

// ConfigStatus is the configuration in force and the last attempt to change it.
type ConfigStatus struct {
	File   string    `json:"file"`
	Hash   string    `json:"hash"`
	Loaded time.Time `json:"loaded"`
	// LastError is why the newest reload was refused; "" when it was taken.
	LastError string    `json:"last_error,omitempty"`
	LastTry   time.Time `json:"last_try,omitzero"`
}

// GeoStatus is the geo data in use.
type GeoStatus struct {
	Name  string    `json:"name"`
	Type  string    `json:"type"`
	Built time.Time `json:"built"`
	// AgeDays is how old the data is.
	AgeDays int `json:"age_days"`
	// LastError is why the newest replacement of a database was refused; "" when it was taken.
	LastError string `json:"last_error,omitempty"`
}

// ServiceStatus is one service at every site.
type ServiceStatus struct {
	Name     string       `json:"name"`
	FailOpen bool         `json:"fail_open"`
	Sites    []SiteStatus `json:"sites"`
}

// PoolStatus is a service's pool at this node's site.
type PoolStatus struct {
	Service string `json:"service"`
	// Balance is the algorithm, and what it hashes.
	Balance string `json:"balance"`
	// Zones is how the work is split by availability zones: this node's, what stays there, where the rest goes; "" = there are none.
	Zones string `json:"zones,omitempty"`
	// Overflow are the sites that take what the pool has nobody for, most preferred first.
	Overflow []string        `json:"overflow,omitempty"`
	Backends []ForwardStatus `json:"backends"`
}

// ForwardStatus is what this node does with one backend.
type ForwardStatus struct {
	Address netip.AddrPort `json:"address"`
	// Zone is the availability zone that it is in, "" if none is known.
	Zone string `json:"zone,omitempty"`
	// Active: it gets new work. Panic: although it is down, since so few are up.
	Active bool `json:"active"`
	Panic  bool `json:"panic,omitempty"`
	// Elsewhere: it is another site's VIP.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Open is how many connections, sessions and requests it has from this node.
	Open int64 `json:"open"`
	// Share is how much of its weight counts: below 1 in a slow start.
	Share float64 `json:"share"`
	// Weight is the configured one, EffectiveWeight what counts of it now: it is less in a slow start, and
	// when the backend says of itself that it can take less. Both are 0 for another site's VIP.
	Weight          int     `json:"weight,omitempty"`
	EffectiveWeight float64 `json:"effective_weight,omitempty"`
	// Ejected is why this node passes it over ("errors", "success-rate", "latency"), for how much longer.
	Ejected        string  `json:"ejected,omitempty"`
	EjectedSeconds float64 `json:"ejected_seconds,omitempty"`
}

// SiteStatus is one service at one site.
type SiteStatus struct {
	Site     string         `json:"site"`
	Eligible bool           `json:"eligible"`
	Why      steer.Reason   `json:"why"`
	VIPs     []TargetStatus `json:"vips"`
	Backends []TargetStatus `json:"backends"`
	// Override is the order that stands on the service here, on the service or on
	// the site, as OverrideStatus.Text says it; "" = none.
	Override string `json:"override,omitempty"`
	// Panic: so few backends are up that those that are down get work as well.
	Panic bool `json:"panic,omitempty"`
}

// TargetStatus is the verdict on one address.
type TargetStatus struct {
	Address netip.AddrPort `json:"address"`
	Status  string         `json:"status"`
	Why     string         `json:"why"`
	Since   time.Time      `json:"since"`
	Active  bool           `json:"active"`
	// Error is what this node's own probe last failed with; "" if it does not
	// probe the target or the probe succeeds.
	Error string `json:"error,omitempty"`
	// Override is the order that stands on the backend itself; "" = none.
	Override string `json:"override,omitempty"`
}

// RouteStatus is one prefix at this node.
type RouteStatus struct {
	Prefix   netip.Prefix `json:"prefix"`
	Announce bool         `json:"announce"`
	Why      steer.Reason `json:"why"`
	Blame    string       `json:"blame,omitempty"`
	// Lacks is what this node lacks for it besides services: a VIP, a listener, DNS.
	Lacks string `json:"lacks,omitempty"`
	// Level is how much an announced route is to be preferred: "preferred", "standby",
	// "draining" or "last resort". Cause speaks against one that is announced all the
	// same. Until is when time alone changes something. LocalOnly: sent with no-export.
	Level     string    `json:"level,omitempty"`
	Cause     string    `json:"cause,omitempty"`
	Until     time.Time `json:"until,omitzero"`
	LocalOnly bool      `json:"local_only,omitempty"`
	// Installed: the speaker holds it.
	Installed bool   `json:"installed"`
	Error     string `json:"error,omitempty"`
	// Override is the order that stands on the prefix; "" = none.
	Override string `json:"override,omitempty"`
	// Peers are this node's, with what each hears of the prefix; empty while it is not announced.
	Peers []RoutePeerStatus `json:"peers,omitempty"`
}

// What is known of a prefix behind a peer.
const (
	SeenYes     = "seen"     // routers elsewhere have a path to us through the peer's AS
	SeenNot     = "not_seen" // nobody has a path, although some look and would
	SeenUnknown = "unknown"  // BGP does not tell, and nobody looks who could
)

// What is known of a router's decision on a prefix.
const (
	AcceptedYes     = "yes"     // others have it through the router's AS
	AcceptedNo      = "no"      // others would have it if the router had taken it
	AcceptedUnknown = "unknown" // BGP does not tell
)

// RoutePeerStatus is one prefix at one peer.
type RoutePeerStatus struct {
	Address netip.Addr `json:"address"`
	// Wanted is false when the configuration denies the prefix to the peer.
	Wanted bool `json:"wanted"`
	// Sent: the session is up and carries it (it is in the Adj-RIB-Out).
	Sent bool `json:"sent"`
	// Accepted is what can be known of the router's own decision: "yes", "no" or "unknown".
	Accepted string `json:"accepted"`
	// Seen is "seen", "not_seen" or "unknown".
	Seen   string   `json:"seen"`
	SeenBy []SeenBy `json:"seen_by,omitempty"`

	NextHop     netip.Addr `json:"next_hop,omitzero"`
	MED         uint32     `json:"med,omitempty"`
	LocalPref   uint32     `json:"local_pref,omitempty"`
	Prepend     int        `json:"prepend,omitempty"`
	Communities []string   `json:"communities,omitempty"`
}

// SeenBy is one router that sends a prefix of ours to one of our nodes.
type SeenBy struct {
	Node    string     `json:"node"`
	Peer    netip.Addr `json:"peer"`
	NextHop netip.Addr `json:"next_hop"`
	ASPath  []uint32   `json:"as_path"`
}

// CompareSeenBy orders by node, then peer.
func CompareSeenBy(a, b SeenBy) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), a.Peer.Compare(b.Peer))
}

// VIPStatus is one address that pharos keeps on an interface.
type VIPStatus struct {
	Address   netip.Addr `json:"address"`
	Interface string     `json:"interface"`
	Bound     bool       `json:"bound"`
	// Ours: bound by pharos, so removed by pharos.
	Ours bool `json:"ours"`
	// Until: no longer wanted, removed then.
	Until time.Time `json:"until,omitzero"`
	Error string    `json:"error,omitempty"`
}

// SpeakerStatus is the BGP child process and its sessions.
type SpeakerStatus struct {
	// State is "stopped", "starting", "running", "lapsed" or "backoff".
	State     string       `json:"state"`
	PID       int          `json:"pid"`
	Restarts  int          `json:"restarts"`
	LastError string       `json:"last_error,omitempty"`
	Peers     []PeerStatus `json:"peers"`
	// Strangers connected without being a peer: a router with another address than configured, or somebody else.
	Strangers []netip.Addr `json:"strangers,omitempty"`
	// Ranges are the prefixes from which any router may connect.
	Ranges []RangeStatus `json:"ranges,omitempty"`
}

// RangeStatus is one prefix of peers. The routers that came are among the peers.
type RangeStatus struct {
	From     netip.Prefix `json:"from"`
	ASN      uint32       `json:"asn"`
	MaxPeers int          `json:"max_peers"`
	Sessions int          `json:"sessions"`
	// Full: so many came that no more are let in.
	Full  bool   `json:"full,omitempty"`
	Error string `json:"error,omitempty"`
}

// PeerStatus is the session with one router.
type PeerStatus struct {
	Address netip.Addr `json:"address"`
	// From is the prefix of peers that it connected from; absent = it is configured itself.
	From netip.Prefix `json:"from,omitzero"`
	ASN  uint32       `json:"asn"`
	// State is "established" or how far the session has come.
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Sent counts routes; whether the peer accepted them is not known.
	Sent      int    `json:"sent"`
	LastError string `json:"last_error,omitempty"`
	// Hint is what is likely wrong, and where to look.
	Hint string `json:"hint,omitempty"`
	// Received counts the prefixes that it sends; they are not used.
	Received int        `json:"received"`
	RouterID netip.Addr `json:"router_id,omitzero"`
	// HoldSeconds is the hold time that both agreed on.
	HoldSeconds  float64  `json:"hold_seconds,omitempty"`
	Families     []string `json:"families,omitempty"` // "ipv4", "ipv6": what it takes
	RouteRefresh bool     `json:"route_refresh,omitempty"`
	// BFD is the session beside it; null = none.
	BFD *BFDStatus `json:"bfd,omitempty"`
}

// BFDStatus is the BFD session with one router.
type BFDStatus struct {
	State     string    `json:"state"`
	PeerState string    `json:"peer_state"`
	Since     time.Time `json:"since"`
	// DetectionMS is the silence that ends it; 0 = the router is not heard.
	DetectionMS int64  `json:"detection_ms"`
	TransmitMS  int64  `json:"transmit_ms"`
	Failures    uint64 `json:"failures"`
	LastError   string `json:"last_error,omitempty"`
}

// MemberAbsent is the State of a configured node that gossip has never met.
const MemberAbsent = "absent"

// MemberStatus is one node of the cluster.
type MemberStatus struct {
	Name    string `json:"name"`
	Site    string `json:"site"`
	Version string `json:"version"`
	State   string `json:"state"`
	Self    bool   `json:"self,omitempty"`
	// Heard: its newest report is fresh, so it is counted in verdicts.
	Heard bool `json:"heard"`
	// AgeSeconds is how old its newest report is; negative = there is none.
	AgeSeconds float64 `json:"age_seconds"`
	// Config is the hash of its configuration; another one than ours is skew.
	Config string `json:"config"`
	// OverridesInSync: it holds the same orders as this node, on disk.
	OverridesInSync bool `json:"overrides_in_sync"`
	// Signed: its messages are proven to be its own.
	Signed bool `json:"signed"`
	// Abstains is why its votes are not counted; "" = they are.
	Abstains string `json:"abstains,omitempty"`
	// Keys are the fingerprints of its gossip keys, the one it sends with first.
	Keys []string `json:"keys,omitempty"`
}

// ExplainRequest is the query of /v1/explain.
type ExplainRequest struct {
	Name string
	IPv6 bool
	From netip.Addr
	Down []string // sites or backends assumed down
}

// ReloadResult says what a reload changed.
type ReloadResult struct {
	Hash    string   `json:"hash"`
	Changes []string `json:"changes"`
}
