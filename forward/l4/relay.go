package l4

import (
	"context"
	"errors"

	"github.com/pharos-lb/pharos/forward"
)

// serve forwards one connection.
func (s *Server) serve(ctx context.Context, c *forward.Conn[Listener]) {
	set := c.Settings()
	lease, err := s.registry.Load().Borrow(ctx, set.Service, forward.Terms{Connect: set.Connect})
	if err != nil {
		c.Stream.Abort()
		s.metrics.unserved(err)
		return
	}
	defer lease.Release(false)
	lease.Backend.Tell(true) // it has accepted; how the connection ends may be anybody's doing
	c.Hold(lease.Stream)
	tunnel := forward.Tunnel{Client: c.Stream, Backend: lease.Stream, Idle: set.Idle}
	err = tunnel.Run()
	s.metrics.served(&tunnel, err)
	switch {
	case err == nil:
		lease.Backend.Report(forward.OutcomeServed)
		return
	case ctx.Err() != nil: // we have cut it
		lease.Backend.Report(forward.OutcomeClient)
	case errors.Is(err, forward.ErrIdle):
		lease.Backend.Report(forward.OutcomeTimeout)
	case tunnel.Broken == lease.Stream:
		lease.Backend.Report(forward.OutcomeReset)
	default:
		lease.Backend.Report(forward.OutcomeClient)
	}
	// What was broken on one side must look broken on the other.
	c.Stream.Abort()
	lease.Stream.Abort()
}
