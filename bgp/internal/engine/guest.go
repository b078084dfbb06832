package engine

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// guestPatience is how long somebody who connected may take to have a session.
const guestPatience = 20 * time.Second

// A Range is neighbors that nobody names: whoever connects from one of its addresses, and is of its AS, has a session. It
// is comparable.
type Range struct {
	Prefix      netip.Prefix // masked
	Local       netip.Addr   // same family: where they connect to
	ASN         uint32
	Password    string // TCP MD5
	Hold        time.Duration
	Multihop    int
	TTLSecurity int
	MaxPrefixes int // per family, of each
	Most        int // at a time; further ones are refused
}

// String leaves the password out.
func (r Range) String() string { return fmt.Sprintf("%s AS%d", r.Prefix, r.ASN) }

// GoString leaves the password out.
func (r Range) GoString() string { return r.String() }

// A RangeState is what there is of a Range.
type RangeState struct {
	Prefix   netip.Prefix
	Sessions int // established
	Full     bool
}

// hall is a Range in force. Guarded by Engine.mu.
type hall struct {
	Range
	open bool // GoBGP lets them in
}

func (r Range) group() string { return "from " + r.Prefix.String() }

// Admit makes the ranges those given. Addresses that are barred are refused though they are in one. It returns what failed,
// by range.
func (e *Engine) Admit(ranges []Range, barred []netip.Addr) map[netip.Prefix]error {
	e.mu.Lock()
	defer e.mu.Unlock()
	failed := map[netip.Prefix]error{}
	want := make(map[netip.Prefix]Range, len(ranges))
	for _, r := range ranges {
		want[r.Prefix] = r
	}
	for prefix, h := range e.halls {
		r, ok := want[prefix]
		same := r
		same.Most = h.Most
		if ok && same == h.Range {
			h.Range = r // GoBGP does not know the limit: keepHouse sees to the new one
			continue
		}
		e.closeHall(h)
		delete(e.halls, prefix)
	}
	// Before the first of them can come: one message of theirs may be the end of this process.
	for a, err := range e.bar(barred, ranges) {
		e.opts.Log.Warn("cannot refuse a BGP neighbor", "peer", a, "error", err)
		failed[rangeOf(ranges, a).Prefix] = err
	}
	for prefix, r := range want {
		if e.halls[prefix] != nil || failed[prefix] != nil {
			continue
		}
		h, err := e.openHall(r)
		if err != nil {
			failed[prefix] = err
			continue
		}
		e.halls[prefix] = h
	}
	signal(e.stirred)
	return failed
}

// openHall lets a range in. The caller holds mu.
func (e *Engine) openHall(r Range) (*hall, error) {
	n := apiPeer(Neighbor{
		ASN: r.ASN, Hold: r.Hold, Multihop: r.Multihop, TTLSecurity: r.TTLSecurity, MaxPrefixes: r.MaxPrefixes, Passive: true, Local: r.Local,
	})
	group := &api.PeerGroup{
		Conf:   &api.PeerGroupConf{PeerGroupName: r.group(), PeerAsn: r.ASN, AuthPassword: r.Password},
		Timers: n.Timers, Transport: n.Transport, EbgpMultihop: n.EbgpMultihop, TtlSecurity: n.TtlSecurity, AfiSafis: n.AfiSafis,
	}
	if err := e.server.AddPeerGroup(context.Background(), &api.AddPeerGroupRequest{PeerGroup: group}); err != nil {
		return nil, fmt.Errorf("admit %s: %w", r.Prefix, err)
	}
	h := &hall{Range: r}
	if err := e.unlock(h); err != nil {
		_ = e.server.DeletePeerGroup(context.Background(), &api.DeletePeerGroupRequest{Name: r.group()})
		return nil, err
	}
	return h, nil
}

// unlock lets neighbors of a hall connect. The caller holds mu.
func (e *Engine) unlock(h *hall) error {
	e.journal.takeKeyFailure(h.Prefix.Addr())
	// An unknown group would panic in GoBGP: openHall made it.
	err := e.server.AddDynamicNeighbor(context.Background(), &api.AddDynamicNeighborRequest{
		DynamicNeighbor: &api.DynamicNeighbor{Prefix: h.Prefix.String(), PeerGroup: h.group()},
	})
	if err != nil {
		return fmt.Errorf("admit %s: %w", h.Prefix, err)
	}
	h.open = true
	if reason := e.journal.takeKeyFailure(h.Prefix.Addr()); reason != "" {
		e.lock(h)
		return fmt.Errorf("admit %s: %w: %s", h.Prefix, ErrPassword, reason)
	}
	return nil
}

// lock refuses further neighbors of a hall. The caller holds mu.
func (e *Engine) lock(h *hall) {
	if !h.open {
		return
	}
	h.open = false
	_ = e.server.DeleteDynamicNeighbor(context.Background(), &api.DeleteDynamicNeighborRequest{
		Prefix: h.Prefix.String(), PeerGroup: h.group(),
	})
}

