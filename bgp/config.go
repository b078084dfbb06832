package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

// Limits and defaults.
const (
	MaxPeers        = 256  // per node
	MaxRoutes       = 4096 // per node; further ones are reported, not announced
	MaxCommunities  = 64   // of all kinds, per route, peer and override
	MaxOverrides    = 16   // per route
	MaxFrom         = 256  // that may connect from one Peer.From
	DefaultFrom     = 16
	MaxPassword     = 80  // bytes; TCP MD5 cuts longer keys silently
	DefaultPort     = 179 // RFC 4271
	DefaultLease    = 3 * time.Second
	DefaultHold     = 9 * time.Second
	minLease        = 100 * time.Millisecond
	maxLease        = 5 * time.Minute
	minHold         = 3 * time.Second // RFC 4271, section 4.2
	maxHold         = 65535 * time.Second
	maxMultihopHops = 255
	maxRestart      = 4095 * time.Second // twelve bits
)

// A Config is the speaker itself.
type Config struct {
	ASN uint32

	// RouterID is an IPv4 address; zero = LocalAddress if that is IPv4.
	RouterID netip.Addr

	// LocalAddress is the source of sessions, the address listened on, and
	// the next hop of routes of its family.
	LocalAddress netip.Addr

	// SecondAddress is the same for the other family; zero = none.
	SecondAddress netip.Addr

	// NextHop4 and NextHop6 are the next hops of routes that carry none of
	// their own; zero = LocalAddress or SecondAddress, whichever is of that family.
	NextHop4 netip.Addr
	NextHop6 netip.Addr

	// ListenPort is where peers may connect, 1 to 65535; 0 = 179, −1 = nobody may.
	ListenPort int

	// Depreference is how routes that are not Preferred are told.
	Depreference Depreference

	// Socket is a unix socket on which the child answers the gobgp command
	// line, questions only; empty = none.
	Socket string

	// Restart has peers keep our routes for so long when their session is lost without a
	// word (graceful restart, RFC 4724): of the child when it dies, and of it all when the
	// parent does. Only for nodes whose traffic outlives both. Whole seconds, 1 s to 4095 s;
	// 0 = off: they withdraw at once. Peers with From have none.
	Restart time.Duration

	// Watch are prefixes to look for in what peers with Look send.
	Watch []netip.Prefix

	// Lease is how long the child keeps announcing without hearing from the
	// parent, 100 ms to 5 min; 0 = 3 s.
	Lease time.Duration
}

// A Peer is one router. Its text forms leave the password out.
type Peer struct {
	Address netip.Addr
	ASN     uint32

	// From, instead of Address, stands for every router of AS ASN that connects from
	// one of its addresses, at most Most of them at a time; 0 = 16. Such a peer never
	// dials, has no BFD and no Look. Barred ones are refused.
	From   netip.Prefix
	Most   int
	Barred []netip.Addr

	// LocalAddress is our side of the session; zero = Config's address of
	// the family of Address, which must then have one.
	LocalAddress netip.Addr

	Port        uint16        // dialled; 0 = 179
	Password    string        // TCP MD5 (RFC 2385), at most 80 bytes; empty = none
	Hold        time.Duration // whole seconds, 3 s to 65535 s; 0 = 9 s
	Multihop    int           // TTL, 2 to 255, for an eBGP peer that is not directly connected; 0 = directly
	TTLSecurity int           // hops that it may be away, 1 to 254 (RFC 5082); packets from further away are dropped; 0 = not checked
	Passive     bool          // never dial; the peer connects
	MaxPrefixes int           // per family that it may send before its session is ended; 0 = 10000
	BFD         BFD

	// Look has what it sends of Config.Watch reported. It is kept apart from
	// our routes: never installed, never passed on.
	Look bool

	// Attributes of every route that it hears.
	Attributes
}

// key is the peer among prefixes.
func (p Peer) key() netip.Prefix {
	if p.From.IsValid() {
		return p.From
	}
	return netip.PrefixFrom(p.Address, p.Address.BitLen())
}

// is4 reports whether sessions run over IPv4.
func (p Peer) is4() bool { return p.key().Addr().Is4() }

