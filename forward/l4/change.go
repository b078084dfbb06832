package l4

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/pharos-lb/pharos/forward"
)

// A Change is a new set of listeners with everything that can fail already done.
// Addresses in both sets keep their sockets and no connection is cut. Either
// Commit or Discard is called, once; later calls do nothing.
type Change struct {
	server *Server
	next   []planned
	done   bool
}

type planned struct {
	binding *binding
	set     *settings
	fresh   bool
}

// Prepare validates listeners and binds the addresses that are new. The Server
// goes on unchanged until Commit. On any error nothing is left bound that was
// not before.
func (s *Server) Prepare(listeners []Listener) (*Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state == stateEnded:
		return nil, errors.New("l4: prepare listeners: already stopped")
	case s.pending:
		return nil, fmt.Errorf("l4: %w", forward.ErrChangePending)
	}
	free := make(map[*binding]bool, len(s.bindings))
	for _, b := range s.bindings {
		free[b] = true
	}
	c := &Change{server: s}
	named := make(map[netip.AddrPort]bool, len(listeners))
	var errs []error
	for _, l := range listeners {
		p, err := s.plan(l, named, free)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.next = append(c.next, p)
	}
	if len(errs) > 0 {
		c.closeFresh()
		return nil, errors.Join(errs...)
	}
	s.pending = true
	return c, nil
}

// plan gives a listener its binding: the one that it has, or a fresh one.
func (s *Server) plan(l Listener, named map[netip.AddrPort]bool, free map[*binding]bool) (planned, error) {
	switch {
	case !l.Address.IsValid():
		return planned{}, errors.New("l4: listen: address is missing")
	case named[l.Address] && l.Address.Port() != 0:
		return planned{}, fmt.Errorf("l4: listen on %s: named twice", l.Address)
	}
	named[l.Address] = true
	var p planned
	var before *settings
	for _, b := range s.bindings {
		if free[b] && (b.real == l.Address || b.asked == l.Address) {
			delete(free, b)
			p.binding, before = b, b.settings.Load()
			break
		}
	}
	var err error
	if p.set, err = settle(l, before, s.metrics); err != nil {
		return planned{}, err
	}
	if p.binding == nil {
		if p.binding, err = bind(p.set, len(s.shards)); err != nil {
			return planned{}, fmt.Errorf("l4: %w", err)
		}
		p.fresh = true
	}
	return p, nil
}

// Commit puts the change into effect: kept sockets get their new settings at
// once, the times of connections that are open too; new ones are accepted on;
// removed ones are closed, and their connections end by themselves.
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
	kept := make(map[*binding]bool, len(c.next))
	old := s.bindings
	s.bindings = make([]*binding, 0, len(c.next))
	for _, p := range c.next {
		if p.set.Limits.ServiceConnections > 0 {
			s.services.on.Store(true)
		}
		p.binding.settings.Store(p.set)
		kept[p.binding] = true
		s.bindings = append(s.bindings, p.binding)
		switch {
		case !p.fresh:
			p.binding.retune(p.set)
		case s.state == stateRunning:
			s.startListening(p.binding)
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
		sh.Do(sh.lookAtAll)
	}
}

// Discard closes what Prepare opened.
func (c *Change) Discard() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if c.done {
		return
	}
	c.done, c.server.pending = true, false
	c.closeFresh()
}

// closeFresh closes the new sockets.
func (c *Change) closeFresh() {
	for _, p := range c.next {
		if p.fresh {
			p.binding.close()
		}
	}
}
