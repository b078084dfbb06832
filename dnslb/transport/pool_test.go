package transport

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/internal/descriptors"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An echo answers with the message.
type echo struct{}

func (echo) Respond(dst, msg []byte, _ netip.AddrPort, _ bool) []byte { return append(dst, msg...) }

func (echo) Lost() {}

func (echo) Flush() {}

// A gated echo tells that it has a message and waits until it may answer.
type gated struct {
	echo
	at, gate chan struct{}
}

func (g gated) Respond(dst, msg []byte, client netip.AddrPort, tcp bool) []byte {
	g.at <- struct{}{}
	<-g.gate
	return g.echo.Respond(dst, msg, client, tcp)
}

// serve runs a pool of two streams behind a listener on a free loopback port.
func serve(t testing.TB, limits Limits, r Responder) (pool *Pool, counters *Counters, address string) {
	t.Helper()
	listener, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	counters = new(Counters)
	pool, err = NewPool(limits, counters, 2, func() Responder { return r })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); listener.Serve(pool) }()
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		<-done
		pool.Shutdown()
		if n := pool.Open(); n != 0 {
			t.Errorf("%d connections left after Shutdown", n)
		}
	})
	return pool, counters, listener.Local().String()
}

func connect(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

// works reports whether a message comes back.
func works(conn net.Conn) bool {
	if _, err := conn.Write([]byte{0, 2, 'o', 'k'}); err != nil {
		return false
	}
	var reply [4]byte
	_, err := io.ReadFull(conn, reply[:])
	return err == nil && reply == [4]byte{0, 2, 'o', 'k'}
}

// rests waits until the pool has so many connections, all but busy of them idle, and
// returns the address of the one that has been idle longest.
func rests(t *testing.T, pool *Pool, open, busy int) (oldest string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; runtime.Gosched() {
		pool.mu.Lock()
		idle, since := 0, time.Duration(0)
		for _, s := range pool.streams {
			for c := s.idle.first; c != nil; c = c.newer {
				if idle++; idle == 1 || c.since < since {
					oldest, since = c.client.String(), c.since
				}
			}
		}
		all := pool.open
		pool.mu.Unlock()
		if all == open && idle == open-busy {
			return oldest
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are open and %d idle, want %d and %d", all, idle, open, open-busy)
		}
	}
}

// TestLongestIdleMakesRoom: at the limit, who has been idle longest goes.
func TestLongestIdleMakesRoom(t *testing.T) {
	pool, counters, address := serve(t, Limits{Connections: 3, Idle: time.Minute}, echo{})
	var conns []net.Conn
	for i := range 3 {
		conns = append(conns, connect(t, address))
		if !works(conns[i]) {
			t.Fatal("refused")
		}
		rests(t, pool, i+1, 0)
	}
	works(conns[0]) // now the second is the longest idle
	for rests(t, pool, 3, 0) != conns[1].LocalAddr().String() {
		runtime.Gosched()
	}
	if !works(connect(t, address)) {
		t.Error("no room was made")
	}
	if works(conns[1]) || !works(conns[0]) || !works(conns[2]) || counters.Evicted.Load() != 1 {
		t.Errorf("another than the longest idle went, %d in all", counters.Evicted.Load())
	}
}

// TestShare: one network cannot take all connections: beyond its share, its own
// idle ones make room.
func TestShare(t *testing.T) {
	pool, counters, address := serve(t, Limits{Connections: 10 * perClientFloor, Idle: time.Minute}, echo{})
	share := 10 * perClientFloor / perClientShare
	for i := range share {
		if !works(connect(t, address)) {
			t.Fatalf("connection %d refused", i+1)
		}
		rests(t, pool, i+1, 0)
	}
	if !works(connect(t, address)) || counters.Evicted.Load() != 1 || pool.Open() != share {
		t.Errorf("%d open, %d evicted; want %d and 1", pool.Open(), counters.Evicted.Load(), share)
	}
}

// half sends the first half of a message.
func half(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := conn.Write([]byte{0, 2, 'o'}); err != nil {
		t.Fatal(err)
	}
}

// TestRefused: when every connection has a message in hand, a new one is refused and
// none is cut off.
func TestRefused(t *testing.T) {
	pool, counters, address := serve(t, Limits{Connections: 1, Idle: time.Minute}, echo{})
	busy := connect(t, address)
	half(t, busy)
	rests(t, pool, 1, 1)
	if _, err := connect(t, address).Read(make([]byte, 1)); err == nil || counters.Refused.Load() != 1 || counters.Evicted.Load() != 0 {
		t.Errorf("refused %d, evicted %d: want 1 and 0", counters.Refused.Load(), counters.Evicted.Load())
	}
	answered(t, busy)
}

// answered sends the other half of a message and wants it answered.
func answered(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := conn.Write([]byte{'k'}); err != nil {
		t.Fatal(err)
	}
	var reply [4]byte
	if _, err := io.ReadFull(conn, reply[:]); err != nil || reply != [4]byte{0, 2, 'o', 'k'} {
		t.Errorf("answer %q, %v", reply, err)
	}
}

// TestShutdownAnswers: a message that has begun is answered before the end.
func TestShutdownAnswers(t *testing.T) {
	pool, _, address := serve(t, Limits{Connections: 8, Idle: time.Minute}, echo{})
	silent, conn := connect(t, address), connect(t, address)
	half(t, conn)
	rests(t, pool, 2, 1)
	done := make(chan struct{})
	go func() { defer close(done); pool.Shutdown() }()
	if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the silent connection: %v, want its end", err)
	}
	answered(t, conn)
	<-done
}

