package l7

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// A client may break off this many requests of HTTP/3 more than it lets end within calm3, as of HTTP/2.
	spareResets3 = 100
	calm3        = 10 * time.Second
	// spareBytes3 is how much may come over a connection within calm3 that no request is made of.
	spareBytes3 = 8 << 20
)

// A tally3 counts the requests of a connection that came to nothing: each has cost us, and a backend, far more than the
// client. The zero value has counted none.
type tally3 struct {
	mu     sync.Mutex // guards the rest
	vain   int        // less those that ended
	calmed time.Time  // when they were last let off
	over   bool
}

// add counts a request, and reports, once, that there have been too many that came to nothing.
func (t *tally3) add(vain bool, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !vain {
		t.vain = max(t.vain-1, 0)
		return false
	}
	if t.calmed.IsZero() {
		t.calmed = now
	}
	if t.vain++; t.vain <= spareResets3 || t.over {
		return false
	}
	if now.Sub(t.calmed) > calm3 {
		t.calmed, t.vain = now, 0
		return false
	}
	t.over = true
	return true
}

// A scale3 weighs what comes over a connection against what it is made of. Whatever else can be sent, be it frames of unknown kinds
// on any stream, or packets without a purpose, costs us time that no limit of requests counts, and package http3 reads it all without
// asking us. The zero value has weighed nothing.
type scale3 struct {
	useful atomic.Int64 // bytes of heads and bodies

	// Of weigh alone: what there was when the time began that is looked at.
	began    time.Time
	received int64
	due      int64
}

// take counts bytes of a request.
func (s *scale3) take(n int) { s.useful.Add(int64(n)) }

// weigh reports whether too much came for nothing. What requests are made of may have come twice, and what was sent
// is acknowledged: a few bytes for every packet, more where packets are lost. It is called by one goroutine at a time.
func (s *scale3) weigh(stats quic.ConnectionStats, now time.Time) bool {
	received := int64(stats.BytesReceived)
	due := 2*s.useful.Load() + int64(stats.BytesSent)/4
	if s.began.IsZero() || now.Sub(s.began) > calm3 {
		// What is due beyond what has come is forgotten too: it would pay for a flood.
		s.began, s.received, s.due = now, received, due
		return false
	}
	return received-s.received-(due-s.due) > spareBytes3
}
