package l4

import (
	"net/netip"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/sys/unix"
)

// A phase is what a flow waits for.
type phase uint8

const (
	phaseGreeting   phase = iota // the client's PROXY header or TLS hello
	phaseQueued                  // a backend that has room
	phaseConnecting              // a backend
	phaseRelaying
)

// A flow is a client's connection and the one to its backend. It belongs to one
// shard. While nothing moves it holds two descriptors and no buffer.
type flow struct {
	binding *binding
	set     *settings // when it was accepted; binding.settings has what a reload made of it
	backend *forward.Backend
	tried   []*forward.Backend // of the shard's space while connecting
	cancel  func()             // ends the wait in line
	hello   *greeting          // what the client said of itself; nil mostly

	client, server end

	peer, local netip.AddrPort // the client's address and the one that it asked
	from        netip.Addr     // where it has come from, if peer was told by a header; else invalid
	source      netip.Addr     // what the limits of a client count; invalid = nothing counted
	born, last  int64          // shard time of the accept, and when bytes last moved
	began       int64          // of this phase
	goneAt      int64          // when its backend is out of use for too long; 0 = in use
	up, down    uint64         // bytes

	when  int64  // when the timer looks at it
	index int32  // in shard.timers; −1 = not there
	slot  uint32 // in shard.flows
	round uint32 // tells this use of the slot from earlier ones

	phase   phase
	queued  bool // in shard.ready
	counted bool // against the limit of its service
	settled bool // has been there long enough for keep-alives
	trusted bool // begins with a PROXY header
	suspect bool // may begin with a PROXY header that it is not trusted with
}

// An end is one of the two connections of a flow. What waits to be written to it
// is in out or pipe, never in both.
type end struct {
	fd   int32 // −1 = none
	full uint8 // buffers in a row that a read of it has filled

	readable bool // a read may find something
	writable bool // a write may find room
	hup      bool // its end has been announced: read until there
	muted    bool // is readable, and epoll does not say so again
	eof      bool // read to its end
	shut     bool // its end has been passed on to it
	wrote    bool // has been written to
	nodelay  bool // does not wait for Nagle's algorithm

	out  *chunk
	pipe *pipe
}

// A chunk is bytes that a socket had no room for.
type chunk struct {
	data       [chunkSize]byte
	start, end int
}

// tokens of epoll: the slot with its round, and which of the two ends.
func (f *flow) token(server bool) uint64 {
	t := uint64(f.round)<<32 | uint64(f.slot)<<2
	if server {
		t |= 1
	}
	return t
}

// end kinds in the low bits of a token.
const (
	tokenServer   = 1
	tokenListener = 2
)

// edges is what is watched of a connection.
const edges = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// note takes over what epoll tells of an end.
func (e *end) note(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.readable = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		e.writable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.hup = true
	}
}

// empty reports whether nothing waits to be written to it.
func (e *end) empty() bool { return e.out == nil && (e.pipe == nil || e.pipe.held == 0) }
