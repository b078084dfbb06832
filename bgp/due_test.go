package bgp

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// A counter is a sender that counts how often it is asked.
type counter struct {
	sent  map[netip.Prefix]bool
	err   error
	asked int
}

func (c *counter) SentTo(netip.Addr) (map[netip.Prefix]bool, error) {
	c.asked++
	return c.sent, c.err
}

// TestUnsent: what a neighbor should hear and is not sent is named, and the list is asked for only if the counts differ.
func TestUnsent(t *testing.T) {
	peer, other := netip.MustParseAddr("10.9.1.2"), netip.MustParseAddr("10.9.1.3")
	key := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 32) }
	p := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	one, two, six, failed, not := p("192.0.2.0/24"), p("198.51.100.0/24"), p("2001:db8::/48"), p("203.0.113.0/24"), p("198.18.0.0/24")
	to := func(prefix netip.Prefix, who ...netip.Addr) engine.Path {
		out := engine.Path{Prefix: prefix, Exports: []engine.Export{{}}}
		for _, a := range who {
			out.Exports[0].Neighbors = append(out.Exports[0].Neighbors, key(a))
		}
		return out
	}
	d := newDues(
		[]engine.Path{to(one, peer, other), to(two, peer), to(six, peer), to(failed, peer), to(not, other)},
		[]RouteStatus{{Prefix: one, Installed: true}, {Prefix: two, Installed: true}, {Prefix: six, Installed: true}, {Prefix: failed}, {Prefix: not, Installed: true}},
	)
	up := engine.Session{Address: peer, State: "established", IPv4: true}
	both := up
	both.IPv6 = true
	for name, tc := range map[string]struct {
		session     engine.Session
		sent, sent4 int
		list        []netip.Prefix
		err         error
		asked       int
		want        []netip.Prefix
	}{
		"all is sent":            {up, 2, 2, nil, nil, 0, nil},
		"all of both is":         {both, 3, 2, nil, nil, 0, nil},
		"one is missing":         {up, 1, 1, []netip.Prefix{one}, nil, 1, []netip.Prefix{two}},
		"the other family is":    {both, 2, 2, []netip.Prefix{one, two}, nil, 1, []netip.Prefix{six}},
		"a family is not taken":  {up, 2, 2, nil, nil, 0, nil},
		"more than is due":       {up, 3, 3, []netip.Prefix{one, two, not}, nil, 1, nil},
		"nobody can be asked":    {up, 0, 0, nil, errors.New("gone"), 1, []netip.Prefix{one, two}},
		"the session is not up":  {engine.Session{Address: peer, State: "active"}, 0, 0, nil, nil, 0, nil},
		"another peer's session": {engine.Session{Address: other, State: "established", IPv4: true}, 2, 2, nil, nil, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := &counter{sent: map[netip.Prefix]bool{}, err: tc.err}
			for _, p := range tc.list {
				c.sent[p] = true
			}
			tc.session.Sent, tc.session.Sent4 = tc.sent, tc.sent4
			if got := d.unsent(c, tc.session); !slices.Equal(got, tc.want) || c.asked != tc.asked {
				t.Errorf("unsent %v, asked %d times, want %v and %d", got, c.asked, tc.want, tc.asked)
			}
		})
	}
}
