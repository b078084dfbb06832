package forward

import (
	"sync"
	"sync/atomic"
	"time"
)

// An idleStack keeps connections between two uses, newest on top, in shards so
// that cores do not meet at one lock.
type idleStack struct {
	limit   int64
	count   atomic.Int64
	dropped atomic.Uint64
	shards  []idleShard
}

type idleShard struct {
	mu    sync.Mutex // guards conns
	conns []idleConn
	_     [40]byte // one cache line each
}

type idleConn struct {
	stream *Stream
	since  time.Time
}

func (s *idleStack) init(shards, limit int) {
	s.limit = int64(limit)
	s.shards = make([]idleShard, shards)
}

func (s *idleStack) len() int { return int(s.count.Load()) }

// put keeps stream, or closes it when the limit is reached.
func (s *idleStack) put(stream *Stream, shard uint32) {
	if s.count.Add(1) > s.limit {
		s.count.Add(-1)
		s.dropped.Add(1)
		_ = stream.Close()
		return
	}
	stream.ForgetDeadlines()
	sh := &s.shards[int(shard)%len(s.shards)]
	sh.mu.Lock()
	sh.conns = append(sh.conns, idleConn{stream: stream, since: time.Now()})
	sh.mu.Unlock()
}

// get takes the most recently used connection of the shard, else of another,
// else returns nil.
func (s *idleStack) get(shard uint32) *Stream {
	if s.count.Load() == 0 {
		return nil
	}
	for k := range s.shards {
		sh := &s.shards[(int(shard)+k)%len(s.shards)]
		sh.mu.Lock()
		if n := len(sh.conns); n > 0 {
			c := sh.conns[n-1]
			sh.conns[n-1] = idleConn{}
			sh.conns = sh.conns[:n-1]
			sh.mu.Unlock()
			s.count.Add(-1)
			return c.stream
		}
		sh.mu.Unlock()
	}
	return nil
}

// closeBefore closes the connections that have been idle since before limit.
func (s *idleStack) closeBefore(limit time.Time) {
	s.closeIf(func(c idleConn) bool { return c.since.Before(limit) })
}

func (s *idleStack) closeAll() {
	if s.count.Load() == 0 {
		return
	}
	s.closeIf(func(idleConn) bool { return true })
}

func (s *idleStack) closeIf(old func(idleConn) bool) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n := 0 // the oldest are at the bottom
		for n < len(sh.conns) && old(sh.conns[n]) {
			n++
		}
		var gone []idleConn
		if n > 0 {
			gone = append(gone, sh.conns[:n]...)
			kept := copy(sh.conns, sh.conns[n:])
			clear(sh.conns[kept:])
			sh.conns = sh.conns[:kept]
		}
		sh.mu.Unlock()
		s.count.Add(int64(-n))
		for _, c := range gone {
			_ = c.stream.Close()
		}
	}
}
