package udp

import (
	"net/netip"

	"github.com/pharos-lb/pharos/forward"
)

// Limits bound how fast sessions begin; what belongs to one that is there is never limited. 0 = no limit.
type Limits struct {
	// Rate is how many a second begin, with a burst of one second, ClientRate the same for one client prefix.
	Rate, ClientRate int
	// ClientBits4 and ClientBits6 are how many bits of an address make a client; 0 means 32 and 64.
	ClientBits4, ClientBits6 int
	// Table is how many client prefixes are remembered; 0 means forward.DefaultClients. A client that there is no room for is served and
	// not counted.
	Table int
}

func (l *Limits) ofClients() forward.ClientLimits {
	return forward.ClientLimits{Rate: l.ClientRate, Bits4: l.ClientBits4, Bits6: l.ClientBits6, Table: l.Table}
}

// meter makes what counts against the limits, or goes on with what has counted so far if they are the same.
func (l *Listener) meter(before *Listener, count *counters) {
	if before != nil && before.Limits.Rate == l.Limits.Rate {
		l.rate = before.rate
	} else {
		l.rate = forward.NewMeter(l.Limits.Rate)
	}
	if before != nil && before.Limits.ofClients() == l.Limits.ofClients() {
		l.clients = before.clients
	} else {
		l.clients = forward.NewClients(l.Limits.ofClients(), &count.untracked)
	}
}

// admit reports whether a session may begin now, and counts the datagram that would have begun one if not.
func (s *shard) admit(set *Listener, k key) bool {
	if set.clients != nil {
		if _, err := set.clients.EnterAt(netip.AddrFrom16(k.client).Unmap(), s.now); err != nil {
			s.server.count.clientRate.Add(1)
			return false
		}
	}
	if set.rate != nil && !set.rate.Take(s.now) {
		s.server.count.rate.Add(1)
		return false
	}
	if !s.server.registry.Load().Admit(set.Service) {
		s.server.count.serviceRate.Add(1)
		return false
	}
	if !s.server.registry.Intake().TakeSession() {
		s.server.count.nodeRate.Add(1)
		return false
	}
	return true
}
