package l4

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/proxyproto"
	"golang.org/x/sys/unix"
)

// accepting is a backend whose connections the test has in its hands.
func accepting(t *testing.T) (netip.AddrPort, chan *net.TCPConn) {
	t.Helper()
	conns := make(chan *net.TCPConn, 16)
	held := make(chan struct{})
	addr := backend(t, func(c *net.TCPConn) {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		conns <- c
		<-held
	})
	t.Cleanup(func() { close(held) }) // before backend waits for its handlers
	return addr, conns
}

// limited makes one member the pool of service "db", with a limit.
func (f *fakePools) limited(limit forward.Limit, member netip.AddrPort) {
	f.publish(member)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pools = []forward.ServicePool{{Service: "db", Members: f.pools[0].Members, Policy: forward.Policy{Limit: limit}}}
	f.version++
}

// inside looks at the only shard's flows, on its goroutine.
func (f *fixture) inside(look func(s *shard, flows []*flow)) {
	done := make(chan struct{})
	f.shards[0].Do(func() {
		defer close(done)
		var flows []*flow
		for _, x := range f.shards[0].flows {
			if x != nil {
				flows = append(flows, x)
			}
		}
		look(f.shards[0], flows)
	})
	<-done
}

// reaches waits until the newest flow is as state says.
func (f *fixture) reaches(t *testing.T, what string, state func(*flow) bool) {
	t.Helper()
	until(t, what, func() (ok bool) {
		f.inside(func(_ *shard, flows []*flow) {
			var newest *flow
			for _, x := range flows {
				if newest == nil || x.born > newest.born {
					newest = x
				}
			}
			ok = newest != nil && state(newest)
		})
		return ok
	})
}

