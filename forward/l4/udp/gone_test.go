package udp

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// publishOut is publish with a backend that is down.
func (f *fakePools) publishOut(out netip.AddrPort, members ...netip.AddrPort) {
	f.publishWith(forward.Member{Address: out, Weight: 1}, members...)
}

// publishWith is publish with a backend in a state of its own.
func (f *fakePools) publishWith(out forward.Member, members ...netip.AddrPort) {
	f.publish(members...)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pools[0].Members = append(f.pools[0].Members, out)
}

// A mutable backend answers with a word and what it was asked, until it is mute.
type mutable struct {
	address netip.AddrPort
	mute    atomic.Bool
	heard   atomic.Int64
}

func mutableBackend(t *testing.T, word string) *mutable {
	t.Helper()
	m := new(mutable)
	m.address, _ = answering(t, nil, func(data []byte, _ netip.AddrPort) [][]byte {
		m.heard.Add(1)
		if m.mute.Load() {
			return nil
		}
		return [][]byte{append([]byte(word), data...)}
	})
	return m
}

// sendUntil sends a datagram again and again, until one is answered.
func sendUntil(t *testing.T, c *net.UDPConn, data string) string {
	t.Helper()
	buf := make([]byte, 100)
	for range 2000 {
		if _, err := c.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		if n, err := c.Read(buf); err == nil {
			return string(buf[:n])
		}
	}
	t.Fatal("never answered")
	return ""
}

// expire has every shard look at its sessions now, and waits for that.
func (f *fixture) expire() {
	for _, sh := range f.shards {
		done := make(chan struct{})
		sh.Do(func() { sh.expire(); close(done) })
		<-done
	}
}

// TestGone: what becomes of a session whose backend gets nothing new any more, by policy and by whether it answers.
func TestGone(t *testing.T) {
	const soon, never = time.Nanosecond, time.Hour
	for _, tt := range []struct {
		name    string
		policy  Gone
		after   time.Duration
		mute    bool
		alone   bool   // nobody else is left
		want    string // who answers then; "" = nobody, and the session is the same
		drained bool
	}{
		{"silent, mute", GoneSilent, soon, true, false, "b:", false},
		{"silent, mute, not yet", GoneSilent, never, true, false, "", false},
		{"silent, answers", GoneSilent, soon, false, false, "a:", false},
		{"silent, mute, nobody else", GoneSilent, soon, true, true, "", false},
		{"keep, mute", GoneKeep, soon, true, false, "", false},
		{"keep, answers", GoneKeep, soon, false, false, "a:", false},
		{"drain, answers", GoneDrain, soon, false, false, "b:", false},
		{"drain, answers, not yet", GoneDrain, never, false, false, "a:", false},
		{"abort, answers", GoneAbort, never, false, false, "b:", false},
		{"silent, drained, answers", GoneSilent, soon, false, false, "a:", true},
		{"silent, drained, mute", GoneSilent, soon, true, false, "b:", true},
		{"drain, drained, answers", GoneDrain, soon, false, false, "b:", true},
		{"abort, drained, answers", GoneAbort, soon, false, false, "a:", true},
		{"abort, drained, mute", GoneAbort, soon, true, false, "b:", true},
		{"abort, drained, mute, not yet", GoneAbort, never, true, false, "", true},
		{"keep, drained, mute", GoneKeep, soon, true, false, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := mutableBackend(t, "a:")
			f := start(t, Listener{Responses: AnyResponses, BackendGone: tt.policy, GoneAfter: tt.after}, a.address)
			c := dial(t, f.addr)
			ask(t, c, "x")
			out, others := forward.Member{Address: a.address, Weight: 1, Drained: tt.drained}, []netip.AddrPort(nil)
			if !tt.alone {
				others = append(others, backend(t, "b:", 1))
			}
			f.pools.publishWith(out, others...)
			a.mute.Store(tt.mute)
			f.expire()
			f.expire() // the end of a drain may be later than the first look
			if tt.want == "" {
				for range 50 {
					c.Write([]byte("x"))
				}
				until(t, "the session goes on", func() bool { return a.heard.Load() == 51 })
				if s := f.Stats(); s.Sessions != 1 || s.Active != 1 || s.Gone != 0 || s.NoBackend != 0 {
					t.Errorf("got %+v", s)
				}
				return
			}
			if got := sendUntil(t, c, "x"); got != tt.want+"x" {
				t.Errorf("got %q, want %q", got, tt.want+"x")
			}
			gone := uint64(0)
			if tt.want == "b:" {
				gone = 1
			}
			if s := f.Stats(); s.Gone != gone || s.Sessions != 1+gone || s.Active != 1 {
				t.Errorf("got %+v, want %d to have gone", s, gone)
			}
			f.stop()
			for _, s := range f.registry.Snapshot() {
				if s.InFlight != 0 {
					t.Errorf("left: %+v", s)
				}
			}
		})
	}
}

