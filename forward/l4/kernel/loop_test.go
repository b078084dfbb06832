package kernel

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLoop: every command is obeyed once, in order, however often the loop waits; after the end none is.
func TestLoop(t *testing.T) {
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	const commands = 2000
	var got []int
	var wg sync.WaitGroup
	wg.Go(func() {
		for len(got) < commands || !l.End() {
			for _, e := range l.Wait(-1) {
				if Token(&e) == Wake {
					l.Obey()
				}
			}
		}
	})
	for i := range commands {
		if !l.Do(func() { got = append(got, i) }) {
			t.Fatal("refused before the end")
		}
	}
	wg.Wait()
	for i, n := range got {
		if n != i {
			t.Fatalf("command %d came as %d", n, i)
		}
	}
	if l.Do(func() { t.Error("obeyed after the end") }) {
		t.Error("taken after the end")
	}
	l.Close()
}

// TestWait: tokens of 64 bits come back, patience ends, and what is forgotten is not told.
func TestWait(t *testing.T) {
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var pair [2]int
	if err := unix.Pipe2(pair[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	const token = uint64(0xfedcba9876543210)
	if errno := l.Watch(int32(pair[0]), unix.EPOLLIN, token); errno != 0 {
		t.Fatal(errno)
	}
	for _, patience := range []time.Duration{0, time.Microsecond, time.Millisecond} {
		if n := len(l.Wait(patience)); n != 0 {
			t.Fatalf("%d events of nothing", n)
		}
	}
	if n := l.Waits(); n != 2 {
		t.Errorf("%d waits, want 2: one had no patience", n)
	}
	if _, err := unix.Write(pair[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	for _, patience := range []time.Duration{0, time.Second, -1} {
		events := l.Wait(patience)
		if len(events) != 1 || Token(&events[0]) != token || events[0].Events != unix.EPOLLIN {
			t.Fatalf("got %+v", events)
		}
	}
	if errno := l.Rename(int32(pair[0]), unix.EPOLLIN, 7); errno != 0 {
		t.Fatal(errno)
	}
	if events := l.Wait(0); len(events) != 1 || Token(&events[0]) != 7 {
		t.Fatalf("got %+v", events)
	}
	l.Forget(int32(pair[0]))
	if events := l.Wait(0); len(events) != 0 {
		t.Errorf("forgotten, and told: %+v", events)
	}
}

func TestAddresses(t *testing.T) {
	for _, text := range []string{"192.0.2.1:53", "[2001:db8::1]:65535", "0.0.0.0:0"} {
		want := netip.MustParseAddrPort(text)
		var sa RawAddr
		if size := Sockaddr(&sa, want, false); AddrPort(&sa) != want || Port(&sa) != want.Port() ||
			(size == unix.SizeofSockaddrInet4) != want.Addr().Is4() {
			t.Errorf("%s came back as %s", want, AddrPort(&sa))
		}
		if Sockaddr(&sa, want, true); AddrPort(&sa) != want || sa.Family != unix.AF_INET6 {
			t.Errorf("%s in both families came back as %s", want, AddrPort(&sa))
		}
	}
}
