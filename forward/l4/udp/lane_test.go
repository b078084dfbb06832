package udp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/pharos-lb/pharos/forward/l4/udp/offload"
	"golang.org/x/sys/unix"
)

// backendAt answers every datagram with a word, where it came from and what it was.
func backendAt(t *testing.T, word, at string) (address netip.AddrPort, stop func()) {
	t.Helper()
	return answering(t, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)), func(data []byte, from netip.AddrPort) [][]byte {
		return [][]byte{append([]byte(word+" "+unmapped(from).String()+" "), data...)}
	})
}

// lane is a listener that wants it.
func lane(at string) Listener {
	return Listener{Address: netip.MustParseAddrPort(at), Responses: AnyResponses, Offload: true, Idle: time.Hour}
}

// enterLane asks until the kernel carries the session, and returns the answer without its payload.
func enterLane(t *testing.T, f *fixture, c *net.UDPConn) string {
	t.Helper()
	was := f.Stats().Lane.Entered
	said, _, _ := strings.Cut(ask(t, c, "|first"), "|")
	if n := f.Stats().Lane.Entered - was; n != 0 {
		t.Errorf("%d sessions entered with the first datagram", n)
	}
	reenter(t, f, c, said)
	return said
}

// reenter asks until the kernel carries a session. A shard enters one after it has passed its datagram on, perhaps after the answer.
func reenter(t *testing.T, f *fixture, c *net.UDPConn, said string) {
	t.Helper()
	until(t, "the kernel carries the session", func() bool {
		before := f.Stats().Lane
		if got := ask(t, c, "|again"); got != said+"|again" {
			t.Fatalf("%q and then %q", said, got)
		}
		after := f.Stats().Lane
		f.known(c, before.Emptied)
		return after.Asked == before.Asked+1 && after.Answered == before.Answered+1
	})
}

// known notes how often the lane had been emptied when a session was last seen in it.
func (f *fixture) known(c *net.UDPConn, emptied uint64) {
	if f.seen == nil {
		f.seen = make(map[*net.UDPConn]uint64)
	}
	f.seen[c] = emptied
}

// calm expects of do that the kernel carries so many datagrams, and as many answers. If the lane was emptied meanwhile, which what
// was done to the namespace may bring about much later, it is done again.
func calm(t *testing.T, f *fixture, c *net.UDPConn, n uint64, do func()) {
	t.Helper()
	for range 10 {
		before := f.Stats()
		do()
		after := f.Stats()
		asked, answered := after.Lane.Asked-before.Lane.Asked, after.Lane.Answered-before.Lane.Answered
		switch {
		case asked == n && answered == n:
			f.known(c, before.Lane.Emptied)
			return
		case after.Lane.Emptied == f.seen[c]:
			t.Errorf("the kernel has carried %d datagrams and %d answers, want %d each", asked, answered, n)
			return
		}
		said, _, _ := strings.Cut(ask(t, c, "|"), "|")
		reenter(t, f, c, said)
	}
	t.Error("the lane is emptied all the time")
}

// askByKernel asks, and expects the kernel to have carried the datagram and its answer, or not.
func askByKernel(t *testing.T, f *fixture, c *net.UDPConn, text string, want bool) (answer string) {
	t.Helper()
	do := func() {
		before := f.Stats()
		answer = ask(t, c, text)
		after := f.Stats() // what sockets carry is counted before it is sent
		if received, answered := after.Received-before.Received, after.Answered-before.Answered; received != 1 || answered != 1 {
			t.Errorf("%.20q: counted %d datagrams and %d answers", text, received, answered)
		}
	}
	if want {
		calm(t, f, c, 1, do)
		return answer
	}
	before := f.Stats().Lane
	do()
	if after := f.Stats().Lane; after.Asked != before.Asked || after.Answered != before.Answered {
		t.Errorf("%.20q: the kernel has carried it", text)
	}
	return answer
}

