package udp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4/udp/offload"
)

// A Change is a new set of listeners with everything that can fail already done.
// Addresses in both sets keep their sockets and sessions. Either Commit or
// Discard is called, once; later calls do nothing.
type Change struct {
	server *Server
	next   []planned
	lane   *offload.Lane // opened for it; nil = there is one already, or none
	done   bool
}

type planned struct {
	binding *binding
	set     *Listener
	fresh   bool
}

// Prepare validates listeners and binds the addresses that are new. The Server
// goes on unchanged until Commit.
func (s *Server) Prepare(listeners []Listener) (*Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state == stateEnded:
		return nil, errors.New("prepare UDP listeners: already stopped")
	case s.pending:
		return nil, forward.ErrChangePending
	}
	c := &Change{server: s}
	named := make(map[netip.AddrPort]bool, len(listeners))
	used := make(map[*binding]bool)
	var errs []error
	for _, l := range listeners {
		if err := l.settle(); err != nil {
			errs = append(errs, err)
			continue
		}
		if named[l.Address] && l.Address.Port() != 0 {
			errs = append(errs, fmt.Errorf("listen on %s/udp: named twice", l.Address))
			continue
		}
		named[l.Address] = true
		p := planned{set: &l}
		for _, b := range s.bindings {
			if !used[b] && (b.real == l.Address || b.asked == l.Address) {
				used[b], p.binding = true, b
				break
			}
		}
		if p.binding == nil {
			b, err := bind(&l, len(s.shards))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			p.binding, p.fresh = b, true
			l.meter(nil, &s.count)
		} else {
			l.meter(p.binding.settings.Load(), &s.count)
		}
		c.next = append(c.next, p)
	}
	if len(errs) > 0 {
		c.closeFresh()
		return nil, errors.Join(errs...)
	}
	c.lane = s.openLane(c.next)
	s.pending = true
	return c, nil
}

// settle checks a listener and fills in the defaults.
func (l *Listener) settle() error {
	switch {
	case !l.Address.IsValid():
		return errors.New("listen on UDP: address is missing")
	case l.Service == "":
		return fmt.Errorf("UDP listener %s: service is missing", l.Address)
	case l.Idle < 0 || l.Sessions < 0 || l.Responses < AnyResponses || l.GoneAfter < 0 || l.Limits.Rate < 0 || l.Limits.ClientRate < 0:
		return fmt.Errorf("UDP listener %s: idle, sessions, responses, limits and the time that gone backends have must not be negative", l.Address)
	}
	if l.Offload && (l.Responses != AnyResponses || l.QUIC != nil) {
		return fmt.Errorf("UDP listener %s: offload goes neither with responses nor with quic, which look at every datagram", l.Address)
	}
	l.Idle = cmp.Or(l.Idle, DefaultIdle)
	l.Sessions = cmp.Or(l.Sessions, DefaultSessions)
	if l.BackendGone == GoneDrain {
		l.GoneAfter = cmp.Or(l.GoneAfter, DefaultDrainAfter)
	}
	l.GoneAfter = cmp.Or(l.GoneAfter, DefaultSilentAfter)
	if l.QUIC != nil {
		own := *l.QUIC // shards read it while the next change is checked
		l.QUIC = &own
		if err := l.QUIC.check(); err != nil {
			return fmt.Errorf("UDP listener %s: %w", l.Address, err)
		}
	}
	return nil
}

// Commit puts the change into effect. Removed addresses are closed with their sessions.
func (c *Change) Commit() {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.done {
		return
	}
	c.done, s.pending = true, false
	if s.state == stateEnded {
		c.closeFresh()
		return
	}
	s.setLane(c.lane, wantsLane(c.next))
	kept := make(map[*binding]bool, len(c.next))
	old := s.bindings
	s.bindings = make([]*binding, 0, len(c.next))
	for _, p := range c.next {
		p.binding.settings.Store(p.set)
		kept[p.binding] = true
		s.bindings = append(s.bindings, p.binding)
		if p.fresh && s.state == stateRunning {
			s.open(p.binding)
		}
	}
	for _, b := range old {
		switch {
		case kept[b]:
		case s.state == stateRunning:
			for _, sh := range s.shards {
				sh.Do(func() { sh.leave(b) })
			}
		default:
			b.close()
		}
	}
	for _, sh := range s.shards {
		sh.Do(sh.expire) // sessions that are open may end sooner now
	}
}

// Discard closes what Prepare opened.
func (c *Change) Discard() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if !c.done {
		c.done, c.server.pending = true, false
		c.closeFresh()
	}
}

func (c *Change) closeFresh() {
	if c.lane != nil {
		c.lane.Close()
	}
	for _, p := range c.next {
		if p.fresh {
			p.binding.close()
		}
	}
}