func (p Peer) equal(o Peer) bool {
	return p.Address == o.Address && p.ASN == o.ASN && p.LocalAddress == o.LocalAddress && p.Port == o.Port &&
		p.Password == o.Password && p.Hold == o.Hold && p.Multihop == o.Multihop && p.TTLSecurity == o.TTLSecurity && p.Passive == o.Passive &&
		p.From == o.From && p.Most == o.Most && slices.Equal(p.Barred, o.Barred) &&
		p.MaxPrefixes == o.MaxPrefixes && p.BFD == o.BFD && p.Look == o.Look && p.Attributes.equal(o.Attributes)
}

// String leaves the password out.
func (p Peer) String() string { return fmt.Sprintf("%s AS%d", p.name(), p.ASN) }

// name is its address, or the prefix that it stands for.
func (p Peer) name() string {
	if p.From.IsValid() {
		return p.From.String()
	}
	return p.Address.String()
}

// GoString leaves the password out.
func (p Peer) GoString() string { return p.String() }

// LogValue leaves the password out.
func (p Peer) LogValue() slog.Value {
	return slog.GroupValue(slog.String("address", p.name()), slog.Uint64("asn", uint64(p.ASN)))
}

// A Route is one prefix to announce.
type Route struct {
	Prefix    netip.Prefix // never of length 0
	NextHop   netip.Addr   // same family; zero = Config's
	Standing  Standing
	LocalOnly bool // sent with NO_EXPORT: for the neighboring networks alone
	Attributes

	// To is what some peers hear instead; the first that means a peer counts.
	To []Override
}

func (r Route) equal(o Route) bool {
	return r.Prefix == o.Prefix && r.NextHop == o.NextHop && r.Standing == o.Standing && r.LocalOnly == o.LocalOnly &&
		r.Attributes.equal(o.Attributes) && slices.EqualFunc(r.To, o.To, Override.equal)
}

// Validate checks a configuration and its peers as New and Reconfigure do and returns every error at once. It is the
// fallible half of a reload: what it passes, Reconfigure takes.
func Validate(config Config, peers []Peer) error {
	_, _, err := normalize(config, peers)
	return err
}

// normalize fills defaults in and sorts the peers.
func normalize(c Config, peers []Peer) (Config, []Peer, error) {
	c, err := normalizeConfig(c)
	errs := []error{err}
	if len(peers) > MaxPeers {
		errs = append(errs, fmt.Errorf("bgp: %d peers, at most %d", len(peers), MaxPeers))
	}
	out := make([]Peer, 0, len(peers))
	for _, p := range peers {
		p, err := normalizePeer(c, p)
		errs = append(errs, err)
		out = append(out, p)
	}
	errs = append(errs, overlaps(out))
	if err := errors.Join(errs...); err != nil {
		return Config{}, nil, err
	}
	slices.SortFunc(out, func(a, b Peer) int { return cmp.Or(a.Address.Compare(b.Address), a.From.Compare(b.From)) })
	return c, out, nil
}

// overlaps returns which peers stand for the same router.
func overlaps(peers []Peer) error {
	var errs []error
	sorted := slices.Clone(peers)
	slices.SortFunc(sorted, func(a, b Peer) int { return a.key().Compare(b.key()) })
	for i, p := range sorted {
		if i == 0 || !p.key().IsValid() || !sorted[i-1].key().IsValid() {
			continue
		}
		switch before := sorted[i-1]; {
		case p.key() == before.key():
			errs = append(errs, fmt.Errorf("bgp: peer %s appears twice", p.name()))
		case p.key().Overlaps(before.key()):
			errs = append(errs, fmt.Errorf("bgp: peer %s is also in %s", p.name(), before.name()))
			sorted[i] = before // what follows may be in it, too
		}
	}
	return errors.Join(errs...)
}