// TestGoneByItself: sessions end without a datagram of their clients.
func TestGoneByItself(t *testing.T) {
	a := mutableBackend(t, "a:")
	f := start(t, Listener{Responses: AnyResponses, BackendGone: GoneAbort}, a.address)
	ask(t, dial(t, f.addr), "x")
	f.pools.publish(backend(t, "b:", 1)) // a is not even configured
	until(t, "the session ends", func() bool { s := f.Stats(); return s.Active == 0 && s.Gone == 1 })
}

// TestGoneGathered: datagrams of a session that were taken together with the one by which it moves are neither lost nor sent twice.
func TestGoneGathered(t *testing.T) {
	a, b := mutableBackend(t, "a:"), mutableBackend(t, "b:")
	f := start(t, Listener{Responses: AnyResponses, GoneAfter: time.Nanosecond}, a.address)
	a.mute.Store(true)
	c := dial(t, f.addr)
	c.Write([]byte("x"))
	until(t, "the session is there", func() bool { return a.heard.Load() == 1 })
	f.pools.publishOut(a.address, b.address)
	f.registry.Load()
	const n = 200
	for range n {
		c.Write([]byte("x"))
	}
	until(t, "all have arrived", func() bool { return a.heard.Load()+b.heard.Load() == n+1 })
	if s := f.Stats(); s.Gone != 1 || s.Active != 1 || s.Lost != 0 || b.heard.Load() == 0 {
		t.Errorf("got %+v, a has %d, b has %d", s, a.heard.Load(), b.heard.Load())
	}
}

// TestQUICElsewhere: packets whose connection ID names a server that cannot be had, or is down, go to another one, all of a client's as
// one session, so that its answers come back (a stateless reset, say). One that merely drains is led to: the connection
// is there already, and the client only has another address.
func TestQUICElsewhere(t *testing.T) {
	packet := append([]byte{0x40, 9, 1}, make([]byte, 20)...) // a short header, of server 1
	const unset, drained, down, resting = 0, 1, 2, 3
	for _, tt := range []struct {
		name   string
		policy Gone
		after  time.Duration
		state  int // of server 1
		want   byte
	}{
		{"not of this site", GoneSilent, 0, unset, 'b'},
		{"drained", GoneSilent, 0, drained, 'a'},
		{"drained, drain", GoneDrain, 0, drained, 'a'},
		{"drained, drain is over", GoneDrain, time.Nanosecond, drained, 'b'},
		{"drained, keep", GoneKeep, 0, drained, 'a'},
		{"drained, abort", GoneAbort, 0, drained, 'a'},
		{"down", GoneSilent, 0, down, 'b'},
		{"down, drain", GoneDrain, 0, down, 'b'},
		{"down, keep", GoneKeep, 0, down, 'a'},
		{"down, abort", GoneAbort, 0, down, 'b'},
		{"asks for nothing, abort", GoneAbort, 0, resting, 'a'},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := backend(t, "a", 1), backend(t, "b", 1)
			q := &QUIC{Length: 8, Servers: map[string]netip.AddrPort{"\x01": a, "\x02": b}}
			f := start(t, Listener{Responses: AnyResponses, QUIC: q, BackendGone: tt.policy, GoneAfter: tt.after}, b)
			if tt.state != unset {
				f.pools.publishWith(forward.Member{Address: a, Weight: 1, Active: tt.state == resting, Resting: tt.state == resting, Drained: tt.state == drained}, b)
			}
			c := dial(t, f.addr)
			for range 20 {
				if got := ask(t, c, string(packet)); got[0] != tt.want {
					t.Fatalf("%c answers, want %c", got[0], tt.want)
				}
			}
			if s := f.Stats(); s.Sessions != 1 || s.Active != 1 {
				t.Errorf("got %+v, want one session", s)
			}
		})
	}
}

// TestLaneGone: a session that the kernel carries is given back when its backend gets nothing new any more, goes on while that
// answers, and leaves it when it is mute.
func TestLaneGone(t *testing.T) {
	if !alone(t) {
		return
	}
	a := mutableBackend(t, "a:")
	f := start(t, Listener{Responses: AnyResponses, Offload: true, Idle: time.Hour, GoneAfter: time.Nanosecond}, a.address)
	need(t, f)
	c := dial(t, f.addr)
	until(t, "the kernel carries it", func() bool { ask(t, c, "x"); return f.Stats().Lane.Asked > 0 })
	f.pools.publishOut(a.address, backend(t, "b:", 1))
	until(t, "its socket has it", func() bool { return f.Stats().Lane.Active == 0 })
	for range 10 {
		if got := ask(t, c, "y"); got != "a:y" {
			t.Fatalf("got %q", got)
		}
	}
	if s := f.Stats(); s.Gone != 0 || s.Sessions != 1 {
		t.Errorf("while it answers: got %+v", s)
	}
	a.mute.Store(true)
	if got := sendUntil(t, c, "z"); got != "b:z" {
		t.Errorf("got %q", got)
	}
	if s := f.Stats(); s.Gone != 1 || s.Active != 1 {
		t.Errorf("got %+v", s)
	}
}
