package transport

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A tally is an echo that counts. It may be read while it is used.
type tally struct{ answered, lost atomic.Int64 }

func (c *tally) Respond(dst, msg []byte, _ netip.AddrPort, _ bool) []byte {
	c.answered.Add(1)
	return append(dst, msg...)
}

func (c *tally) Lost() { c.lost.Add(1) }

func (c *tally) Flush() {}

// serveUDP runs one socket until the end of the test.
func serveUDP(t testing.TB, address string, r Responder) *UDP {
	t.Helper()
	sockets, err := ListenUDP(netip.MustParseAddrPort(address), 1)
	if err != nil {
		t.Fatal(err)
	}
	u := sockets[0]
	done := make(chan struct{})
	go func() { defer close(done); u.Serve(r) }()
	t.Cleanup(func() {
		u.Stop()
		<-done
		if err := u.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return u
}

// asker is a connected client: it takes answers only from where it asked.
func asker(t testing.TB, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

// TestUDP: more than a batch at once, each answered from the address asked.
func TestUDP(t *testing.T) {
	for _, tt := range []struct {
		name, listen string
		ask          []string
	}{
		{"IPv4", "127.0.0.1:0", []string{"127.0.0.1"}},
		{"IPv6", "[::1]:0", []string{"::1"}},
		{"every IPv4", "0.0.0.0:0", []string{"127.0.0.1", "127.0.0.2", "127.9.9.9"}},
		{"every IPv6", "[::]:0", []string{"::1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := serveUDP(t, tt.listen, new(tally))
			for _, ip := range tt.ask {
				conn := asker(t, netip.AddrPortFrom(netip.MustParseAddr(ip), u.Local().Port()))
				const burst = 3*BatchWidth + 1
				for i := range burst {
					if _, err := conn.Write(bytes.Repeat([]byte{byte(i)}, 1+i)); err != nil {
						t.Fatal(err)
					}
				}
				in := make([]byte, 4*burst)
				for i := range burst {
					n, err := conn.Read(in)
					if err != nil || !bytes.Equal(in[:n], bytes.Repeat([]byte{byte(i)}, 1+i)) {
						t.Fatalf("answer %d from %s: %x, %v", i, ip, in[:n], err)
					}
				}
			}
		})
	}
}

// TestSizes: replies that fill the space of a batch, datagrams that are too
// long and empty ones.
func TestSizes(t *testing.T) {
	u := serveUDP(t, "127.0.0.1:0", new(tally))
	conn := asker(t, u.Local())
	large := bytes.Repeat([]byte{'x'}, replyBuffer)
	const count = 2 * replySpace / replyBuffer
	for range count {
		_, _ = conn.Write(nil)
		_, _ = conn.Write(large)
	}
	_, _ = conn.Write(make([]byte, 65507)) // looked at as far as it is read
	_, _ = conn.Write([]byte("end"))
	in := make([]byte, 1<<16)
	for i := range count + 1 {
		if n, err := conn.Read(in); err != nil || n != replyBuffer {
			t.Fatalf("answer %d: %d octets, %v", i, n, err)
		}
	}
	if n, err := conn.Read(in); err != nil || string(in[:n]) != "end" {
		t.Errorf("after it: %d octets, %v", n, err)
	}
}

// TestUDPAllocations: receiving, answering and sending allocate nothing.
func TestUDPAllocations(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		sockets, err := ListenUDP(netip.MustParseAddrPort(address), 1)
		if err != nil {
			t.Fatal(err)
		}
		u := sockets[0]
		defer u.Close()
		to := u.Local()
		if ip := to.Addr(); ip.IsUnspecified() {
			to = netip.AddrPortFrom(map[bool]netip.Addr{true: netip.IPv6Loopback(), false: netip.MustParseAddr("127.0.0.1")}[ip.Is6()], to.Port())
		}
		family, sa, err := sockaddr(to)
		if err != nil {
			t.Fatal(err)
		}
		client, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(client)
		if err := unix.Connect(client, sa); err != nil {
			t.Fatal(err)
		}
		b, r, msg, answers := newBatch(u.pktinfo), new(tally), make([]byte, 64), 0
		got := testing.AllocsPerRun(200, func() { // loopback delivers before write returns
			for range 3 {
				_, _ = unix.Write(client, msg)
			}
			u.drain(b, r, new(hurry))
			for range 3 {
				if n, _ := unix.Read(client, msg); n == len(msg) {
					answers++
				}
			}
		})
		if got != 0 || answers != 3*201 {
			t.Errorf("%s: %v allocations a batch, %d answers; want 0 and %d", address, got, answers, 3*201)
		}
	}
}

// TestSend: whatever sendmmsg says, each reply is sent once or counted as lost,
// and the batch ends.
func TestSend(t *testing.T) {
	type call struct {
		sent  int
		errno unix.Errno
	}
	for _, tt := range []struct {
		name  string
		calls []call // the last one repeats
		lost  int64
		sent  []int // which of five
	}{
		{"all", []call{{5, 0}}, 0, []int{0, 1, 2, 3, 4}},
		{"in parts", []call{{2, 0}, {1, 0}, {2, 0}}, 0, []int{0, 1, 2, 3, 4}},
		{"interrupted", []call{{0, unix.EINTR}, {2, 0}, {0, unix.EINTR}, {3, 0}}, 0, []int{0, 1, 2, 3, 4}},
		{"one refused", []call{{1, 0}, {0, unix.EPERM}, {3, 0}}, 1, []int{0, 2, 3, 4}},
		{"no buffers", []call{{0, unix.ENOBUFS}}, 5, nil},
		{"refused by the peer", []call{{0, unix.ECONNREFUSED}, {4, 0}}, 1, []int{1, 2, 3, 4}},
		{"full for a moment", []call{{1, 0}, {0, unix.EAGAIN}, {2, 0}, {0, unix.EAGAIN}, {2, 0}}, 0, []int{0, 1, 2, 3, 4}},
		{"full", []call{{3, 0}, {0, unix.EAGAIN}}, 2, []int{0, 1, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, r := newBatch(false), new(tally)
			b.pending, b.used = 5, 500
			var sent []int
			calls := tt.calls
			b.transmit = func(_ int, first *unix.Mmsghdr, n int) (int, unix.Errno) {
				c := calls[0]
				if len(calls) > 1 {
					calls = calls[1:]
				}
				at := 5 - n
				if first != &b.replies[at] || c.sent > n {
					t.Fatalf("asked to send %d from the wrong place", n)
				}
				for i := range c.sent {
					sent = append(sent, at+i)
				}
				return c.sent, c.errno
			}
			b.send(-1, r)
			if r.lost.Load() != tt.lost || !slices.Equal(sent, tt.sent) || b.pending != 0 || b.used != 0 {
				t.Errorf("sent %v and lost %d, want %v and %d", sent, r.lost.Load(), tt.sent, tt.lost)
			}
		})
	}
}

// TestStopAnswers: what was read when Stop came is answered, and Close waits
// for it.
func TestStopAnswers(t *testing.T) {
	at, gate := make(chan struct{}), make(chan struct{})
	sockets, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	u := sockets[0]
	conn := asker(t, u.Local())
	for range 2 { // both are there before Serve reads
		if _, err := conn.Write([]byte("ok")); err != nil {
			t.Fatal(err)
		}
	}
	closed := make(chan struct{})
	go u.Serve(gated{at: at, gate: gate})
	<-at
	u.Stop()
	go func() { defer close(closed); u.Close() }()
	gate <- struct{}{}
	<-at
	select {
	case <-closed:
		t.Error("closed while answering")
	default:
	}
	gate <- struct{}{}
	<-closed
	in := make([]byte, 8)
	for range 2 {
		if n, err := conn.Read(in); err != nil || string(in[:n]) != "ok" {
			t.Errorf("the answer was lost: %q, %v", in[:n], err)
		}
	}
}

// TestOverflow: what the kernel drops is told, also after Close.
func TestOverflow(t *testing.T) {
	sockets, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	u := sockets[0]
	_ = unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	conn := asker(t, u.Local())
	for range 100 {
		_, _ = conn.Write(make([]byte, 1000))
	}
	before := u.Overflowed()
	if err := u.Close(); err != nil || before == 0 || before >= 100 || u.Overflowed() != before {
		t.Errorf("%d dropped, then %d, %v", before, u.Overflowed(), err)
	}
}

// TestIdleCPU: a server with nothing to do takes no processor.
func TestIdleCPU(t *testing.T) {
	for range 8 {
		conn := asker(t, serveUDP(t, "127.0.0.1:0", new(tally)).Local())
		_, _ = conn.Write([]byte("ok")) // it has worked, and sent, before
		if _, err := conn.Read(make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
	used := func() time.Duration {
		var ru unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
		return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	before := used()
	time.Sleep(200 * time.Millisecond) // what is measured, not waited for
	if cost := used() - before; cost > 100*time.Millisecond {
		t.Errorf("%v of processor time in 200ms of rest", cost)
	}
}

// A seer is an echo that remembers what it was shown, and whether that is what came.
type seer struct {
	tally
	shown           [][]byte
	batches, others atomic.Int64
}

func (s *seer) Prefetch(msgs [][]byte) {
	s.batches.Add(1)
	s.shown = append(s.shown[:0], msgs...)
}

func (s *seer) Respond(dst, msg []byte, client netip.AddrPort, tcp bool) []byte {
	if len(s.shown) == 0 || len(s.shown[0]) != len(msg) || &s.shown[0][0] != &msg[0] {
		s.others.Add(1)
	} else {
		s.shown = s.shown[1:]
	}
	return s.tally.Respond(dst, msg, client, tcp)
}

// TestPrefetch: a batch is shown before it is answered: the same messages in the same order and memory.
func TestPrefetch(t *testing.T) {
	s := new(seer)
	conn := asker(t, serveUDP(t, "127.0.0.1:0", s).Local())
	const messages = 5 * BatchWidth
	for i := range messages {
		if _, err := conn.Write(make([]byte, 1+i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range messages {
		if n, err := conn.Read(make([]byte, 1024)); err != nil || n != 1+i {
			t.Fatalf("answer %d: %d octets, %v", i, n, err)
		}
	}
	if others := s.others.Load(); others != 0 || s.batches.Load() == 0 {
		t.Errorf("%d messages were not shown, in %d batches", others, s.batches.Load())
	}
}

// TestFlood: with one processor and a flood that it cannot keep up with, other
// goroutines run, connections are answered, and Stop ends it.
func TestFlood(t *testing.T) {
	if target := os.Getenv("PHAROS_TEST_FLOOD"); target != "" {
		flood(netip.MustParseAddrPort(target))
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r := new(tally)
	u := serveUDP(t, "127.0.0.1:0", r)
	_, _, address := serve(t, Limits{Connections: 8, Idle: time.Minute}, echo{})
	flooder := exec.Command(os.Args[0], "-test.run=^TestFlood$")
	flooder.Env = append(os.Environ(), "PHAROS_TEST_FLOOD="+u.Local().String())
	if err := flooder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = flooder.Process.Kill()
		_ = flooder.Wait() // killed
	}()
	for end := time.Now().Add(30 * time.Second); r.answered.Load() < 1000; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("no flood")
		}
	}
	before := r.answered.Load()
	for range 20 {
		time.Sleep(time.Millisecond) // timers go on
		if !works(connect(t, address)) {
			t.Fatal("a connection was not answered")
		}
	}
	if n := r.answered.Load() - before; n < 20*BatchWidth {
		t.Errorf("only %d datagrams answered meanwhile: not a flood", n)
	}
}

// flood sends without end, and without a look at what comes back.
func flood(to netip.AddrPort) {
	family, sa, err := sockaddr(to)
	if err != nil {
		panic(err)
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		panic(err)
	}
	b := newBatch(false)
	if err := unix.Connect(fd, sa); err != nil {
		panic(err)
	}
	msg := binary.BigEndian.AppendUint64(nil, 1)
	for i := range b.replies {
		b.from[i].Base = &msg[0]
		b.from[i].SetLen(len(msg))
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		b.transmit(fd, &b.replies[0], BatchWidth)
	}
	os.Exit(0)
}
