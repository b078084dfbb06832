package forward

import (
	"net"
	"testing"
	"time"
)

// TestPruneHoldsNobodyUp: while one idle connection is looked at, which may take a moment, others are borrowed and given back.
func TestPruneHoldsNobodyUp(t *testing.T) {
	var s idleStack
	s.init(2, 10)
	via := &Via{}
	var all []*Stream
	for range 6 {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		stream := NewStream(a)
		all = append(all, stream)
		s.put(idleConn{stream: stream, via: via}, uint32(len(all)))
	}
	looked := make(map[*Stream]int)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.prune(func(x *Stream) bool {
			if looked[x]++; len(looked) == 1 {
				for shard := range uint32(2) {
					if got := s.get(shard, via, nil); got == nil || got == x {
						t.Errorf("shard %d: nothing to borrow, or what is looked at", shard)
					} else {
						s.put(idleConn{stream: got, via: via}, shard)
					}
				}
			}
			return x == all[0] || x == all[3]
		})
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody can borrow one while another is looked at")
	}
	if len(looked) != len(all) {
		t.Errorf("looked at %d of %d", len(looked), len(all))
	}
	left := make(map[*Stream]bool)
	for n := s.len(); n > 0; n-- {
		left[s.get(0, via, nil)] = true
	}
	if len(left) != 4 || left[all[0]] || left[all[3]] || left[nil] || s.len() != 0 {
		t.Errorf("%d are left, want the four that live", len(left))
	}
}