// TestShutdownEnds: a client that begins another message with the end of each holds nothing up.
func TestShutdownEnds(t *testing.T) {
	pool, _, address := serve(t, Limits{Connections: 8, Idle: time.Minute}, echo{})
	idle, conn := connect(t, address), connect(t, address)
	half(t, conn)
	rests(t, pool, 2, 1)
	done := make(chan struct{})
	go func() { defer close(done); pool.Shutdown() }()
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF { // it has begun
		t.Fatalf("the idle connection: %v, want its end", err)
	}
	answers := 0
	for answers < 3 {
		if _, err := conn.Write([]byte("k\x00\x02o")); err != nil {
			break
		}
		if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
			break
		}
		answers++
	}
	if answers != 1 {
		t.Errorf("%d answers after the end had begun, want that to the message in hand", answers)
	}
	conn.Close()
	<-done
}

// TestStopUDP: Stop ends Serve, and the socket stays bound until Close.
func TestStopUDP(t *testing.T) {
	sockets, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range sockets {
		if u.Local() != sockets[0].Local() {
			t.Errorf("bound to %v and %v", u.Local(), sockets[0].Local())
		}
		done := make(chan struct{})
		go func() { defer close(done); u.Serve(echo{}) }()
		u.Stop()
		<-done
	}
	if c, err := net.ListenPacket("udp", sockets[0].Local().String()); err == nil {
		c.Close()
		t.Error("no longer bound after Stop")
	}
	for _, u := range sockets {
		for range 2 {
			if err := u.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	}
}

// TestDescriptorsAreLeft: a connection whose descriptor is kept for others is refused and counted, and who has been idle
// longest makes room for the next.
func TestDescriptorsAreLeft(t *testing.T) {
	free, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	const most = 20
	pool, counters, address := serve(t, Limits{Connections: 1000, Idle: time.Minute, Descriptors: descriptors.Bound(free + most)}, echo{})
	var conns []net.Conn
	for i := 0; counters.Short.Load() == 0; i++ {
		if i == most {
			t.Fatalf("%d connections, and none was refused", pool.Open())
		}
		conns = append(conns, connect(t, address))
		works(conns[i]) // or is refused
	}
	if counters.Short.Load() != 1 || counters.Evicted.Load() != 1 || works(conns[len(conns)-1]) || works(conns[0]) {
		t.Errorf("refused %d, evicted %d, want the last and the first", counters.Short.Load(), counters.Evicted.Load())
	}
	if !works(conns[1]) {
		t.Error("one that was there is gone")
	}
	for _, c := range conns {
		c.Close()
	}
	rests(t, pool, 0, 0)
	if !works(connect(t, address)) {
		t.Error("nobody is taken any more")
	}
}