// askSegments sends datagrams of one length as one message, which the kernel cuts when it has to (GSO), and expects it to have carried
// each of them and its answer.
func askSegments(t *testing.T, f *fixture, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	set := func(size int) {
		must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }))
		must(t, err)
	}
	const size = 500
	message := "|" + strings.Repeat("a", size-1) + "|" + strings.Repeat("b", size-1) + "|" + strings.Repeat("c", 9)
	calm(t, f, c, 3, func() {
		set(size)
		_, err = c.Write([]byte(message))
		must(t, err)
		set(0)
		got := make(map[string]bool)
		buf := make([]byte, 2*size)
		for range 3 {
			n, err := c.Read(buf)
			must(t, err)
			_, text, _ := strings.Cut(string(buf[:n]), "|")
			got["|"+text] = true
		}
		for _, part := range []string{message[:size], message[size : 2*size], message[2*size:]} {
			if !got[part] {
				t.Errorf("no answer to %.10q", part)
			}
		}
	})
}

// need skips the test where the kernel has no lane; where everything has to run it fails.
func need(t *testing.T, f *fixture) {
	t.Helper()
	if !f.Stats().LaneOpen {
		missing(t, "the kernel carries no sessions here")
	}
}

// TestLane: after an answer and another datagram the kernel carries a session, of either IP version, between the same addresses.
func TestLane(t *testing.T) {
	if !alone(t) {
		return
	}
	for _, tt := range []struct{ name, listener, backend, client string }{
		{"IPv4", "127.0.0.2:5000", "127.0.0.3:6000", "127.0.0.2:5000"},
		{"IPv6", "[::1]:5000", "[::1]:6000", "[::1]:5000"},
		{"wildcard, IPv4", "[::]:5000", "127.0.0.3:6000", "127.0.0.9:5000"},
		{"wildcard, IPv6", "[::]:5000", "[::1]:6000", "[::1]:5000"},
		{"wildcard of IPv4", "0.0.0.0:5000", "127.0.0.3:6000", "127.0.0.8:5000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, _ := backendAt(t, "a", tt.backend)
			f := start(t, lane(tt.listener), b)
			need(t, f)
			c := dial(t, netip.MustParseAddrPort(tt.client)) // takes answers from there alone
			other := dial(t, netip.MustParseAddrPort(tt.client))
			said := enterLane(t, f, c)
			for _, text := range []string{"", "x", strings.Repeat("long ", 250)} {
				if got := askByKernel(t, f, c, "|"+text, true); got != said+"|"+text {
					t.Errorf("got %.60q, want %q and the text", got, said)
				}
			}
			askSegments(t, f, c)
			if saidToo := enterLane(t, f, other); saidToo == said {
				t.Errorf("two sessions from %s", said)
			}
			askByKernel(t, f, c, "|still", true)
			f.stop()
			if n := attached(t, 1); n != 0 {
				t.Errorf("%d programs stay behind", n)
			}
		})
	}
}

// attached returns how many programs see what arrives at an interface.
func attached(t *testing.T, ifindex int) int {
	t.Helper()
	r, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		t.Fatal(err)
	}
	return len(r.Programs)
}

// TestLaneNotTaken: what is not for the lane goes by sockets, is counted, and works.
func TestLaneNotTaken(t *testing.T) {
	if !alone(t) {
		return
	}
	t.Run("two IP versions", func(t *testing.T) {
		b, _ := backendAt(t, "a", "[::1]:6000")
		f := start(t, lane("127.0.0.2:5000"), b)
		need(t, f)
		c := dial(t, f.addr)
		for range 5 {
			askByKernel(t, f, c, "|x", false)
		}
		until(t, "the refusal is counted", func() bool { return f.Stats().Lane.Refused[offload.Addresses] != 0 })
		if st := f.Stats().Lane; st.Refused[offload.Addresses] != 1 || st.Entered != 0 { // and not tried with every datagram
			t.Errorf("got %+v", st)
		}
	})
	t.Run("not asked for", func(t *testing.T) {
		b, _ := backendAt(t, "a", "127.0.0.3:6000")
		l := lane("127.0.0.2:5000")
		l.Offload = false
		f := start(t, l, b)
		c := dial(t, f.addr)
		for range 20 {
			ask(t, c, "|x")
		}
		if st := f.Stats(); st.LaneOpen || st.LaneWanted || st.Lane.Asked != 0 {
			t.Errorf("got %+v", st)
		}
		if n := attached(t, 1); n != 0 {
			t.Errorf("%d programs", n)
		}
	})
	t.Run("no room", func(t *testing.T) {
		b, _ := backendAt(t, "a", "127.0.0.3:6000")
		f := startWith(t, Options{Listeners: []Listener{lane("127.0.0.2:5000")}, Offloaded: 1}, b)
		need(t, f)
		first, second := dial(t, f.addr), dial(t, f.addr)
		enterLane(t, f, first)
		until(t, "the refusal is counted", func() bool {
			ask(t, second, "|x")
			return f.Stats().Lane.Refused[offload.Full] == 1
		})
		askByKernel(t, f, first, "|x", true)
	})
	for _, l := range []Listener{
		{Responses: 1, Offload: true},
		{Responses: 0, Offload: true},
		{Responses: AnyResponses, Offload: true, QUIC: &QUIC{Length: 8, Servers: map[string]netip.AddrPort{"a": {}}}},
	} {
		l.Address, l.Service = netip.MustParseAddrPort("127.0.0.2:5000"), "dns"
		if err := l.settle(); err == nil || !strings.Contains(err.Error(), "offload goes neither with responses nor with quic") {
			t.Errorf("%+v: got %v", l, err)
		}
	}
}

