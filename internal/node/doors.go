package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/health/probe"
)

// How this node asks itself at its doors. The connection never leaves the machine, so a failure is
// no matter of chance: two in a row count.
const (
	doorEvery   = time.Second
	doorTimeout = 500 * time.Millisecond
	doorRecheck = 100 * time.Millisecond
	doorFall    = 2
)

// newDoors makes what asks this node itself for what its prefixes require. From the VIP to the VIP: such a
// question cannot even be sent while the VIP is not on this node, and no other node can answer it.
func (n *Node) newDoors(s *Setup) (*probe.Runner, error) {
	return probe.New(probe.Options{
		Checks: doorChecks(s), Source: func(t health.Target) netip.Addr { return t.Addr.Addr() }, Log: n.log,
	})
}

func doorChecks(s *Setup) (out []probe.Check) {
	for _, d := range s.Topology.Doors() {
		c := probe.Check{
			Target: doorTarget(d), Kind: probe.TCP, Every: doorEvery, Timeout: doorTimeout, Recheck: doorRecheck, Rise: 1, Fall: doorFall,
		}
		if d.Name != "" {
			c.Kind, c.DNS = probe.DNS, probe.DNSQuestion{Name: d.Name, Type: "A"}
		}
		out = append(out, c)
	}
	return out
}

// doorTarget is what a door is called among the targets of its own prober.
func doorTarget(d config.Door) health.Target {
	return health.Target{Kind: health.KindVIP, Service: d.String(), Addr: d.Address}
}

// watchDoors asks at the doors, and tells the decider what came of it.
func (n *Node) watchDoors(ctx context.Context) error {
	asking := make(chan error, 1)
	go func() { asking <- n.doors.Run(ctx) }() // ends with ctx
	for {
		n.decider.do(ctx, n.noteDoors)
		select {
		case <-ctx.Done():
			return <-asking
		case err := <-asking:
			return err
		case <-n.doors.Changed():
		}
	}
}

// noteDoors hands over what is known now. It runs on the decider's goroutine.
func (n *Node) noteDoors() {
	doors := n.decider.core.Topology().Doors()
	found := make(map[health.Target]health.Status, len(doors))
	for _, s := range n.doors.States(nil) {
		found[s.Target] = s.Status
	}
	out := make([]health.Status, len(doors))
	n.absent = nil
	for i, d := range doors {
		out[i] = found[doorTarget(d)]
		// That the question could not be sent says nothing about a listener, but may about its address.
		if !decided(out[i]) && !here(d.Address.Addr()) {
			n.absent = append(n.absent, d.Address.Addr())
		}
	}
	n.decider.core.SetDoors(out)
	n.noteVIPs()
}

// here reports whether an address is on this machine: whether it can be bound.
func here(a netip.Addr) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		return !errors.Is(err, syscall.EADDRNOTAVAIL)
	}
	c.Close()
	return true
}

// awaitDoors waits until every door has been asked at, for limit at most: a process that takes another's routes over
// must not begin with less than it knows.
func (n *Node) awaitDoors(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	woken, unwatch := n.board.Watch()
	defer unwatch()
	for {
		known := true
		n.decider.do(ctx, func() {
			n.noteDoors()
			known = n.decider.core.DoorsKnown()
		})
		if known {
			return
		}
		select {
		case <-woken:
		case <-ctx.Done():
			return
		}
	}
}
