package forward

import (
	"fmt"
	"time"
)

// An Algorithm says how a pool's backends share new work.
type Algorithm uint8

// The algorithms. The hashing ones give equal keys to the same backend, on every node
// that has the same plan.
const (
	// PowerOfTwo takes the less loaded of two drawn by weight.
	PowerOfTwo Algorithm = iota
	// Latency is PowerOfTwo with the load multiplied by the backend's recent latency.
	Latency
	// RoundRobin takes them in turns, evenly mixed, by weight.
	RoundRobin
	// LeastLoad takes the one that carries least for its weight.
	LeastLoad
	// Maglev hashes into a table of 65,537 slots.
	Maglev
	// Bounded is Maglev, but passes over who carries more than its bound.
	Bounded
	// Ring hashes onto the ring that nginx (hash … consistent) makes of the same
	// backends, weights and keys.
	Ring
	// Source is Maglev by the client's address, whatever the key.
	Source
	algorithmCount
)

var algorithmTexts = [algorithmCount]string{"p2c", "ewma", "round-robin", "least", "maglev", "bounded", "ring", "source"}

// String returns the word that the configuration uses.
func (a Algorithm) String() string {
	if a < algorithmCount {
		return algorithmTexts[a]
	}
	return "unknown"
}

// ParseAlgorithm reads what String writes; "auto" and "" are PowerOfTwo.
func ParseAlgorithm(text string) (Algorithm, error) {
	if text == "" || text == "auto" {
		return PowerOfTwo, nil
	}
	for i, word := range algorithmTexts {
		if word == text {
			return Algorithm(i), nil
		}
	}
	return 0, fmt.Errorf("no algorithm %q", text)
}

// hashes reports whether it needs a key.
func (a Algorithm) hashes() bool { return a >= Maglev }

// hashes reports whether work is bound to backends by a key.
func (p *Policy) hashes(datagram bool) bool { return p.Algorithm.hashes() || p.Auto && datagram }

// A Policy is how one pool is balanced. The zero Policy is PowerOfTwo without
// limits and ejection.
type Policy struct {
	Algorithm Algorithm
	// Auto: nobody chose the algorithm, so datagrams are balanced by Maglev.
	Auto bool
	// Key is what work is bound to with the algorithms that hash.
	Key Key
	// Load, for Bounded, is how much more than the average a backend may carry: 1.25 is
	// a quarter more. Below 1 counts as 1.25.
	Load float64
	// Limit bounds what each backend carries at once.
	Limit Limit
	// Eject passes over backends whose work fails.
	Eject Ejection
}

// A Limit bounds the leases of each backend of a pool, and how fast work comes to all of them.
type Limit struct {
	// PerBackend is how many leases a backend has at a time; 0 = no limit.
	PerBackend int64
	// Queue is how many wait for a lease while every backend has that many; 0 = none.
	Queue int
	// Wait is how long one waits at most.
	Wait time.Duration
	// Rate is how many units of new work a second the service takes, with a burst of one second; 0 = no limit.
	Rate int
}

// An Ejection says when a backend is passed over because of what became of its
// work here. It is this node's own caution, no verdict: nobody else hears of it.
type Ejection struct {
	// Errors in a row that eject; 0 = that does not.
	Errors int
	// SuccessRate ejects a backend whose share of successes in a Window is less than this share of
	// the pool's median, 0 … 1; 0 = that does not.
	SuccessRate float64
	// Latency ejects a backend whose latency is more than this many times the pool's median;
	// 0 = that does not.
	Latency float64
	// Window is how long successes are counted for SuccessRate and between two looks at Latency.
	Window time.Duration
	// MinWork is how many outcomes a Window needs to count for a backend.
	MinWork int
	// For is how long the first ejection lasts; every further one twice as long as the
	// one before, up to MaxFor. Each For that passes without one undoes a doubling.
	For, MaxFor time.Duration
	// MaxShare of the active backends are ejected at most, 0 … 1; one always may be where there are
	// two or more.
	MaxShare float64
}

// on reports whether anything ejects.
func (e *Ejection) on() bool { return e.Errors > 0 || e.SuccessRate > 0 || e.Latency > 0 }
