// Package descriptors says which of the process's file descriptors those who serve clients may use, so that checks, gossip, BGP, the admin
// socket and files go on while clients take whatever there is. It opens and closes nothing.
//
// All of them ask one question of a descriptor that they have just opened for a client, and close it if the answer is no:
//
//	if !descriptors.Forwarding().Room(fd) { … }
//
// A process is given the lowest number that is free, so a number says how many descriptors are open, without a system call and
// without a count that everybody would have to keep. What is kept for the rest of the node is one reserve: forwarding leaves all of it
// alone, DNS over TCP may use its first half, since names must be answered when forwarding is flooded, and nobody's clients get the second.
package descriptors

import "golang.org/x/sys/unix"

// reserve is how many descriptors are kept, or a quarter of all if those are fewer.
const reserve = 1024

// A Bound is the first number of a descriptor that a tier does not keep. The zero value refuses none.
type Bound int

// Room reports whether a descriptor that was opened a moment ago may stay.
func (b Bound) Room(fd int) bool { return b == 0 || fd < int(b) }

// Forwarding is the bound of the forwarding tier.
func Forwarding() Bound { return forwarding(All()) }

// DNS is the bound of DNS over TCP.
func DNS() Bound { return dns(All()) }

// Connections is how many connections DNS over TCP may have at most, 0 = the kernel does not say: with half of all descriptors it
// leaves forwarding something whatever its own limit is.
func Connections() int { return All() / 2 }

// All is how many descriptors the process may have; 0 = the kernel does not say.
func All() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<30))
}

func forwarding(all int) Bound { return Bound(all - kept(all)) }

func dns(all int) Bound { return Bound(all - kept(all)/2) }

func kept(all int) int { return min(reserve, all/4) }