func normalizeConfig(c Config) (Config, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("bgp: "+format, args...)) }
	c.LocalAddress, c.SecondAddress, c.RouterID = c.LocalAddress.Unmap(), c.SecondAddress.Unmap(), c.RouterID.Unmap()
	c.NextHop4, c.NextHop6 = c.NextHop4.Unmap(), c.NextHop6.Unmap()
	c.Lease = cmp.Or(c.Lease, DefaultLease)
	c.ListenPort = cmp.Or(c.ListenPort, DefaultPort)
	if c.ASN == 0 {
		bad("asn is missing")
	}
	if !usable(c.LocalAddress) {
		bad("local address %q is not a unicast address", c.LocalAddress)
	}
	if !c.RouterID.IsValid() && c.LocalAddress.Is4() {
		c.RouterID = c.LocalAddress
	}
	if !c.RouterID.Is4() || c.RouterID.IsUnspecified() {
		bad("router ID %q is not an IPv4 address; a node without an IPv4 address needs one set", c.RouterID)
	}
	if d := c.Depreference; d.Prepend < 0 || d.Prepend > MaxPrepend {
		bad("depreference prepends %d, which is not 0 to %d", d.Prepend, MaxPrepend)
	}
	if c.ListenPort < -1 || c.ListenPort > 65535 {
		bad("listen port %d is not 1 to 65535, or −1 for none", c.ListenPort)
	}
	if c.Lease < minLease || c.Lease > maxLease {
		bad("lease %s is not %s to %s", c.Lease, minLease, maxLease)
	}
	if c.Restart < 0 || c.Restart > maxRestart || c.Restart%time.Second != 0 {
		bad("graceful restart of %s is not whole seconds, at most %s", c.Restart, maxRestart)
	}
	if c.NextHop4.IsValid() && (!c.NextHop4.Is4() || !usable(c.NextHop4)) {
		bad("IPv4 next hop %s is not an IPv4 unicast address", c.NextHop4)
	}
	if c.NextHop6.IsValid() && (!c.NextHop6.Is6() || !usable(c.NextHop6)) {
		bad("IPv6 next hop %s is not an IPv6 unicast address", c.NextHop6)
	}
	if c.SecondAddress.IsValid() && (!usable(c.SecondAddress) || c.SecondAddress.Is4() == c.LocalAddress.Is4()) {
		bad("second address %s is not a unicast address of the other family", c.SecondAddress)
	}
	if !c.NextHop4.IsValid() {
		c.NextHop4 = c.local(true)
	}
	if !c.NextHop6.IsValid() {
		c.NextHop6 = c.local(false)
	}
	return c, errors.Join(errs...)
}

// local is our address of a family; zero = none.
func (c Config) local(is4 bool) netip.Addr {
	for _, a := range []netip.Addr{c.LocalAddress, c.SecondAddress} {
		if a.IsValid() && a.Is4() == is4 {
			return a
		}
	}
	return netip.Addr{}
}

func normalizePeer(c Config, p Peer) (Peer, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("bgp: peer %s: "+format, append([]any{p.name()}, args...)...))
	}
	p.Address, p.LocalAddress, p.From = p.Address.Unmap(), p.LocalAddress.Unmap(), p.From.Masked()
	if p.From.IsValid() {
		errs = append(errs, normalizeFrom(&p))
	}
	p.Port = cmp.Or(p.Port, DefaultPort)
	p.Hold = cmp.Or(p.Hold, DefaultHold)
	inherited := !p.LocalAddress.IsValid()
	if inherited {
		p.LocalAddress = c.local(p.is4())
		if !p.LocalAddress.IsValid() {
			p.LocalAddress = c.LocalAddress // of the other family, which is said below
		}
	}
	if !p.From.IsValid() && !usable(p.Address) {
		bad("not a unicast address")
	}
	if p.ASN == 0 {
		bad("asn is missing")
	}
	switch {
	case !usable(p.LocalAddress) && !inherited:
		bad("local address %s is not a unicast address", p.LocalAddress)
	case p.is4() != p.LocalAddress.Is4():
		bad("local address %s is of the other family; set one for this peer", p.LocalAddress)
	case p.Address == p.LocalAddress:
		bad("peer and local address are the same")
	}
	if len(p.Password) > MaxPassword {
		bad("password has %d bytes, at most %d", len(p.Password), MaxPassword)
	}
	if p.Hold < minHold || p.Hold > maxHold || p.Hold%time.Second != 0 {
		bad("hold time %s is not whole seconds from %s to %s", p.Hold, minHold, maxHold)
	}
	if p.Multihop < 0 || p.Multihop == 1 || p.Multihop > maxMultihopHops {
		bad("multihop %d is not 2 to %d", p.Multihop, maxMultihopHops)
	}
	switch {
	case p.TTLSecurity < 0 || p.TTLSecurity > maxMultihopHops-1:
		bad("TTL security of %d hops is not 1 to %d", p.TTLSecurity, maxMultihopHops-1)
	case p.TTLSecurity > 0 && (p.Multihop > 0 || p.ASN == c.ASN):
		bad("TTL security is for eBGP without multihop")
	}
	if p.MaxPrefixes < 0 {
		bad("maximum prefixes %d is negative", p.MaxPrefixes)
	}
	if err := errors.Join(p.check(), p.BFD.check()); err != nil {
		bad("%w", err)
	}
	p.Attributes = p.normalize()
	if p.Passive && c.ListenPort < 0 {
		bad("passive, but the speaker listens on no port")
	}
	if c.Restart > 0 && p.BFD.Interval > 0 {
		bad("BFD ends with the BGP process, and the router then does not wait for graceful restart")
	}
	return p, errors.Join(errs...)
}

