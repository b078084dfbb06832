package l7

import (
	"context"
	"errors"

	"github.com/pharos-lb/pharos/forward"
)

// tunnel passes a 101 on and then everything, both ways, until both sides have
// ended.
func (s *session) tunnel(ctx context.Context, w *work) {
	m := s.server.metrics
	m.answered(w.res.status)
	m.upgrades.Add(1)
	w.lease.Backend.Tell(true) // it has answered; how the tunnel ends may be anybody's doing
	up := w.lease.Stream
	defer w.lease.Release(false)
	w.out = appendResponse(w.out[:0], &w.res, w.req.minor, false, -1, true)
	w.back.R += w.scan.next
	w.out = append(w.out, w.back.Unread()...)
	early := s.in.Unread() // sent before the answer was seen
	up.WriteWithin(s.server.opts.ResponseTimeout)
	if len(early) > 0 {
		if _, err := up.Write(early); err != nil {
			w.lease.Backend.Report(forward.OutcomeReset)
			return
		}
	}
	if s.writeClient(w, w.out) != troubleNone {
		w.lease.Backend.Report(forward.OutcomeClient)
		return
	}
	// The tunnel may last for days: it needs none of this space.
	w.back.Free()
	s.in.Free()
	w.back, s.in = nil, nil

	t := forward.Tunnel{Client: s.client, Backend: up, Idle: s.server.opts.TunnelIdle}
	err := t.Run()
	switch {
	case err == nil:
		w.lease.Backend.Report(forward.OutcomeServed)
		return
	case ctx.Err() != nil: // we have cut it
		w.lease.Backend.Report(forward.OutcomeClient)
	case errors.Is(err, forward.ErrIdle):
		w.lease.Backend.Report(forward.OutcomeTimeout)
	case t.Broken == up:
		w.lease.Backend.Report(forward.OutcomeReset)
	default:
		w.lease.Backend.Report(forward.OutcomeClient)
	}
	s.client.Abort()
	up.Abort()
}
