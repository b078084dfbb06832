package dnslb

import "net/netip"

// A Traffic is how many queries came over UDP to one listening address since it is listened on.
type Traffic struct {
	// Address is where; an unspecified one stands for every address.
	Address netip.AddrPort
	Queries uint64
}

// Traffic returns how many queries came to each address that is listened on.
func (s *Server) Traffic() []Traffic {
	s.metrics.mu.Lock()
	defer s.metrics.mu.Unlock()
	at := make(map[netip.AddrPort]uint64)
	for c := range s.metrics.live {
		if c.at.IsValid() {
			at[c.at] += c.queries[overUDP].Load()
		}
	}
	out := make([]Traffic, 0, len(at))
	for address, queries := range at {
		out = append(out, Traffic{address, queries})
	}
	return out
}