// normalizeFrom is what is special of a peer that stands for many.
func normalizeFrom(p *Peer) error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("bgp: peer %s: "+format, append([]any{p.From}, args...)...))
	}
	p.Most, p.Passive = cmp.Or(p.Most, DefaultFrom), true
	switch {
	case p.Address.IsValid():
		bad("has an address, too: %s", p.Address)
	case p.From.Bits() == 0:
		bad("would let everybody in")
	case !usable(p.From.Addr()):
		bad("not unicast addresses")
	}
	if p.Most < 1 || p.Most > MaxFrom {
		bad("at most %d of them is not 1 to %d", p.Most, MaxFrom)
	}
	if p.BFD != (BFD{}) || p.Look {
		bad("BFD and looking are for peers with an address")
	}
	return errors.Join(errs...)
}

func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast()
}

// listens returns the addresses that the child binds.
func listens(c Config, peers []Peer) []netip.Addr {
	if c.ListenPort < 0 {
		return nil
	}
	out := []netip.Addr{c.LocalAddress}
	if c.SecondAddress.IsValid() {
		out = append(out, c.SecondAddress)
	}
	for _, p := range peers {
		out = append(out, p.LocalAddress)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// needsRestart reports whether a running child cannot take the new configuration over: GoBGP fixes its ASN, router ID,
// listeners and socket at start.
func needsRestart(old, new Config, oldPeers, newPeers []Peer) bool {
	return old.ASN != new.ASN || old.Socket != new.Socket || old.RouterID != new.RouterID || old.ListenPort != new.ListenPort ||
		!slices.Equal(listens(old, oldPeers), listens(new, newPeers))
}

// resolve makes routes ready for the child: masked, next hops filled in, communities sorted, no prefix twice, sorted by
// prefix. What cannot be announced is returned with its error instead.
func resolve(c Config, routes []Route) (ready []Route, refused []RouteStatus) {
	seen := make(map[netip.Prefix]bool, len(routes))
	for _, r := range routes {
		r.Prefix = r.Prefix.Masked()
		r, err := resolveOne(c, r)
		switch {
		case err == nil && seen[r.Prefix]:
			continue // the first one counts
		case err == nil && len(ready) >= MaxRoutes:
			err = fmt.Errorf("more than %d routes", MaxRoutes)
		}
		if err != nil {
			if len(refused) < MaxRoutes {
				refused = append(refused, RouteStatus{Prefix: r.Prefix, Error: err.Error()})
			}
			continue
		}
		seen[r.Prefix] = true
		ready = append(ready, r)
	}
	slices.SortFunc(ready, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	return ready, refused
}

func resolveOne(c Config, r Route) (Route, error) {
	if !r.Prefix.IsValid() || r.Prefix.Addr().Is4In6() {
		return r, errors.New("not a prefix")
	}
	if r.Prefix.Bits() == 0 {
		return r, errors.New("a default route is never announced")
	}
	is4 := r.Prefix.Addr().Is4()
	if !r.NextHop.IsValid() {
		r.NextHop = c.NextHop6
		if is4 {
			r.NextHop = c.NextHop4
		}
	}
	r.NextHop = r.NextHop.Unmap().WithZone("")
	switch {
	case !r.NextHop.IsValid():
		return r, errors.New("no next hop of its address family is configured")
	case r.NextHop.Is4() != is4 || !usable(r.NextHop):
		return r, fmt.Errorf("next hop %s does not fit the prefix", r.NextHop)
	}
	if err := errors.Join(r.check(), checkOverrides(r)); err != nil {
		return r, err
	}
	r.Attributes = r.normalize()
	r.To = slices.Clone(r.To)
	for i := range r.To {
		r.To[i].Attributes = r.To[i].normalize()
	}
	return r, nil
}