// TestLaneOneWay: a session whose backend never answers is worth the lane after many datagrams.
func TestLaneOneWay(t *testing.T) {
	if !alone(t) {
		return
	}
	sink, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.3:6000")))
	must(t, err)
	defer sink.Close()
	must(t, sink.SetReadDeadline(time.Now().Add(20*time.Second)))
	f := start(t, lane("127.0.0.2:5000"), sink.LocalAddr().(*net.UDPAddr).AddrPort())
	need(t, f)
	c := dial(t, f.addr)
	var buf [100]byte
	for i := range 2 * manyUnanswered {
		text := fmt.Sprint(i)
		_, err := c.Write([]byte(text))
		must(t, err)
		n, err := sink.Read(buf[:])
		must(t, err)
		if string(buf[:n]) != text {
			t.Fatalf("got %q, want %q", buf[:n], text)
		}
		if i == manyUnanswered-1 {
			until(t, "the kernel carries it", func() bool { return f.Stats().Lane.Entered == 1 })
		}
	}
	if st := f.Stats(); st.Lane.Asked != manyUnanswered && st.Lane.Emptied == 0 || st.Received != 2*manyUnanswered {
		t.Errorf("the kernel has carried %d of %d", st.Lane.Asked, st.Received)
	}
}

// TestLaneIdle: what the kernel carries keeps a session alive; one that is silent ends, and its client's next datagram begins another.
func TestLaneIdle(t *testing.T) {
	if !alone(t) {
		return
	}
	b, _ := backendAt(t, "a", "127.0.0.3:6000")
	l := lane("127.0.0.2:5000")
	l.Idle = 2 * time.Second
	f := start(t, l, b)
	need(t, f)
	for range 5 {
		c, busy := dial(t, f.addr), dial(t, f.addr)
		said, saidBusy := enterLane(t, f, c), enterLane(t, f, busy)
		var asks uint64
		var longest time.Duration // of all pauses of the busy one
		before, last := f.Stats(), time.Now()
		until(t, "the silent one has ended", func() bool {
			if got := ask(t, busy, "|x"); got != saidBusy+"|x" && time.Since(last) < l.Idle {
				t.Fatalf("got %q, want %q", got, saidBusy)
			}
			asks++
			longest, last = max(longest, time.Since(last)), time.Now()
			return f.Stats().Active < before.Active
		})
		if longest > l.Idle/2 || f.Stats().Lane.Emptied != before.Lane.Emptied {
			continue // a starved machine, where it may well have ended too; or the lane was emptied meanwhile
		}
		if st := f.Stats(); st.Lane.Active != 1 || st.Lane.Asked-before.Lane.Asked != asks || st.Sessions != before.Sessions {
			t.Errorf("%d asks, and %+v after %+v", asks, st, before)
		}
		if again := enterLane(t, f, c); again == said {
			t.Errorf("the port %s again", said)
		}
		return
	}
}

// TestLaneRefused: a backend that closes its port is found out as it is by sockets, and the next datagram is another's.
func TestLaneRefused(t *testing.T) {
	if !alone(t) {
		return
	}
	a, stopA := backendAt(t, "a", "127.0.0.3:6000")
	b, stopB := backendAt(t, "b", "127.0.0.4:6000")
	f := start(t, lane("127.0.0.2:5000"), a, b)
	need(t, f)
	c := dial(t, f.addr)
	first, other := "a", "b"
	if strings.HasPrefix(enterLane(t, f, c), "b") {
		first, other, stopA = "b", "a", stopB
	}
	askByKernel(t, f, c, "|x", true)
	stopA()
	_, err := c.Write([]byte("lost"))
	must(t, err)
	until(t, "the session has ended", func() bool { st := f.Stats(); return st.Refused == 1 && st.Active == 0 && st.Lane.Active == 0 })
	if said := enterLane(t, f, c); !strings.HasPrefix(said, other) {
		t.Errorf("first %s, and then %s", first, said)
	}
	askByKernel(t, f, c, "|x", true)
}

