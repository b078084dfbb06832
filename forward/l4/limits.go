package l4

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/pharos-lb/pharos/forward"
)

// Limits bound what a listener takes. 0 = no limit.
type Limits struct {
	// Connections is how many of the listener are served at once, ServiceConnections
	// how many of each of its services, counted over all listeners.
	Connections, ServiceConnections int
	// Rate is how many new ones a second are taken, with a burst of one second.
	Rate int
	// ClientConnections and ClientRate are the same for one client prefix.
	ClientConnections, ClientRate int
	// ClientBits4 and ClientBits6 are how many bits of an address make a client;
	// 0 means 32 and 64.
	ClientBits4, ClientBits6 int
	// Table is how many client prefixes are remembered; 0 means forward.DefaultClients.
	// A client that there is no room for is served and not counted.
	Table int
}

// ofClients are the limits that are by client.
func (l *Limits) ofClients() forward.ClientLimits {
	return forward.ClientLimits{
		Rate: l.ClientRate, Open: l.ClientConnections, Bits4: l.ClientBits4, Bits6: l.ClientBits6, Table: l.Table,
	}
}

// newClients returns nil if no limit is by client.
func newClients(l *Limits, missed *atomic.Uint64) *forward.Clients {
	return forward.NewClients(l.ofClients(), missed)
}

// enter counts one more of a client, or says why not. tracked says that it has to leave.
func (s *settings) enter(a netip.Addr, now int64) (tracked bool, why drop) {
	switch tracked, err := s.clients.EnterAt(a, now); err {
	case nil:
		return tracked, dropNone
	case forward.ErrClientRate:
		return false, dropClientRate
	default:
		return false, dropClientFull
	}
}

// serviceCounts counts what is open by service, over all listeners, from when one of them limits it.
type serviceCounts struct {
	on   atomic.Bool
	mu   sync.Mutex // guards open
	open map[string]int
}

// enter counts one more of a service, unless it has most already; 0 = no limit.
func (c *serviceCounts) enter(service string, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if most > 0 && c.open[service] >= most {
		return false
	}
	if c.open == nil {
		c.open = make(map[string]int)
	}
	c.open[service]++
	return true
}

func (c *serviceCounts) leave(service string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[service]--; c.open[service] <= 0 {
		delete(c.open, service)
	}
}
