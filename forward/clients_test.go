package forward

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestClients(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	synctest.Test(t, func(t *testing.T) {
		c := NewClients(ClientLimits{Rate: 3, Bits4: 24, Bits6: 48}, nil)
		enter := func(a netip.Addr, want error) {
			t.Helper()
			if _, err := c.Enter(a); !errors.Is(err, want) {
				t.Fatalf("%s: got %v, want %v", a, err, want)
			}
		}
		for range 3 {
			enter(a, nil)
		}
		enter(netip.MustParseAddr("::ffff:192.0.2.99"), ErrClientRate) // the same /24
		enter(b, nil)
		time.Sleep(time.Second / 3)
		enter(a, nil)
		enter(a, ErrClientRate)
		enter(netip.MustParseAddr("2001:db8:1:2::1"), nil)
		enter(netip.Addr{}, nil)

		var missed atomic.Uint64
		c = NewClients(ClientLimits{Open: 2, Table: 64}, &missed) // one of a stripe
		enter(a, nil)
		enter(a, nil)
		enter(a, ErrClientFull)
		c.Leave(a)
		enter(a, nil)
		c.Leave(a)
		c.Leave(a)
		for i := range 1000 {
			enter(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), nil)
		}
		if missed.Load() == 0 {
			t.Error("a table of 64 had room for 1000 clients")
		}
		for i := range c.parts {
			if n := len(c.parts[i].entries); n > c.room {
				t.Fatalf("%d entries, room for %d", n, c.room)
			}
		}
		// A client whose allowance is whole again gives its place.
		missed.Store(0)
		c = NewClients(ClientLimits{Rate: 10, Table: 64}, &missed)
		for i := range 10_000 {
			if _, err := c.EnterAt(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), int64(i)*int64(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if missed.Load() != 0 {
			t.Errorf("%d missed where everybody's time was over", missed.Load())
		}
		c = NewClients(ClientLimits{Open: 1, Bits6: 48}, nil)
		enter(netip.MustParseAddr("2001:db8:1::1"), nil)
		enter(netip.MustParseAddr("2001:db8:1:ffff::1"), ErrClientFull)
	})
	if NewClients(ClientLimits{}, nil) != nil {
		t.Error("no limit makes a table")
	}
	var none *Clients
	if leave, err := none.Enter(a); leave || err != nil {
		t.Error("without limits somebody is kept out")
	}
}