// TestLaneOutOfUse: while the plan gives its backend nothing new, sockets carry a session.
func TestLaneOutOfUse(t *testing.T) {
	if !alone(t) {
		return
	}
	b, _ := backendAt(t, "a", "127.0.0.3:6000")
	spare, _ := backendAt(t, "b", "127.0.0.4:6000")
	l := lane("127.0.0.2:5000")
	f := start(t, l, b)
	need(t, f)
	c := dial(t, f.addr)
	said := enterLane(t, f, c)
	f.pools.publish(spare)
	f.registry.Load()
	askByKernel(t, f, c, "|x", true)
	f.look()
	if n := f.Stats().Lane.Active; n != 0 {
		t.Errorf("%d in the lane", n)
	}
	for range 5 {
		if got := askByKernel(t, f, c, "|x", false); got != said+"|x" {
			t.Errorf("got %q, want %q", got, said)
		}
	}
}

// look has the shards look at every session in the lane now.
func (f *fixture) look() {
	var wg sync.WaitGroup
	for _, sh := range f.shards {
		wg.Add(1)
		sh.Do(func() {
			defer wg.Done()
			for _, at := range sh.sockets {
				for x := at.laned.oldest; x != nil; x = x.newer {
					x.lane.checked = sh.now - int64(time.Hour)
				}
				sh.sweep(at)
			}
		})
	}
	wg.Wait()
}

// TestLaneReload: the lane comes and goes with the key, and with it no session.
func TestLaneReload(t *testing.T) {
	if !alone(t) {
		return
	}
	b, _ := backendAt(t, "a", "127.0.0.3:6000")
	l := lane("127.0.0.2:5000")
	f := start(t, l, b)
	need(t, f)
	c := dial(t, f.addr)
	said := enterLane(t, f, c)
	askByKernel(t, f, c, "|x", true)
	change := func(on bool) {
		t.Helper()
		l.Service, l.Offload = "dns", on
		next, err := f.Prepare([]Listener{l})
		must(t, err)
		next.Commit()
	}
	before := f.Stats()
	change(false)
	if st := f.Stats(); st.LaneOpen || st.LaneWanted || st.Lane.Active != 0 || st.Received != before.Received {
		t.Errorf("without: %+v", st)
	}
	if n := attached(t, 1); n != 0 {
		t.Errorf("%d programs stay behind", n)
	}
	if got := askByKernel(t, f, c, "|x", false); got != said+"|x" {
		t.Errorf("got %q, want %q", got, said)
	}
	change(true)
	until(t, "it is in the lane again", func() bool { ask(t, c, "|x"); return f.Stats().Lane.Active == 1 })
	if got := askByKernel(t, f, c, "|x", true); got != said+"|x" {
		t.Errorf("got %q, want %q", got, said)
	}
	next, err := f.Prepare([]Listener{l})
	must(t, err)
	next.Discard()
	askByKernel(t, f, c, "|x", true)
}

// TestLaneHandOver: what another process takes over is out of the lane before, and goes on in the lane of the other one.
func TestLaneHandOver(t *testing.T) {
	if !alone(t) {
		return
	}
	b, _ := backendAt(t, "a", "127.0.0.3:6000")
	f := start(t, lane("127.0.0.2:5000"), b)
	need(t, f)
	c := dial(t, f.addr)
	said := enterLane(t, f, c)
	sessions, files := f.HandOver(context.Background())
	for _, fd := range files {
		unix.Close(fd)
	}
	if st := f.Stats(); len(sessions) != 1 || st.Lane.Active != 0 {
		t.Errorf("%d given, %+v", len(sessions), st)
	}
	f.TakeBack()
	if got := ask(t, c, "|x"); got != said+"|x" {
		t.Errorf("got %q, want %q", got, said)
	}
	until(t, "it is in the lane again", func() bool { ask(t, c, "|x"); return f.Stats().Lane.Active == 1 })
	askByKernel(t, f, c, "|x", true)
}
