package dnslb

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/steer"
)

// Options are what a [Server] is made of.
type Options struct {
	// Listen are the addresses, UDP and TCP each. Port 0 lets the kernel choose
	// one port for both. 0.0.0.0 and [::] take every address of their family; an
	// invalid Addr with a port takes every address of both families that the
	// machine has.
	Listen []netip.AddrPort
	// Board is where plans are published. While it holds none, steered names are
	// answered SERVFAIL and everything else is answered. Required.
	Board *steer.Board
	// Shared lets other processes of this user answer on the same addresses; the
	// kernel spreads the queries. Without it New refuses an address that is taken.
	Shared bool
	// Sockets is the number of UDP sockets for each address; 0 = GOMAXPROCS.
	Sockets int
	// Tunables can change with a reload.
	Tunables
	// Log gets transitions, never queries; nil = none.
	Log *slog.Logger
	// Registerer gets the metrics; nil = none.
	Registerer prometheus.Registerer
	// Room is told how many more, or fewer, of the runtime's processors threads keep for themselves (Server.Hold), more
	// before they do. It must not call the server; nil = nobody is told.
	Room func(more int)
}

// Tunables are the options that a reload changes without new sockets. The zero
// value of each field stands for its default.
type Tunables struct {
	// UDPSize is the largest UDP response in octets, 512 … 4096; default 1232.
	UDPSize uint16
	// TCPMax bounds the TCP connections of the server, 1 … 100000; default 4096.
	TCPMax int
	// TCPIdle is how long a TCP connection may be silent, 1 s … 1 h; default 10 s.
	TCPIdle time.Duration
	// ECS: heed EDNS Client Subnet (RFC 7871). Without it the option is ignored.
	ECS bool
	// ServerID answers NSID and the CH names id.server and hostname.bind; at
	// most 64 octets, "" = hidden.
	ServerID string
	// Version answers the CH names version.server and version.bind; at most 64
	// octets, "" = hidden.
	Version string
}

const (
	defaultUDPSize = 1232
	defaultTCPMax  = 4096
	defaultTCPIdle = 10 * time.Second
	maxText        = 64
	maxSockets     = 256
)

// Validate reports every option that is out of range, as New and Prepare would.
func (t Tunables) Validate() error {
	_, err := t.complete()
	return err
}

// complete fills in defaults and checks ranges.
func (t Tunables) complete() (Tunables, error) {
	if t.UDPSize == 0 {
		t.UDPSize = defaultUDPSize
	}
	if t.TCPMax == 0 {
		t.TCPMax = defaultTCPMax
	}
	if t.TCPIdle == 0 {
		t.TCPIdle = defaultTCPIdle
	}
	var errs []error
	if t.UDPSize < 512 || t.UDPSize > 4096 {
		errs = append(errs, fmt.Errorf("dns: udp size %d: want 512 to 4096 octets", t.UDPSize))
	}
	if t.TCPMax < 1 || t.TCPMax > 100000 {
		errs = append(errs, fmt.Errorf("dns: tcp max %d: want 1 to 100000 connections", t.TCPMax))
	}
	if t.TCPIdle < time.Second || t.TCPIdle > time.Hour {
		errs = append(errs, fmt.Errorf("dns: tcp idle %v: want 1s to 1h", t.TCPIdle))
	}
	if len(t.ServerID) > maxText {
		errs = append(errs, fmt.Errorf("dns: server id of %d octets: want at most %d", len(t.ServerID), maxText))
	}
	if len(t.Version) > maxText {
		errs = append(errs, fmt.Errorf("dns: version of %d octets: want at most %d", len(t.Version), maxText))
	}
	return t, errors.Join(errs...)
}

// complete fills in defaults and checks everything but the addresses.
func (o Options) complete() (Options, error) {
	tunables, err := o.Tunables.complete()
	o.Tunables = tunables
	if o.Board == nil {
		err = errors.Join(err, errors.New("dns: no board to take plans from"))
	}
	if o.Sockets == 0 {
		o.Sockets = runtime.GOMAXPROCS(0)
	}
	if o.Sockets < 1 || o.Sockets > maxSockets {
		err = errors.Join(err, fmt.Errorf("dns: %d sockets for each address: want 1 to %d", o.Sockets, maxSockets))
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, err
}

// addresses checks listen and replaces each invalid Addr by both wildcards.
func addresses(listen []netip.AddrPort) ([]netip.AddrPort, error) {
	var errs []error
	seen := make(map[netip.AddrPort]bool, len(listen))
	out := make([]netip.AddrPort, 0, len(listen)+1)
	for _, l := range listen {
		each := []netip.AddrPort{netip.AddrPortFrom(l.Addr().Unmap(), l.Port())}
		if !l.Addr().IsValid() {
			each = []netip.AddrPort{
				netip.AddrPortFrom(netip.IPv4Unspecified(), l.Port()),
				netip.AddrPortFrom(netip.IPv6Unspecified(), l.Port()),
			}
		}
		for _, a := range each {
			if seen[a] {
				errs = append(errs, fmt.Errorf("dns: listen address %v is given twice", a))
				continue
			}
			seen[a] = true
			out = append(out, a)
		}
	}
	return out, errors.Join(errs...)
}
