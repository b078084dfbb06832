package cluster

import "time"

const (
	// stillAfter is how long a node may say nothing of itself, which it does every second,
	// before it must have stood still (frozen, starved).
	stillAfter = 3 * time.Second
	// backlogFor is how long it then reads what the kernel kept for it meanwhile.
	backlogFor = 500 * time.Millisecond
)

// A still is what a node knows of its own last standstill. What arrived meanwhile waits in sockets, and nobody can
// tell when it came; so all of it counts as old as the standstill is long. Else a node that goes on after
// a minute would believe, and tell others, that who died meanwhile was there just now.
type still struct {
	lasted time.Duration
	until  time.Time // what arrives up to here may have waited
}

// publish notes that the node, whose last report is own, says something at now.
func (s *still) publish(own *held, now time.Time) {
	if d := gap(own, now); d > 0 {
		*s = still{lasted: d, until: now.Add(backlogFor)}
	}
}

// gap returns how long the node has stood still at now, 0 if it has not.
func gap(own *held, now time.Time) time.Duration {
	if own == nil || now.Sub(own.born) <= stillAfter {
		return 0
	}
	return now.Sub(own.born)
}

// stood returns how long what is read at now may have waited because this node stood still.
func (n *Node) stood(now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d := gap(n.own, now); d > 0 {
		return d
	}
	if now.Before(n.still.until) {
		return n.still.lasted
	}
	return 0
}
