package l4

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"golang.org/x/sys/unix"
)

// Defaults of Listener.
const (
	DefaultIdle      = 10 * time.Minute
	DefaultConnect   = 2 * time.Second
	DefaultHello     = 5 * time.Second
	DefaultBacklog   = 4096
	DefaultKeepAlive = time.Minute
	DefaultGoneAfter = 30 * time.Second
)

// A ProxyVersion is the version of the PROXY protocol.
type ProxyVersion uint8

// The versions.
const (
	ProxyNone ProxyVersion = iota
	Proxy1                 // a line of text
	Proxy2                 // binary, with TLVs
)

// Gone says what becomes of a connection when its backend is down, drained or
// no longer configured. One that is up and asks for no new work finishes what it has.
type Gone uint8

// The policies.
const (
	GoneKeep  Gone = iota // it goes on
	GoneDrain             // it goes on for GoneAfter and is then reset
	GoneAbort             // it is reset, unless its backend is drained: that lets it end
)

// A Departure is a policy with its time.
type Departure struct {
	Policy Gone
	After  time.Duration // of GoneDrain; 0 means DefaultGoneAfter
}

// A Listener takes connections for one service, or for several by what TLS
// clients say in their hello.
type Listener struct {
	// Address to bind; port 0 takes a free one.
	Address netip.AddrPort
	// Service names the pool. A service that no plan knows is not an error: its
	// clients are reset and counted. With Routes it takes what no route does, and
	// may be empty.
	Service string
	// Routes choose a service by the TLS hello, which is looked at and not consumed.
	Routes []Route

	// Idle is how long both directions may be silent; 0 means DefaultIdle.
	Idle time.Duration
	// Connect bounds one attempt to reach a backend; 0 means DefaultConnect.
	Connect time.Duration
	// Lifetime bounds a connection; 0 = none.
	Lifetime time.Duration
	// Hello is how long a client may take for its PROXY header, and for its TLS
	// hello; 0 means DefaultHello.
	Hello time.Duration

	// Backlog is how many connections may wait to be accepted; 0 means DefaultBacklog.
	Backlog int
	// KeepAlive is the silence after which the kernel asks whether a peer is still
	// there; 0 means DefaultKeepAlive, negative = never.
	KeepAlive time.Duration
	// UserTimeout is how long sent bytes may stay unacknowledged; 0 = as the kernel has it.
	UserTimeout time.Duration
	// FastOpen allows data in the first segment, from clients and to backends.
	FastOpen bool
	// DeferAccept leaves connections to the kernel until the client has sent
	// something, for so long at most; 0 = not. Not for protocols where the server
	// speaks first.
	DeferAccept time.Duration

	// AcceptProxy are the sources whose connections begin with a PROXY header, of
	// either version. It is demanded of them and refused from all others.
	AcceptProxy []netip.Prefix
	// SendProxy begins connections to backends with a PROXY header.
	SendProxy ProxyVersion
	// Sources are the addresses that backends are connected to from, one of each
	// family at most; none = as the kernel chooses.
	Sources []netip.Addr
	// Transparent connects to backends from the client's address (IP_TRANSPARENT).
	Transparent bool

	// Overflow: what a service's own pool has nobody for goes to the port of this listener at other
	// sites' VIPs, where the plan names some; with a PROXY header (version 2) if AcceptProxy would demand one of
	// this node, and from the kernel's choice of address.
	Overflow bool

	Limits Limits
	// BackendGone says what becomes of connections to a backend that is gone, ServiceGone the same of those services that want
	// it in another way.
	BackendGone Departure
	ServiceGone map[string]Departure
}

// settings is a Listener made ready for use. It is immutable; what it points to counts.
type settings struct {
	Listener
	routes  *routes
	rate    *forward.Meter
	clients *forward.Clients
}