// cutOff closes a connection with a reset.
func cutOff(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// wantCut fails unless a connection ends with a reset, after whatever was on its way. One whose reads do not tell, because
// they have ended before or a write was told, is closed by it all the same.
func wantCut(t *testing.T, who string, c *net.TCPConn, deaf bool) {
	t.Helper()
	n, err := io.Copy(io.Discard, c)
	switch {
	case deaf && err == nil:
		until(t, "the "+who+" is cut off", func() bool { return tcpState(t, c) == unix.BPF_TCP_CLOSE })
	case !errors.Is(err, syscall.ECONNRESET):
		t.Errorf("the %s got %d bytes and %v, want a reset", who, n, err)
	}
}

// tcpState is the kernel's state of a connection.
func tcpState(t *testing.T, c *net.TCPConn) (state uint8) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		info, e := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if e != nil {
			err = e
			return
		}
		state = info.State
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// A resetState is one in the life of a connection in which somebody resets it.
type resetState struct {
	name     string
	listener Listener
	limit    forward.Limit
	hangs    bool // the backend answers no SYN
	// reach brings a connection there; server is nil where there is none.
	reach func(t *testing.T, f *fixture, client *net.TCPConn, conns chan *net.TCPConn) (server *net.TCPConn)
	deaf  string // whose reads do not tell of a reset
	drop  drop   // what a reset by the client counts as; dropNone = as an outcome, and the backend may reset it, too
}

// relayed waits for the backend's connection, and sends it something.
func relayed(t *testing.T, f *fixture, client *net.TCPConn, conns chan *net.TCPConn) *net.TCPConn {
	t.Helper()
	client.Write([]byte("half a req"))
	server := <-conns
	readAll(t, server, "half a req")
	return server
}

// flooded has one side send more than the other reads, until the kernel splices it and is stuck.
func flooded(t *testing.T, f *fixture, from, to *net.TCPConn, into func(*flow) *end) {
	t.Helper()
	go func() {
		block := make([]byte, 1<<20)
		for range 256 {
			if _, err := from.Write(block); err != nil {
				return
			}
		}
	}()
	until(t, "spliced, and stuck", func() bool {
		spliced, copied := false, false
		f.inside(func(_ *shard, flows []*flow) {
			e := into(flows[0])
			spliced = e.pipe != nil && e.pipe.held > 0 && !e.writable
			copied = e.out != nil && !e.writable
		})
		if copied { // it was stuck before it was seen to be bulky
			io.CopyN(io.Discard, to, 1<<20)
		}
		return spliced
	})
}

func resetStates(t *testing.T) []resetState {
	none := func(*testing.T, *fixture, *net.TCPConn, chan *net.TCPConn) *net.TCPConn { return nil }
	says := func(b []byte, state func(*flow) bool) func(*testing.T, *fixture, *net.TCPConn, chan *net.TCPConn) *net.TCPConn {
		return func(t *testing.T, f *fixture, c *net.TCPConn, _ chan *net.TCPConn) *net.TCPConn {
			c.Write(b)
			f.reaches(t, "it is looked at", func(x *flow) bool { return x.phase == phaseGreeting && state(x) })
			return nil
		}
	}
	looked := func(x *flow) bool { return x.hello != nil }
	headed := func(x *flow) bool { return x.hello != nil && x.hello.headed }
	hello := clientHello(t, &tls.Config{ServerName: "a.example"})
	header := proxyproto.AppendBinary(nil, netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("198.51.100.80:443"), nil, true)
	routed := Listener{Routes: []Route{{SNI: "a.example", Service: "db"}}, Hello: time.Minute}
	proxied := Listener{Service: "db", AcceptProxy: loopback, Hello: time.Minute}
	both := routed
	both.AcceptProxy = loopback
	plain := Listener{Service: "db", Connect: time.Minute}
	return []resetState{
		{name: "before the hello", listener: routed, reach: none, drop: dropClientGone},
		{name: "in the hello", listener: routed, reach: says(hello[:50], looked), drop: dropHelloCut},
		{name: "before the PROXY header", listener: proxied, reach: none, drop: dropClientGone},
		{name: "in the PROXY header", listener: proxied, reach: says(header[:20], looked), drop: dropProxyCut},
		{name: "between PROXY header and hello", listener: both, reach: says(header, headed), drop: dropClientGone},
		{name: "in the hello behind a PROXY header", listener: both, reach: says(append(header[:len(header):len(header)], hello[:50]...), headed), drop: dropHelloCut},
		{
			name: "connecting", listener: plain, hangs: true, drop: dropClientGone,
			reach: func(t *testing.T, f *fixture, _ *net.TCPConn, _ chan *net.TCPConn) *net.TCPConn {
				f.reaches(t, "connecting", func(x *flow) bool { return x.phase == phaseConnecting })
				return nil
			},
		},
		{
			name: "connecting, with bytes unread", listener: plain, hangs: true, drop: dropClientGone,
			reach: func(t *testing.T, f *fixture, c *net.TCPConn, _ chan *net.TCPConn) *net.TCPConn {
				c.Write([]byte("early"))
				f.reaches(t, "connecting", func(x *flow) bool { return x.phase == phaseConnecting && x.client.readable })
				return nil
			},
		},
		{
			name: "queued", listener: plain, limit: forward.Limit{PerBackend: 1, Queue: 1, Wait: time.Minute}, drop: dropClientGone,
			reach: func(t *testing.T, f *fixture, _ *net.TCPConn, conns chan *net.TCPConn) *net.TCPConn {
				f.reaches(t, "queued", func(x *flow) bool { return x.phase == phaseQueued })
				return nil
			},
		},
		{
			name: "connected, and silent", listener: plain,
			reach: func(t *testing.T, f *fixture, _ *net.TCPConn, conns chan *net.TCPConn) *net.TCPConn {
				f.reaches(t, "relaying", func(x *flow) bool { return x.phase == phaseRelaying })
				return <-conns
			},
		},
		{
			name: "in what may be a PROXY header", listener: Listener{Service: "db", AcceptProxy: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
			reach: func(t *testing.T, f *fixture, c *net.TCPConn, conns chan *net.TCPConn) *net.TCPConn {
				c.Write([]byte("PRO"))
				f.reaches(t, "looked at", func(x *flow) bool { return x.phase == phaseRelaying && x.suspect })
				return <-conns
			},
		},
		{name: "in a request", listener: plain, reach: relayed},
		{
			name: "in an answer", listener: plain,
			reach: func(t *testing.T, f *fixture, c *net.TCPConn, conns chan *net.TCPConn) *net.TCPConn {
				server := relayed(t, f, c, conns)
				server.Write([]byte("half an ans"))
				readAll(t, c, "half an ans")
				return server
			},
		},
		{
			name: "in a spliced answer", listener: plain, deaf: "backend",
			reach: func(t *testing.T, f *fixture, c *net.TCPConn, conns chan *net.TCPConn) *net.TCPConn {
				server := relayed(t, f, c, conns)
				flooded(t, f, server, c, func(x *flow) *end { return &x.client })
				return server
			},
		},
		{
			name: "in a spliced upload", listener: plain, deaf: "client",
			reach: func(t *testing.T, f *fixture, c *net.TCPConn, conns chan *net.TCPConn) *net.TCPConn {
				server := relayed(t, f, c, conns)
				flooded(t, f, c, server, func(x *flow) *end { return &x.server })
				return server
			},
		},
		{
			name: "after the client's end", listener: plain, deaf: "backend",
			reach: func(t *testing.T, f *fixture, c *net.TCPConn, conns chan *net.TCPConn) *net.TCPConn {
				server := relayed(t, f, c, conns)
				c.CloseWrite()
				if n, err := io.Copy(io.Discard, server); n != 0 || err != nil {
					t.Fatalf("the backend got %d bytes and %v, want the end", n, err)
				}
				return server
			},
		},
		{
			name: "after the backend's end", listener: plain, deaf: "client",
			reach: func(t *testing.T, f *fixture, c *net.TCPConn, conns chan *net.TCPConn) *net.TCPConn {
				server := relayed(t, f, c, conns)
				server.CloseWrite()
				if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
					t.Fatalf("the client got %d bytes and %v, want the end", n, err)
				}
				return server
			},
		},
	}
}

// TestResets: whoever resets a connection, and in whatever state, the other side sees that it is not the whole, what
// is counted says why, and nothing is left of it.
func TestResets(t *testing.T) {
	for _, st := range resetStates(t) {
		for _, byBackend := range []bool{false, true} {
			if byBackend && st.drop != dropNone {
				continue // there is no backend yet
			}
			name := st.name + ", by the client"
			if byBackend {
				name = st.name + ", by the backend"
			}
			t.Run(name, func(t *testing.T) { testReset(t, &st, byBackend) })
		}
	}
}

func testReset(t *testing.T, st *resetState, byBackend bool) {
	addr, conns := accepting(t)
	if st.hangs {
		var release func()
		addr, release = hang(t)
		defer release()
	}
	f := start(t, Options{Shards: 1, Listeners: []Listener{st.listener}})
	f.pools.limited(st.limit, addr)
	var first *net.TCPConn // has all that the backend may
	if st.limit.PerBackend > 0 {
		first = dial(t, f.addr)
		defer (<-conns).Close()
	}
	kept := f.Stats().Active
	files := openFiles(t)
	outcome, side := forward.OutcomeClient, "backend"
	if byBackend {
		outcome, side = forward.OutcomeReset, "client"
	}
	for round := uint64(1); round <= 3; round++ {
		client := dial(t, f.addr)
		until(t, "accepted", func() bool { return f.Stats().Active == kept+1 })
		server := st.reach(t, f, client, conns)
		if byBackend {
			cutOff(server)
			wantCut(t, side, client, st.deaf == side)
			client.Close()
		} else {
			cutOff(client)
			if server != nil {
				wantCut(t, side, server, st.deaf == side)
				server.Close()
			}
		}
		until(t, "ended", func() bool {
			queues := f.registry.Queues() // who waited leaves the line a moment later
			return f.Stats().Active == kept && !slices.ContainsFunc(queues, func(q forward.Queue) bool { return q.Waiting > 0 })
		})
		counts := f.registry.Snapshot()[0].Outcomes
		for o, n := range counts {
			if want := map[bool]uint64{true: round}[st.drop == dropNone && o == int(outcome)]; n != want {
				t.Errorf("%d times %s, want %d", n, forward.Outcome(o), want)
			}
		}
		stats := f.Stats()
		for why, n := range stats.Dropped() {
			if want := map[bool]uint64{true: round}[why == st.drop.String()]; n != want {
				t.Errorf("%d times %s, want %d", n, why, want)
			}
		}
	}
	f.inside(func(s *shard, flows []*flow) {
		if len(flows) != int(kept) || len(s.timers) != int(kept) || s.pipes.lent != 0 {
			t.Errorf("%d flows, %d timers and %d pipes are left", len(flows), len(s.timers), s.pipes.lent)
		}
		files += 2 * len(s.pipes.free)
	})
	until(t, "descriptors are back", func() bool { return openFiles(t) <= files })
	if s := f.registry.Snapshot()[0]; s.InFlight != kept {
		t.Errorf("%d in flight, want %d", s.InFlight, kept)
	}
	if first != nil { // the line has been left, too
		next := dial(t, f.addr)
		cutOff(first)
		next.Write([]byte("next"))
		server := <-conns
		defer server.Close()
		readAll(t, server, "next")
	}
}

// TestBackendGoneWhileConnecting: the SYN of a backend that hung is answered by a reset at last.
func TestBackendGoneWhileConnecting(t *testing.T) {
	addr, release := hang(t)
	f := start(t, Options{Shards: 1, Listeners: []Listener{{Service: "db", Connect: time.Minute}}}, addr)
	c := dial(t, f.addr)
	f.reaches(t, "connecting", func(x *flow) bool { return x.phase == phaseConnecting })
	release() // the kernel tries again after a second
	wantCut(t, "client", c, false)
	until(t, "counted", func() bool { s := f.Stats(); return s.ConnectFailed == 1 && s.Active == 0 })
}

// TestBackendResetServesQueue: the connection that is reset makes room for the one that waits.
func TestBackendResetServesQueue(t *testing.T) {
	addr, conns := accepting(t)
	f := start(t, Options{Shards: 1})
	f.pools.limited(forward.Limit{PerBackend: 1, Queue: 1, Wait: time.Minute}, addr)
	first := dial(t, f.addr)
	held := <-conns
	next := dial(t, f.addr)
	f.reaches(t, "queued", func(x *flow) bool { return x.phase == phaseQueued })
	cutOff(held)
	wantCut(t, "first client", first, false)
	next.Write([]byte("next"))
	server := <-conns
	defer server.Close()
	readAll(t, server, "next")
}
