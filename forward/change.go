package forward

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrChangePending is returned by Prepare while an earlier Change is neither
// committed nor discarded.
var ErrChangePending = errors.New("a change of listeners is already prepared")

// A Change is a new set of listeners for a Front, with everything that can fail
// already done. Either Commit or Discard is called, once; later calls do
// nothing.
type Change[S any] struct {
	front *Front[S]
	next  []planned[S]
	done  bool
}

type planned[S any] struct {
	socket   *socket[S]
	settings S
	fresh    bool
}

// Prepare binds the addresses that are not bound yet. An address that is bound
// already, by its asked or its real port, keeps its socket. On any error
// nothing is left bound that was not before.
func (f *Front[S]) Prepare(listeners []Listen[S]) (*Change[S], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.phase == phaseEnded:
		return nil, errors.New("prepare listeners: already stopped")
	case f.pending:
		return nil, ErrChangePending
	}
	free := make(map[*socket[S]]bool, len(f.sockets))
	for _, s := range f.sockets {
		free[s] = true
	}
	c := &Change[S]{front: f}
	named := make(map[netip.AddrPort]bool, len(listeners))
	var errs []error
	for _, l := range listeners {
		switch {
		case !l.Address.IsValid():
			errs = append(errs, errors.New("listen: address is missing"))
			continue
		case named[l.Address] && l.Address.Port() != 0:
			errs = append(errs, fmt.Errorf("listen on %s: named twice", l.Address))
			continue
		}
		named[l.Address] = true
		p := planned[S]{settings: l.Settings, socket: f.bound(l.Address, free)}
		if p.socket == nil {
			s, err := bind[S](l.Address)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			p.socket, p.fresh = s, true
		}
		c.next = append(c.next, p)
	}
	if len(errs) > 0 {
		c.closeFresh()
		return nil, errors.Join(errs...)
	}
	f.pending = true
	return c, nil
}

// bound takes the socket for address out of free, nil if there is none.
func (f *Front[S]) bound(address netip.AddrPort, free map[*socket[S]]bool) *socket[S] {
	for _, s := range f.sockets {
		if free[s] && (s.addr() == address || s.asked == address) {
			delete(free, s)
			return s
		}
	}
	return nil
}

// Commit puts the change into effect: kept sockets get their new settings at
// once, for connections that are open too; new ones are accepted on; removed
// ones are closed, and their connections end by themselves.
func (c *Change[S]) Commit() {
	f := c.front
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.done {
		return
	}
	c.done, f.pending = true, false
	if f.phase == phaseEnded {
		c.closeFresh()
		return
	}
	kept := make(map[*socket[S]]bool, len(c.next))
	old := f.sockets
	f.sockets = make([]*socket[S], 0, len(c.next))
	for i := range c.next {
		p := &c.next[i]
		p.socket.settings.Store(&p.settings)
		kept[p.socket] = true
		f.sockets = append(f.sockets, p.socket)
		if p.fresh && f.phase == phaseRunning {
			f.startLocked(p.socket)
		}
	}
	for _, s := range old {
		if kept[s] {
			continue
		}
		s.stop()
		if f.phase == phaseNew {
			_ = s.listener.Close()
		}
	}
	for conn := range f.conns {
		if conn.socket.removed.Load() {
			conn.wake()
		}
	}
}

// Discard closes what Prepare opened.
func (c *Change[S]) Discard() {
	c.front.mu.Lock()
	defer c.front.mu.Unlock()
	if c.done {
		return
	}
	c.done, c.front.pending = true, false
	c.closeFresh()
}

// closeFresh closes the new sockets.
func (c *Change[S]) closeFresh() {
	for _, p := range c.next {
		if p.fresh {
			_ = p.socket.listener.Close()
		}
	}
}
