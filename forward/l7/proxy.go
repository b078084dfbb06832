package l7

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/proxyproto"
)

// readProxy reads the PROXY header that a connection has to begin with; false if it does
// not, which ends it: what is behind could be anybody's.
func (s *Server) readProxy(c *forward.Conn[settings]) bool {
	c.Stream.ReadUntil(time.Now().Add(c.Settings().times.Header))
	var space [proxyproto.MaxBinary]byte
	have := 0
	for {
		n, err := c.Stream.Peek(space[have:])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				s.metrics.shed[shedProxyTime].Add(1)
			}
			return false
		}
		header, length, err := proxyproto.Parse(space[:have+n])
		take := length - have
		if errors.Is(err, proxyproto.ErrIncomplete) && have+n < len(space) {
			take = n // all of it belongs to the header
		} else if err != nil {
			s.metrics.shed[shedProxyBad].Add(1)
			c.Stream.Abort()
			return false
		}
		if _, readErr := io.ReadFull(c.Stream, space[have:have+take]); readErr != nil {
			return false
		}
		if have += take; err != nil {
			continue
		}
		if !header.Local {
			c.Source, c.Destination = header.Source, header.Destination
		}
		c.Stream.ForgetDeadlines()
		return true
	}
}