// closeHall ends every session of a range. The caller holds mu.
func (e *Engine) closeHall(h *hall) {
	e.lock(h)
	for a, g := range e.guests {
		if g.from == h.Prefix {
			e.dismiss(a)
		}
	}
	_ = e.server.DeletePeerGroup(context.Background(), &api.DeletePeerGroupRequest{Name: h.group()})
}

// dismiss ends a guest's session with Cease. The caller holds mu.
func (e *Engine) dismiss(a netip.Addr) {
	_ = e.server.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: a.String()})
	delete(e.guests, a)
	e.journal.forget(a)
	signal(e.changed)
}

// bar has GoBGP refuse addresses that are in one of the ranges, by neighbors of that name that are down, and nobody else. It
// returns what failed. The caller holds mu.
func (e *Engine) bar(want []netip.Addr, ranges []Range) map[netip.Addr]error {
	failed := map[netip.Addr]error{}
	for a := range e.barred {
		if !slices.Contains(want, a) {
			_ = e.server.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: a.String()})
			delete(e.barred, a)
		}
	}
	for _, a := range want {
		r := rangeOf(ranges, a)
		if e.barred[a] || r == nil || e.peers[a] != nil {
			continue
		}
		e.dismiss(a) // it may be in, and not have been seen yet
		n := apiPeer(Neighbor{Address: a, ASN: r.ASN, Hold: r.Hold, Passive: true, Local: r.Local})
		n.Conf.AdminDown = true
		if err := e.server.AddPeer(context.Background(), &api.AddPeerRequest{Peer: n}); err != nil {
			failed[a] = fmt.Errorf("refuse %s: %w", a, err)
			continue
		}
		e.journal.started()
		e.barred[a] = true
	}
	return failed
}

// rangeOf is the range that an address is in; nil = none.
func rangeOf(ranges []Range, a netip.Addr) *Range {
	for i := range ranges {
		if ranges[i].Prefix.Contains(a) {
			return &ranges[i]
		}
	}
	return nil
}

// hallOf is the range that an address is in. The caller holds mu.
func (e *Engine) hallOf(a netip.Addr) *hall {
	for _, h := range e.halls {
		if h.Prefix.Contains(a) {
			return h
		}
	}
	return nil
}

// guest is the peer of an address that GoBGP let in; nil if it is none. The caller holds mu.
func (e *Engine) guest(a netip.Addr, now time.Time) *peer {
	if g := e.guests[a]; g != nil {
		return g
	}
	h := e.hallOf(a)
	if h == nil || e.barred[a] {
		return nil
	}
	g := &peer{
		neighbor: Neighbor{Address: a, ASN: h.ASN}, from: h.Prefix,
		session: Session{Address: a, ASN: h.ASN, State: "active", Since: now, From: h.Prefix},
	}
	e.guests[a] = g
	signal(e.changed)
	return g
}

// keepHouse forgets the guests that GoBGP no longer has, ends those that come to nothing and those above a range's limit,
// the newest first, and lets nobody in where it is full. The caller holds mu, and seen is what GoBGP has.
func (e *Engine) keepHouse(seen map[netip.Addr]bool, now time.Time) {
	inside := map[netip.Prefix][]*peer{}
	for a, g := range e.guests {
		switch {
		case !seen[a]:
			if g.session.State == "established" {
				e.opts.Log.Warn("BGP session lost", "peer", a, "asn", g.neighbor.ASN, "reason", e.journal.lastError(a))
			}
			delete(e.guests, a)
			signal(e.changed)
		case g.session.State != "established" && now.Sub(g.session.Since) > guestPatience:
			e.dismiss(a)
		default:
			inside[g.from] = append(inside[g.from], g)
		}
	}
	for _, h := range e.halls {
		list := inside[h.Prefix]
		if len(list) > h.Most {
			// Who has a session stays before who has none, who was first before who was later.
			slices.SortFunc(list, func(a, b *peer) int {
				return cmp.Or(-boolean(a.session.State == "established", b.session.State == "established"), a.session.Since.Compare(b.session.Since),
					a.session.Address.Compare(b.session.Address))
			})
			for _, g := range list[h.Most:] {
				e.dismiss(g.session.Address)
			}
		}
		if full := len(list) >= h.Most; full {
			e.lock(h)
		} else if !h.open {
			if err := e.unlock(h); err != nil {
				e.opts.Log.Warn("cannot let BGP neighbors in again", "from", h.Prefix, "error", err)
			}
		}
	}
}

// boolean compares true as more than false.
func boolean(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// Ranges returns the state of every range, sorted by prefix.
func (e *Engine) Ranges() []RangeState {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []RangeState
	for _, h := range e.halls {
		r := RangeState{Prefix: h.Prefix, Full: !h.open}
		for _, g := range e.guests {
			if g.from == h.Prefix && g.session.State == "established" {
				r.Sessions++
			}
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b RangeState) int { return a.Prefix.Compare(b.Prefix) })
	return out
}
