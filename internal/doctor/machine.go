package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/bgp/probe"
)

// A Machine is what checks need of the machine they run on.
type Machine interface {
	// Addresses are the addresses of this machine with the names of their interfaces.
	Addresses() (map[netip.Addr]string, error)
	// Interface reports whether there is an interface of that name.
	Interface(name string) bool
	// MayListen says why a process here cannot listen at a TCP address; nil = it can.
	MayListen(netip.AddrPort) error
	// Capable reports whether a process has a capability; pid 0 = this one. ok is false when it cannot be known.
	Capable(pid int, capability uint) (has, ok bool)
	// LeastPort is the lowest port that everybody may listen on.
	LeastPort() int
	// Probe asks a router.
	Probe(context.Context, probe.Target, probe.Options) probe.Result
}

// Here is the machine that this process runs on.
func Here() Machine { return here{} }

type here struct{}

func (here) Addresses() (map[netip.Addr]string, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	out := map[netip.Addr]string{}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has gone meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out[p.Addr().Unmap().WithZone("")] = i.Name
			}
		}
	}
	return out, nil
}

func (here) Interface(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}

func (here) MayListen(a netip.AddrPort) error {
	l, err := net.Listen("tcp", a.String())
	if err != nil {
		return err
	}
	return l.Close()
}

func (here) Capable(pid int, capability uint) (has, ok bool) {
	name := "self"
	if pid != 0 {
		name = strconv.Itoa(pid)
	}
	text, err := os.ReadFile("/proc/" + name + "/status")
	if err != nil {
		return false, false
	}
	for line := range strings.Lines(string(text)) {
		if mask, found := strings.CutPrefix(line, "CapEff:"); found {
			caps, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return caps&(1<<capability) != 0, err == nil
		}
	}
	return false, false
}

func (here) LeastPort() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return 1024
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 1024
	}
	return n
}

func (here) Probe(ctx context.Context, t probe.Target, o probe.Options) probe.Result {
	return probe.Run(ctx, t, o)
}

// The capabilities that BGP and VIPs need.
const (
	capBind  = unix.CAP_NET_BIND_SERVICE
	capAdmin = unix.CAP_NET_ADMIN
)
