package offload

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
)

func session(client, server, local, backend string) Session {
	return Session{netip.MustParseAddrPort(client), netip.MustParseAddrPort(server), netip.MustParseAddrPort(local), netip.MustParseAddrPort(backend)}
}

// there reports whether the map has both directions of a session, or neither.
func there(t *testing.T, l *Lane, s Session) bool {
	t.Helper()
	found := 0
	for _, w := range s.ways() {
		key := w.old.key()
		var entry [entrySize]byte
		switch err := l.sessions.Lookup(unsafe.Pointer(&key), unsafe.Pointer(&entry)); {
		case err == nil:
			found++
		case !errors.Is(err, ebpf.ErrKeyNotExist):
			t.Fatal(err)
		}
	}
	if found == 1 {
		t.Errorf("one direction of %v", s)
	}
	return found == 2
}

func TestEnter(t *testing.T) {
	namespace(t)
	l := open(t, Options{Sessions: 2})
	l.watch.close() // it is never emptied
	<-l.done
	a := session("127.0.0.1:1", "127.0.0.2:2", "127.0.0.1:3", "127.0.0.4:4")
	b := session("127.0.0.1:5", "127.0.0.2:2", "127.0.0.1:6", "127.0.0.4:4")
	c := session("[::1]:7", "[::1]:2", "[::1]:8", "[::1]:4")
	enter := func(s Session, want Refusal) {
		t.Helper()
		generation, why := l.Enter(s)
		if why != want || (why == Entered) != (generation == l.Generation()) || there(t, l, s) != (why == Entered) {
			t.Errorf("%v: generation %d, refusal %v, want %v", s, generation, why, want)
		}
	}
	enter(a, Entered)
	enter(a, Entered) // again
	enter(c, Entered)
	enter(b, Full)
	if silent, ok := l.Silent(a); !ok || silent < 0 || silent > time.Minute {
		t.Errorf("silent for %v, %t", silent, ok)
	}
	if _, ok := l.Silent(b); ok {
		t.Error("one that is not there is")
	}
	l.Leave(a)
	l.Leave(a)
	if there(t, l, a) {
		t.Error("it has not left")
	}
	enter(b, Entered)
	for _, s := range []Session{
		session("[::1]:1", "127.0.0.2:2", "127.0.0.1:3", "127.0.0.4:4"),
		session("127.0.0.1:1", "127.0.0.2:2", "[::1]:3", "[::1]:4"),
		session("127.0.0.1:1", "0.0.0.0:2", "127.0.0.1:3", "127.0.0.4:4"),
		session("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.2]:2", "[::ffff:127.0.0.1]:3", "[::ffff:127.0.0.4]:4"),
		session("[fe80::1%lo]:1", "[::1]:2", "[::1]:3", "[::1]:4"),
		{},
	} {
		enter(s, Addresses)
	}
	enter(session("10.0.0.1:1", "127.0.0.2:2", "127.0.0.1:3", "127.0.0.4:4"), NoPath)
	if st := l.Stats(); st.Active != 2 || st.Entered != 4 || st.Refused != [refusals]uint64{Full: 1, Addresses: 6, NoPath: 1} {
		t.Errorf("got %+v", st)
	}
	l.Close()
	if generation, why := l.Enter(a); why != Failed || generation != 0 {
		t.Errorf("after Close: %d, %v", generation, why)
	}
	l.Leave(b)
	if _, ok := l.Silent(b); ok || l.Stats().Active != 0 {
		t.Error("after Close there are sessions")
	}
	l.Close()
}

// TestEmptied: what a router says of the size of packets puts all sessions out, without a look at each.
func TestEmptied(t *testing.T) {
	namespace(t)
	l := open(t, Options{})
	s := session("127.0.0.1:1", "127.0.0.2:2", "127.0.0.1:3", "127.0.0.4:4")
	d := datagram{src: s.Client, dst: s.Server, ttl: 64, payload: []byte("x")}
	carried := func() bool {
		before := l.Stats().Asked
		run(t, l, d.packet(), 1)
		return l.Stats().Asked > before
	}
	r := rand.New(rand.NewPCG(5, 6))
	icmp := datagram{src: randomAddress(r, false), dst: s.Server, ttl: 9, payload: make([]byte, 40)}
	p := icmp.packet()
	p[protocolAt(false)], p[34], p[35] = 1, 3, 4
	for range 3 { // some may be owed to what was done to the namespace before
		generation, why := l.Enter(s)
		if why != Entered {
			t.Fatal(why)
		}
		if !carried() && l.Generation() == generation {
			t.Error("it is not carried")
		}
		run(t, l, p, 1)
		for deadline := time.Now().Add(20 * time.Second); l.Generation() == generation; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("never emptied")
			}
		}
		if carried() {
			t.Error("it is carried still")
		}
		if st := l.Stats(); st.Active != 0 || st.Emptied == 0 {
			t.Errorf("got %+v", st)
		}
	}
	l.Leave(s)
	if there(t, l, s) {
		t.Error("it has not left")
	}
}

func TestOptions(t *testing.T) {
	for _, n := range []int{-1, MaxSessions + 1} {
		if l, err := New(Options{Sessions: n}); err == nil {
			l.Close()
			t.Errorf("%d sessions are taken", n)
		}
	}
}