// settle checks a listener, fills in the defaults and compiles it. Counters of
// before go on if their limits are the same.
func settle(l Listener, before *settings, m *metrics) (*settings, error) {
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("l4: listener %s: "+format, append([]any{l.Address}, args...)...))
	}
	if l.Service == "" && len(l.Routes) == 0 {
		refuse("service is missing")
	}
	for _, d := range []time.Duration{l.Idle, l.Connect, l.Lifetime, l.Hello, l.UserTimeout, l.DeferAccept, l.BackendGone.After} {
		if d < 0 {
			refuse("durations must not be negative")
			break
		}
	}
	if l.Transparent && len(l.Sources) > 0 {
		refuse("a source address and transparent exclude each other")
	}
	l.Idle = cmp.Or(l.Idle, DefaultIdle)
	l.Connect = cmp.Or(l.Connect, DefaultConnect)
	l.Hello = cmp.Or(l.Hello, DefaultHello)
	l.Backlog = cmp.Or(l.Backlog, DefaultBacklog)
	l.KeepAlive = cmp.Or(l.KeepAlive, DefaultKeepAlive)
	set := &settings{Listener: l}
	var err error
	if set.routes, err = compileRoutes(l.Routes); err != nil {
		refuse("%w", err)
	}
	if err := set.tryOut(); err != nil {
		refuse("%w", err)
	}
	if before != nil && before.Limits.Rate == l.Limits.Rate {
		set.rate = before.rate
	} else {
		set.rate = forward.NewMeter(l.Limits.Rate)
	}
	if before != nil && before.Limits.ofClients() == l.Limits.ofClients() {
		set.clients = before.clients
	} else {
		set.clients = newClients(&l.Limits, &m.untracked)
	}
	return set, errors.Join(errs...)
}

// departure is what becomes of connections of a service to a backend that is gone.
func (s *settings) departure(service string) Departure {
	if own, ok := s.ServiceGone[service]; ok {
		return own
	}
	return s.BackendGone
}

// tryOut refuses what this process is not allowed to do, before a client finds out.
func (s *settings) tryOut() error {
	var errs []error
	for _, source := range s.Sources {
		family := unix.AF_INET6
		if source.Is4() {
			family = unix.AF_INET
		}
		fd, errno := socket(family, unix.SOCK_STREAM)
		if errno == 0 {
			var sa rawAddr
			errno = bindTo(fd, &sa, kernel.Sockaddr(&sa, netip.AddrPortFrom(source, 0), false))
			closeFD(fd)
		}
		if errno != 0 {
			errs = append(errs, fmt.Errorf("source %s: %w", source, errno))
		}
	}
	if s.Transparent {
		fd, errno := socket(unix.AF_INET, unix.SOCK_STREAM)
		if errno == 0 {
			errno = setOption(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
			closeFD(fd)
		}
		if errno != 0 {
			errs = append(errs, fmt.Errorf("transparent: %w (IP_TRANSPARENT needs root or CAP_NET_ADMIN, "+
				"and rules that bring the backends' packets back here)", errno))
		}
	}
	return errors.Join(errs...)
}

// trusts reports whether an address has to begin with a PROXY header.
func (s *settings) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(s.AcceptProxy, func(p netip.Prefix) bool { return p.Contains(a) })
}

// needsLocal reports whether anybody asks which address a client has connected to.
func (s *settings) needsLocal() bool {
	return s.SendProxy != ProxyNone || s.Overflow && len(s.AcceptProxy) > 0
}

// fromElsewhere reports whether connections to backends have a chosen source.
func (s *settings) fromElsewhere() bool { return s.Transparent || len(s.Sources) > 0 }

// bindSource binds a connection to a backend to its source.
func (s *settings) bindSource(fd int32, client netip.AddrPort, backend netip.Addr) unix.Errno {
	setOption(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	var source netip.Addr
	if s.Transparent {
		source = client.Addr()
		if source.Is4() != backend.Is4() {
			return unix.EADDRNOTAVAIL
		}
		level, option := unix.SOL_IP, unix.IP_TRANSPARENT
		if !backend.Is4() {
			level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		}
		if errno := setOption(fd, level, option, 1); errno != 0 {
			return errno
		}
	} else {
		i := slices.IndexFunc(s.Sources, func(a netip.Addr) bool { return a.Is4() == backend.Is4() })
		if i < 0 {
			return 0
		}
		source = s.Sources[i]
	}
	var sa rawAddr
	return bindTo(fd, &sa, kernel.Sockaddr(&sa, netip.AddrPortFrom(source, 0), false))
}
