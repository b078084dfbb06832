package offload

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// maxKnown is how many routes are remembered; then all are looked up anew.
	maxKnown = 16384
	// answerWithin is how long the kernel may take to answer a question for a route.
	answerWithin = 200 * time.Millisecond
	// tries of reading the list of interfaces, which may change meanwhile.
	tries = 5
)

// A route is how a datagram leaves. ifindex 0 = it is for this machine.
type route struct{ ifindex, mtu int }

// paths are the interfaces with the program on them, and the routes of addresses.
type paths struct {
	handle  *netlink.Handle
	program *ebpf.Program

	attached map[int]link.Link // by interface; changed by look alone

	mtu map[int]int // of interfaces by which something may leave; changed by forget alone, not while find runs

	mu    sync.Mutex // guards known
	known map[[2]netip.Addr]route
}

func (p *paths) open(program *ebpf.Program) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	p.handle, p.program, p.attached = h, program, make(map[int]link.Link)
	if err := h.SetSocketTimeout(answerWithin); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	return nil
}

func (p *paths) close() {
	for _, at := range p.attached {
		at.Close()
	}
	p.attached = nil
	if p.handle != nil {
		p.handle.Close()
		p.handle = nil
	}
}

// attach begins with the interfaces that there are.
func (p *paths) attach(log *slog.Logger) error {
	mtu, err := p.look(log)
	p.forget(mtu)
	return err
}

// forget forgets routes. Without the sizes of interfaces there is no way out.
func (p *paths) forget(mtu map[int]int) {
	p.mtu, p.known = mtu, make(map[[2]netip.Addr]route)
}

// look attaches the program to interfaces that are new, and returns the sizes of those by which something may leave.
func (p *paths) look(log *slog.Logger) (mtu map[int]int, err error) {
	var links []netlink.Link
	for range tries {
		if links, err = p.handle.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	mtu = make(map[int]int)
	there := make(map[int]bool)
	for _, l := range links {
		attrs := l.Attrs()
		loopback := attrs.EncapType == "loopback"
		if !loopback && attrs.EncapType != "ether" || l.Type() == "vrf" {
			continue
		}
		if !loopback {
			mtu[attrs.Index] = attrs.MTU
		}
		if attrs.MasterIndex != 0 { // a port of a bridge, bond or VRF, which has the datagrams next
			continue
		}
		there[attrs.Index] = true
		if p.attached[attrs.Index] != nil {
			continue
		}
		at, err := link.AttachTCX(link.TCXOptions{Interface: attrs.Index, Program: p.program, Attach: ebpf.AttachTCXIngress})
		switch {
		case err == nil:
			p.attached[attrs.Index] = at
		case loopback:
			return nil, fmt.Errorf("attach to %s: %w", attrs.Name, err)
		case !errors.Is(err, unix.ENODEV): // it has gone already
			log.Warn("UDP sessions that come by an interface stay with their sockets", "interface", attrs.Name, "error", err)
		}
	}
	for index, at := range p.attached {
		if !there[index] {
			at.Close()
			delete(p.attached, index)
		}
	}
	return mtu, nil
}

// find returns how a datagram leaves for the destination of a pair; false if it cannot in the kernel's lane.
func (p *paths) find(to pair) (route, bool) {
	key := [2]netip.Addr{to.dst.Addr(), to.src.Addr()}
	p.mu.Lock()
	r, ok := p.known[key]
	p.mu.Unlock()
	if ok {
		return r, true
	}
	if r, ok = p.ask(key[0], key[1]); ok {
		p.mu.Lock()
		if len(p.known) >= maxKnown {
			clear(p.known)
		}
		p.known[key] = r
		p.mu.Unlock()
	}
	return r, ok
}

func (p *paths) ask(dst, src netip.Addr) (route, bool) {
	routes, err := p.handle.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{SrcAddr: src.AsSlice()})
	if err != nil || len(routes) != 1 {
		return route{}, false
	}
	r := &routes[0]
	switch r.Type {
	case unix.RTN_LOCAL:
		return route{}, true
	case unix.RTN_UNICAST:
		mtu, ok := p.mtu[r.LinkIndex]
		if r.MTU > 0 {
			mtu = min(mtu, r.MTU)
		}
		return route{r.LinkIndex, mtu}, ok
	}
	return route{}, false
}
