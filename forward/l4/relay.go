package l4

import (
	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/sys/unix"
)

const (
	// A flow that fills this many buffers in a row is bulky and is spliced.
	bulkyAfter = 2
	// turn is how many reads or splices one direction has before others get their turn.
	turn = 8
)

// relay moves what can be moved, both ways.
func (s *shard) relay(f *flow) {
	if f.suspect && f.client.readable && !s.clear(f) {
		return
	}
	more := s.move(f, &f.client, &f.server, false)
	if f.phase != phaseRelaying || f.server.fd < 0 {
		return // ended
	}
	if s.move(f, &f.server, &f.client, true) {
		more = true
	}
	if f.server.fd < 0 {
		return
	}
	if f.client.eof && f.server.eof && f.client.empty() && f.server.empty() {
		s.finish(f)
		return
	}
	if more {
		s.again(f)
	}
}

// move carries bytes from src to dst until one of them has to be waited for, or
// its turn is over: then it reports true. On a failure it ends the flow.
func (s *shard) move(f *flow, src, dst *end, down bool) bool {
	for i := range turn {
		if !dst.empty() {
			if !dst.writable {
				if i == 0 {
					s.mute(f, src, down)
				}
				return false
			}
			if !s.flush(f, dst, !down) {
				return false
			}
			continue
		}
		if src.muted {
			s.unmute(f, src, down)
		}
		if src.eof {
			s.passEnd(dst)
			return false
		}
		if !src.readable {
			s.giveBack(dst)
			return false
		}
		if src.full >= bulkyAfter && s.pipes.lend(dst) {
			if !s.fill(f, src, dst, down) {
				return false
			}
			continue
		}
		if !s.copyOnce(f, src, dst, down) {
			return false
		}
	}
	return true
}

// mute has epoll say no more that src has something to read, which is known and cannot be moved
// yet: each segment that comes would wake the shard for nothing. Its end, a reset, and room
// to write are still told.
func (s *shard) mute(f *flow, src *end, server bool) {
	if src.readable && !src.hup && !src.muted {
		src.muted = s.Rename(src.fd, edges&^unix.EPOLLIN, f.token(server)) == 0
	}
}

// unmute ends mute, before src is read again: what comes after that read is an event.
func (s *shard) unmute(f *flow, src *end, server bool) {
	src.muted = false
	if errno := s.Rename(src.fd, edges, f.token(server)); errno != 0 {
		s.server.log.Error("a connection cannot be watched", "error", errno)
	}
}

// passEnd passes the end of the other connection on to dst. If dst has ended as well both are
// about to be closed, which says the same.
func (s *shard) passEnd(dst *end) {
	s.giveBack(dst)
	if !dst.shut {
		dst.shut = true
		if !dst.eof {
			shutdownWrite(dst.fd)
		}
	}
}

// copyOnce reads a buffer and writes it; what there is no room for is kept. It
// reports whether the flow still is and there may be more to do.
func (s *shard) copyOnce(f *flow, src, dst *end, down bool) bool {
	n, errno := read(src.fd, s.buffer)
	switch {
	case errno == unix.EAGAIN:
		src.readable = false
		return true
	case errno == unix.EINTR:
		return true
	case errno != 0:
		s.broken(f, down, errno)
		return false
	case n == 0:
		src.eof, src.readable = true, false
		return true
	case n < len(s.buffer):
		src.readable = src.hup // all that there was; the end has to be read too
		src.full = 0
	default:
		src.full++
	}
	f.moved(s, n, down)
	return s.write(f, dst, s.buffer[:n], !down)
}

// moved counts bytes.
func (f *flow) moved(s *shard, n int, down bool) {
	f.last = s.now
	if down {
		f.down += uint64(n)
	} else {
		f.up += uint64(n)
	}
}

// write writes b to an end that has nothing waiting, and keeps what there is no
// room for. It reports whether the flow still is.
func (s *shard) write(f *flow, dst *end, b []byte, server bool) bool {
	n := 0
	if dst.writable {
		sent, errno := s.send(dst, b, server)
		switch {
		case errno == unix.EAGAIN:
			dst.writable = false
		case errno == unix.EINTR:
		case errno != 0:
			s.broken(f, server, errno)
			return false
		default:
			n = sent
			if n < len(b) {
				dst.writable = false
			}
		}
	}
	if n < len(b) {
		c := s.chunk()
		c.start, c.end = 0, copy(c.data[:], b[n:])
		dst.out = c
	}
	return true
}

