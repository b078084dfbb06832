package forward

import "net/netip"

// A Traffic is what arrives at one listening address.
type Traffic struct {
	// Address is where; an unspecified one stands for every address.
	Address netip.AddrPort
	// Open is how many connections or sessions there are.
	Open int64
	// Begun counts those that began since the address is listened on.
	Begun uint64
}

// Traffic returns what arrives at each address that is listened on. Its cost is
// proportional to the connections.
func (f *Front[S]) Traffic() []Traffic {
	f.mu.Lock()
	defer f.mu.Unlock()
	open := make(map[*socket[S]]int64, len(f.sockets))
	for c := range f.conns {
		open[c.socket]++
	}
	out := make([]Traffic, len(f.sockets))
	for i, s := range f.sockets {
		out[i] = Traffic{Address: s.asked, Open: open[s], Begun: s.begun.Load()}
	}
	return out
}
