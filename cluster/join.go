package cluster

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxJoins is how many configured nodes are tried at a time.
	maxJoins = 4
	// elsewhereEvery is how often a configured node is joined again that answers
	// but is a member under another address.
	elsewhereEvery = time.Minute
	// metaTimeout bounds the wait for a change of Meta to be passed on.
	metaTimeout = 500 * time.Millisecond
)

// seed is the search for one configured node.
type seed struct {
	attempts int
	next     time.Time
	busy     bool
	missing  bool // and that was logged
}

// joined is the outcome of an attempt.
type joined struct {
	addr netip.AddrPort
	err  error
}

// join looks for configured nodes that are not members, for ever: a partition
// that outlasts the membership protocol's memory heals in no other way.
func (n *Node) join(ctx context.Context, protocol *memberlist.Memberlist) {
	seeds := make(map[netip.AddrPort]*seed)
	results := make(chan joined, maxJoins)
	var attempts sync.WaitGroup
	defer attempts.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	busy := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-n.seedsSet:
			n.updateMeta(protocol)
		case r := <-results:
			busy--
			n.settle(seeds[r.addr], r)
		}
		n.syncSeeds(seeds)
		for busy < maxJoins {
			addr, ok := n.nextSeed(seeds, time.Now())
			if !ok {
				break
			}
			busy++
			attempts.Go(func() {
				_, err := protocol.Join([]string{addr.String()})
				results <- joined{addr, err} // has room for every attempt
			})
		}
		timer.Reset(untilNext(seeds, busy, time.Now()))
	}
}

// syncSeeds makes seeds what is configured; searches under way go on.
func (n *Node) syncSeeds(seeds map[netip.AddrPort]*seed) {
	wanted := make(map[netip.AddrPort]bool)
	for _, addr := range n.wanted() {
		wanted[addr] = true
		if seeds[addr] == nil {
			seeds[addr] = &seed{next: time.Now().Add(jitter(n.pace.retry[0]))}
		}
	}
	for addr, s := range seeds {
		if !wanted[addr] && !s.busy {
			delete(seeds, addr)
		}
	}
}

// nextSeed picks a configured node that is due and not a member, and marks it
// busy. Which of several comes first is random, so that nodes that start
// together do not all ask the same one.
func (n *Node) nextSeed(seeds map[netip.AddrPort]*seed, now time.Time) (netip.AddrPort, bool) {
	members := n.roster.presentAddrs()
	for addr, s := range seeds {
		if s.busy || now.Before(s.next) {
			continue
		}
		if members[addr] {
			s.attempts, s.missing = 0, false
			s.next = now.Add(jitter(n.lastRetry()))
			continue
		}
		s.busy = true
		return addr, true
	}
	return netip.AddrPort{}, false
}

// settle notes the outcome of an attempt.
func (n *Node) settle(s *seed, r joined) {
	s.busy = false
	if r.err == nil {
		n.meters.joins.WithLabelValues("done").Inc()
		s.attempts, s.missing = 0, false
		s.next = time.Now().Add(jitter(n.lastRetry()))
		if !n.roster.presentAddrs()[r.addr] {
			s.next = time.Now().Add(jitter(elsewhereEvery))
		}
		return
	}
	n.meters.joins.WithLabelValues("failed").Inc()
	s.attempts++
	s.next = time.Now().Add(jitter(n.pace.retry[min(s.attempts, len(n.pace.retry)-1)]))
	if !s.missing && s.attempts >= joinPatience {
		s.missing = true
		n.log.Warn("configured node cannot be joined; still trying", "address", r.addr, "error", r.err,
			"hint", "is it up, is its port open for UDP and TCP, and are cluster name and key the same?")
	}
}

// joinPatience is how many attempts fail before it is logged: nodes that start
// together are no news.
const joinPatience = 4

func (n *Node) lastRetry() time.Duration { return n.pace.retry[len(n.pace.retry)-1] }

// untilNext returns how long nothing is due.
func untilNext(seeds map[netip.AddrPort]*seed, busy int, now time.Time) time.Duration {
	wait := time.Minute
	if busy == maxJoins {
		return wait // a result comes first
	}
	for _, s := range seeds {
		if !s.busy {
			wait = min(wait, max(s.next.Sub(now), 0))
		}
	}
	return wait
}

// updateMeta has the others told if what we tell of ourselves has changed.
func (n *Node) updateMeta(protocol *memberlist.Memberlist) {
	n.mu.Lock()
	changed := n.metaChanged
	n.metaChanged = false
	n.mu.Unlock()
	if !changed {
		return
	}
	if err := protocol.UpdateNode(metaTimeout); err != nil {
		// It is part of the next push/pull all the same.
		n.log.Debug("change of what this node tells of itself was not confirmed", "error", err)
	}
}