// send writes b to an end. To a backend the first segment goes out at once in any
// case; from the second on Nagle's algorithm has to be kept from waiting.
// Clients' connections have that from their listening socket.
func (s *shard) send(dst *end, b []byte, server bool) (int, unix.Errno) {
	if server && !dst.nodelay {
		if dst.wrote {
			dst.nodelay = true
			setOption(dst.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		}
		dst.wrote = true
	}
	return send(dst.fd, b)
}

// flush writes what waits for dst. It reports whether all of it went and the
// flow still is.
func (s *shard) flush(f *flow, dst *end, server bool) bool {
	if dst.pipe != nil {
		return s.drainPipe(f, dst, server)
	}
	c := dst.out
	n, errno := s.send(dst, c.data[c.start:c.end], server)
	switch {
	case errno == unix.EAGAIN:
		dst.writable = false
		return false
	case errno == unix.EINTR:
		return true
	case errno != 0:
		s.broken(f, server, errno)
		return false
	}
	c.start += n
	f.last = s.now
	if c.start < c.end {
		dst.writable = false
		return false
	}
	dst.out = nil
	s.keep(c)
	return true
}

// chunk returns a buffer.
func (s *shard) chunk() *chunk {
	if n := len(s.chunks); n > 0 {
		c := s.chunks[n-1]
		s.chunks = s.chunks[:n-1]
		return c
	}
	return new(chunk)
}

func (s *shard) keep(c *chunk) {
	if len(s.chunks) < keptChunks {
		s.chunks = append(s.chunks, c)
	}
}

// fill splices from src into the pipe of dst and on. It reports whether the flow
// still is and there may be more to do.
func (s *shard) fill(f *flow, src, dst *end, down bool) bool {
	n, errno := splice(src.fd, dst.pipe.write, dst.pipe.size)
	switch {
	case errno == unix.EAGAIN: // the pipe is empty, so it is src that has nothing
		src.readable = false
		src.full = 0
		return true
	case errno == unix.EINTR:
		return true
	case errno != 0:
		s.broken(f, down, errno)
		return false
	case n == 0:
		src.eof, src.readable = true, false
		return true
	}
	dst.pipe.held = n
	f.moved(s, n, down)
	return true
}

// drainPipe splices what the pipe of dst holds to dst.
func (s *shard) drainPipe(f *flow, dst *end, server bool) bool {
	n, errno := splice(dst.pipe.read, dst.fd, dst.pipe.held)
	switch {
	case errno == unix.EAGAIN:
		dst.writable = false
		return false
	case errno == unix.EINTR:
		return true
	case errno != 0:
		s.broken(f, server, errno)
		return false
	}
	dst.pipe.held -= n
	f.last = s.now
	return true
}

// giveBack returns the pipe of an end that needs it no more.
func (s *shard) giveBack(e *end) {
	if e.pipe != nil {
		s.pipes.put(e.pipe)
		e.pipe = nil
	}
}

// finish ends a flow of which both directions have ended in order.
func (s *shard) finish(f *flow) {
	f.backend.Report(forward.OutcomeServed)
	closeFD(f.client.fd)
	closeFD(f.server.fd)
	s.forget(f)
}

// broken ends a flow of which one end has failed: the other has to see that it
// is not the whole.
func (s *shard) broken(f *flow, server bool, errno unix.Errno) {
	outcome, why := forward.OutcomeClient, dropClientLost
	if server {
		outcome, why = forward.OutcomeReset, dropBackendLost
	}
	switch errno { // of a reset the other end is told; that an end has vanished only we know
	case unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN:
		s.server.metrics.drop(why)
		if server {
			outcome = forward.OutcomeTimeout
		}
	}
	f.backend.Report(outcome)
	s.cutBoth(f)
}

// cutBoth resets both connections and forgets the flow.
func (s *shard) cutBoth(f *flow) {
	reset(f.client.fd)
	if f.server.fd >= 0 {
		reset(f.server.fd)
	}
	s.forget(f)
}

// abandon ends a flow for a reason of ours, and counts it.
func (s *shard) abandon(f *flow, why drop) {
	s.server.metrics.drop(why)
	if f.backend != nil {
		if f.phase == phaseRelaying {
			f.backend.Report(why.outcome())
		}
	}
	s.cutBoth(f)
}

// forget lets go of everything that a flow has, after its connections are closed.
func (s *shard) forget(f *flow) {
	m := s.server.metrics
	if f.cancel != nil {
		f.cancel()
	}
	if f.backend != nil {
		f.backend.Done()
	}
	if f.counted {
		s.server.services.leave(f.service())
	}
	if f.source.IsValid() {
		f.set.clients.Leave(f.source)
	}
	f.binding.active.Add(-1)
	m.active.Add(-1)
	m.up.Add(f.up)
	m.down.Add(f.down)
	for _, e := range []*end{&f.client, &f.server} {
		e.fd = -1
		if e.out != nil {
			s.keep(e.out)
			e.out = nil
		}
		if e.pipe != nil {
			s.pipes.put(e.pipe)
			e.pipe = nil
		}
	}
	if f.index >= 0 {
		s.timers.remove(f)
	}
	s.rounds[f.slot]++
	s.flows[f.slot] = nil
	s.freeSlots = append(s.freeSlots, f.slot)
	if len(s.spare) < keptFlows {
		*f = flow{index: -1, client: end{fd: -1}, server: end{fd: -1}}
		s.spare = append(s.spare, f)
	}
}
