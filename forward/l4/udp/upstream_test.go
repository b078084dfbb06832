package udp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestSocketsRest: the socket of a session that has had its answers is another's after a while, not at
// once, and what still comes for the first is nobody's.
func TestSocketsRest(t *testing.T) {
	f := start(t, Listener{Responses: 1, Idle: time.Hour}, backend(t, "", 2)) // says everything twice
	for range 20 {
		if got := ask(t, dial(t, f.addr), "x"); got != "x" {
			t.Fatalf("got %q", got)
		}
	}
	if s := f.Stats(); s.Opened == 0 {
		t.Errorf("got %+v", s)
	}
	until(t, "copies are dropped", func() bool { return f.Stats().Stray+f.Stats().Answered == 40 })
	// Each of these finds a socket that has rested for long enough, sooner or later.
	until(t, "a socket is used again", func() bool {
		ask(t, dial(t, f.addr), "y")
		return f.Stats().Reused > 0
	})
	for range 50 { // whoever asks gets the answer to what was asked
		for i := range 10 {
			text := fmt.Sprint("question ", i)
			if got := ask(t, dial(t, f.addr), text); got != text {
				t.Fatalf("asked %q, got %q", text, got)
			}
		}
	}
	s := f.Stats()
	if s.Opened+s.Reused != s.Sessions || s.Active != 0 {
		t.Errorf("got %+v", s)
	}
}

// TestRests: the pool of sockets itself, in its own time.
func TestRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")
		r := rests{queues: make(map[netip.AddrPort]*restQueue)}
		now := int64(time.Hour)
		put := func(address netip.AddrPort, age time.Duration) *upstream {
			u := &upstream{address: address, opened: now - int64(age)}
			if !r.put(u, now) {
				return nil
			}
			now++
			return u
		}
		first, second, other := put(a, 0), put(a, 0), put(b, 0)
		if put(a, maxAge+1) != nil {
			t.Error("an old one is kept")
		}
		if r.take(a, now) != nil {
			t.Error("one was taken at once")
		}
		now += int64(restAtLeast)
		if got := r.take(a, now); got != first {
			t.Error("not the one that has rested longest")
		}
		if r.put(first, now); r.take(a, now) != second || r.take(a, now) != nil || r.count != 2 {
			t.Errorf("%d are left", r.count)
		}
		now += int64(restAtMost)
		var closed []*upstream
		r.expire(now-int64(restAtMost)+1, func(u *upstream) { closed = append(closed, u) })
		if len(closed) != 2 || r.count != 0 || len(r.queues) != 0 || (closed[0] != other && closed[1] != other) {
			t.Errorf("closed %v, %d are left", closed, r.count)
		}
		for range maxResting {
			put(a, 0)
		}
		if put(a, 0) != nil || r.count != maxResting {
			t.Errorf("%d rest, want %d at most", r.count, maxResting)
		}
	})
}

// segmented sends data as datagrams of a length, in one system call.
func segmented(t *testing.T, c *net.UDPConn, data []byte, segment int) {
	t.Helper()
	oob := make([]byte, unix.CmsgSpace(2))
	putSegment(oob, segment)
	if n, _, err := c.WriteMsgUDP(data, oob, nil); err != nil || n != len(data) {
		t.Fatalf("sent %d of %d: %v", n, len(data), err)
	}
}

// TestSegments: datagrams that the kernel has joined arrive as what they were, both ways, and are
// counted as what they were.
func TestSegments(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		f := start(t, Listener{Responses: AnyResponses, Address: netip.MustParseAddrPort(listen)}, backend(t, "", 1))
		c := dial(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), f.addr.Port()))
		const segment, n = 1000, 20
		data := make([]byte, segment*n-300) // the last is shorter
		for i := range n {
			binary.BigEndian.PutUint32(data[i*segment:], uint32(i))
		}
		for range 3 {
			segmented(t, c, data, segment)
			seen := make(map[uint32]bool)
			buf := make([]byte, 65536)
			for range n {
				size, err := c.Read(buf)
				if err != nil {
					t.Fatalf("%s: %d of %d came back: %v", listen, len(seen), n, err)
				}
				i := binary.BigEndian.Uint32(buf)
				want := data[i*segment : min(int(i+1)*segment, len(data))]
				if !bytes.Equal(buf[:size], want) {
					t.Fatalf("%s: datagram %d came back as %d bytes, want %d", listen, i, size, len(want))
				}
				seen[i] = true
			}
		}
		if s := f.Stats(); s.Received != 3*n || s.Answered != 3*n || s.Lost != 0 {
			t.Errorf("%s: got %+v", listen, s)
		}
		f.stop()
	}
}

// TestBulkAnswers: a backend that sends many in a row.
func TestBulkAnswers(t *testing.T) {
	const copies = 200
	f := start(t, Listener{Responses: AnyResponses}, backend(t, "", copies))
	c := dial(t, f.addr)
	if err := c.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	for range 5 {
		if _, err := c.Write([]byte("0123456789")); err != nil {
			t.Fatal(err)
		}
		for i := range copies {
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != "0123456789" {
				t.Fatalf("%d: %q, %v", i, buf[:n], err)
			}
		}
	}
	if s := f.Stats(); s.Answered != 5*copies || s.Lost != 0 {
		t.Errorf("got %+v", s)
	}
}

// TestCut: where a message cannot be cut by the kernel its datagrams go one by one.
func TestCut(t *testing.T) {
	to, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from := dial(t, to.LocalAddr().(*net.UDPAddr).AddrPort())
	raw, err := from.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	b := newBatch(false)
	b.headers[0].Len = uint32(copy(b.data, "aaaabbbbcc"))
	b.direct(0, nil, 0, nil, 4)
	if b.datagrams(0) != 3 {
		t.Errorf("%d datagrams", b.datagrams(0))
	}
	var lost int
	raw.Control(func(fd uintptr) { lost = b.cut(int32(fd), 0) })
	if lost != 0 {
		t.Errorf("%d lost", lost)
	}
	to.SetReadDeadline(time.Now().Add(10 * time.Second))
	for _, want := range []string{"aaaa", "bbbb", "cc"} {
		buf := make([]byte, 100)
		if n, err := to.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("got %q, %v, want %q", buf[:n], err, want)
		}
	}
}

// TestManyClients: answers find their askers, whoever shares a batch or a socket.
func TestManyClients(t *testing.T) {
	for _, responses := range []int{1, AnyResponses} {
		f := start(t, Listener{Responses: responses}, backend(t, "", 1), backend(t, "", 1))
		var wg sync.WaitGroup
		var wrong atomic.Int64
		for client := range 16 {
			wg.Go(func() {
				c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.addr))
				if err != nil {
					wrong.Add(1)
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				buf := make([]byte, 100)
				for i := range 200 {
					text := fmt.Sprint(client, "/", i)
					c.Write([]byte(text))
					if n, err := c.Read(buf); err != nil || string(buf[:n]) != text {
						wrong.Add(1)
						return
					}
				}
			})
		}
		wg.Wait()
		if n := wrong.Load(); n > 0 {
			t.Errorf("responses %d: %d clients had no answer, or another's", responses, n)
		}
		f.stop()
	}
}
