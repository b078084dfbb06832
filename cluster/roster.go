package cluster

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxMembers is how many nodes, present or gone, are kept track of. More are
// not let in.
const maxMembers = 1024

// peer is what the membership protocol knows of another node.
type peer struct {
	name string
	addr netip.AddrPort
	card
	present bool
	since   time.Time // of present
	rtt     time.Duration
	// busy says that a courier has something for this peer already.
	busy bool
}

// roster keeps the peers as the membership protocol's callbacks tell of them.
// memberlist's own list is not asked: its elements are changed behind the
// caller's back, and in a callback asking deadlocks. roster's lock is a leaf:
// nothing is called while it is held.
type roster struct {
	mu    sync.Mutex // guards peers and what it points to
	peers map[string]*peer
}

func newRoster() *roster { return &roster{peers: make(map[string]*peer)} }

// admits reports whether there is room for a node of that name.
func (ro *roster) admits(name string) bool {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	return ro.peers[name] != nil || len(ro.peers) < maxMembers || ro.forget(time.Now()) > 0
}

// join notes that node is present and returns its address.
func (ro *roster) join(node *memberlist.Node, now time.Time) netip.AddrPort {
	addr := addressOf(node)
	c, _ := parseCard(node.Meta)
	c.wire = max(c.wire, wireFirst) // a record that cannot be read tells nothing
	ro.mu.Lock()
	defer ro.mu.Unlock()
	p := ro.peers[node.Name]
	if p == nil {
		p = &peer{name: node.Name}
		ro.peers[node.Name] = p
	}
	if !p.present || p.addr != addr {
		p.since, p.rtt = now, 0
	}
	p.addr, p.card, p.present = addr, c, true
	return addr
}

// leave notes that a node is not present any more.
func (ro *roster) leave(name string, now time.Time) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if p := ro.peers[name]; p != nil && p.present {
		p.present, p.since = false, now
	}
	ro.forget(now)
}

// forget drops peers gone for longer than forgetAfter. mu must be held.
func (ro *roster) forget(now time.Time) int {
	n := 0
	for name, p := range ro.peers {
		if !p.present && now.Sub(p.since) > forgetAfter {
			delete(ro.peers, name)
			n++
		}
	}
	return n
}

// pinged notes a round trip.
func (ro *roster) pinged(name string, rtt time.Duration) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if p := ro.peers[name]; p != nil {
		p.rtt = rtt
	}
}

// all returns a copy of every peer, in no order.
func (ro *roster) all() []peer {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	all := make([]peer, 0, len(ro.peers))
	for _, p := range ro.peers {
		all = append(all, *p)
	}
	return all
}

// wires returns the wire version of every peer that is present, and of those
// that are gone, by address.
func (ro *roster) wires() (present, gone map[netip.AddrPort]uint8) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	present, gone = make(map[netip.AddrPort]uint8, len(ro.peers)), make(map[netip.AddrPort]uint8)
	for _, p := range ro.peers {
		if p.present {
			present[p.addr] = p.wire
		} else {
			gone[p.addr] = p.wire
		}
	}
	return present, gone
}

// lowestWire returns the oldest wire version among the peers that are present,
// our own if there is none.
func (ro *roster) lowestWire() uint8 {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	lowest := uint8(wireNow)
	for _, p := range ro.peers {
		if p.present {
			lowest = min(lowest, p.wire)
		}
	}
	return lowest
}

// find returns a copy of a peer that is present.
func (ro *roster) find(name string) (peer, bool) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	p := ro.peers[name]
	if p == nil || !p.present {
		return peer{}, false
	}
	return *p, true
}

// presentAddrs returns the addresses of the peers that are present.
func (ro *roster) presentAddrs() map[netip.AddrPort]bool {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	addrs := make(map[netip.AddrPort]bool, len(ro.peers))
	for _, p := range ro.peers {
		if p.present {
			addrs[p.addr] = true
		}
	}
	return addrs
}

// count returns how many peers are present and how many are gone.
func (ro *roster) count() (present, gone int) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, p := range ro.peers {
		if p.present {
			present++
		} else {
			gone++
		}
	}
	return present, gone
}

// reserve marks a peer busy; it reports false if it was so already or is not present.
func (ro *roster) reserve(name string) bool {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	p := ro.peers[name]
	if p == nil || p.busy || !p.present {
		return false
	}
	p.busy = true
	return true
}

// release undoes reserve.
func (ro *roster) release(name string) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if p := ro.peers[name]; p != nil {
		p.busy = false
	}
}

// addressOf returns where node says it listens; invalid if it says nonsense.
func addressOf(node *memberlist.Node) netip.AddrPort {
	ip, ok := netip.AddrFromSlice(node.Addr)
	if !ok || node.Port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), node.Port)
}
