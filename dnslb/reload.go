package dnslb

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/pharos-lb/pharos/dnslb/zone"
)

// A Change is a reload that has been prepared: everything that can fail has
// succeeded. Exactly one of Commit and Discard ends it; what is called after
// that does nothing.
type Change struct {
	server   *Server
	tunables Tunables
	listen   []netip.AddrPort
	added    []*listener
	zones    *zone.Set
	done     bool
}

// Prepare readies new addresses and tunables: it checks them and binds the
// addresses that are not bound yet. Nothing changes until Commit. Only one
// Change may be open at a time, and New's rules for addresses hold.
func (s *Server) Prepare(listen []netip.AddrPort, t Tunables) (*Change, error) {
	t, err := t.complete()
	listen, listenErr := addresses(listen)
	if err = errors.Join(err, listenErr); err != nil {
		return nil, err
	}
	s.zones.Load().note(s.board) // the plan to go by while the next one is published before the zones
	s.mu.Lock()
	if s.state == stopped {
		s.mu.Unlock()
		return nil, ErrStopped
	}
	bound := make(map[netip.AddrPort]bool, len(s.listeners))
	for _, l := range s.listeners {
		bound[l.asked] = true
	}
	s.mu.Unlock()
	var missing []netip.AddrPort
	for _, addr := range listen {
		if !bound[addr] {
			missing = append(missing, addr)
		}
	}
	added, err := bindAll(missing, len(listen)-len(missing), binder(s.sockets))
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	return &Change{server: s, tunables: t, listen: listen, added: added}, nil
}

// SetZones makes Commit replace the zones too, in the same step.
func (c *Change) SetZones(set *zone.Set) { c.zones = set }

// Commit makes the change: new sockets begin to serve, sockets of addresses
// that stay are not touched, the others finish what they have read and close.
func (c *Change) Commit() {
	if c.done {
		return
	}
	c.done = true
	s := c.server
	s.tunables.Store(&c.tunables)
	s.pool.SetLimits(s.limits(&c.tunables))
	if c.zones != nil {
		s.SetZones(c.zones)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == stopped {
		closeAll(c.added)
		return
	}
	have := make(map[netip.AddrPort]*listener, len(s.listeners)+len(c.added))
	for _, l := range s.listeners {
		have[l.asked] = l
	}
	for _, l := range c.added {
		if have[l.asked] != nil { // another change was faster
			closeAll([]*listener{l})
			continue
		}
		have[l.asked] = l
		if s.state == running {
			l.start(s)
		}
	}
	s.listeners = nil
	for _, addr := range c.listen {
		if l := have[addr]; l != nil {
			s.listeners = append(s.listeners, l)
			delete(have, addr)
		}
	}
	s.holdSockets()
	for _, l := range have {
		s.stopping.Go(func() {
			if err := l.stop(); err != nil {
				s.log.Warn("dns listener did not close cleanly", "address", l.asked.String(), "error", err)
			}
		})
	}
}

// Discard gives the change up and unbinds what was bound for it.
func (c *Change) Discard() {
	if c.done {
		return
	}
	c.done = true
	closeAll(c.added)
}
