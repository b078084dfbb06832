package forward

import (
	"slices"
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
	via    *Via    // what it was made by
	client *Client // whom it speaks for; nil = for anybody
}

func (s *idleStack) init(shards, limit int) {
	s.limit = int64(limit)
	s.shards = make([]idleShard, shards)
}

func (s *idleStack) len() int { return int(s.count.Load()) }

// put keeps a connection, or closes it when the limit is reached.
func (s *idleStack) put(c idleConn, shard uint32) {
	if s.count.Add(1) > s.limit {
		s.count.Add(-1)
		s.dropped.Add(1)
		_ = c.stream.Close()
		return
	}
	c.stream.Recover()
	sh := &s.shards[int(shard)%len(s.shards)]
	sh.mu.Lock()
	sh.conns = append(sh.conns, c)
	sh.mu.Unlock()
}

// get takes the most recently used connection of the shard, else of another,
// that was made by via and speaks for client; nil without one.
func (s *idleStack) get(shard uint32, via *Via, client *Client) *Stream {
	if s.count.Load() == 0 {
		return nil
	}
	for k := range s.shards {
		sh := &s.shards[(int(shard)+k)%len(s.shards)]
		sh.mu.Lock()
		stream := sh.takeLocked(via, client)
		sh.mu.Unlock()
		if stream != nil {
			s.count.Add(-1)
			return stream
		}
	}
	return nil
}

// takeLocked looks from the top; nearly always the first is right.
func (sh *idleShard) takeLocked(via *Via, client *Client) *Stream {
	for i := len(sh.conns) - 1; i >= 0; i-- {
		if c := &sh.conns[i]; c.via == via && c.client == client {
			stream := c.stream
			copy(sh.conns[i:], sh.conns[i+1:])
			sh.conns[len(sh.conns)-1] = idleConn{}
			sh.conns = sh.conns[:len(sh.conns)-1]
			return stream
		}
	}
	return nil
}

func (s *idleStack) closeAll() {
	if s.count.Load() == 0 {
		return
	}
	s.closeIf(func(idleConn) bool { return true })
}

// closeIf closes those that old says yes to.
func (s *idleStack) closeIf(old func(idleConn) bool) {
	for i := range s.shards {
		sh := &s.shards[i]
		var gone []*Stream
		sh.mu.Lock()
		sh.conns = slices.DeleteFunc(sh.conns, func(c idleConn) bool {
			if !old(c) {
				return false
			}
			gone = append(gone, c.stream)
			return true
		})
		sh.mu.Unlock()
		s.count.Add(int64(-len(gone)))
		for _, stream := range gone {
			_ = stream.Close()
		}
	}
}

// prune closes those that dead says yes to. It takes its time: others use the rest, and the one that is looked at is nobody's.
func (s *idleStack) prune(dead func(*Stream) bool) {
	for i := range s.shards {
		sh := &s.shards[i]
		for k := 0; ; {
			sh.mu.Lock()
			if k >= len(sh.conns) {
				sh.mu.Unlock()
				break
			}
			c := sh.conns[k]
			sh.conns = slices.Delete(sh.conns, k, k+1)
			sh.mu.Unlock()
			if dead(c.stream) {
				s.count.Add(-1)
				_ = c.stream.Close()
				continue
			}
			sh.mu.Lock()
			sh.conns = slices.Insert(sh.conns, min(k, len(sh.conns)), c) // others come and go at the other end
			sh.mu.Unlock()
			k++
		}
	}
}
