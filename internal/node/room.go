package node

import (
	"context"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/dnslb"
	"github.com/pharos-lb/pharos/forward/l7"
)

// room is how many processors, as the runtime counts them, there are beside the
// usual number. It is the process's; tests have several nodes in one.
var room struct {
	sync.Mutex
	usual, more int
}

// makeRoom readies the process for a great deal of work, such as to compile a
// configuration with a million records, during which DNS queries must not wait: a DNS
// thread that wakes needs one of the runtime's processors, and work and the garbage
// collector would have them all, for 10 ms and more at a time. So there are more of them meanwhile, and
// the DNS threads keep theirs. undo collects the garbage of the work first.
func (n *Node) makeRoom() (undo func()) {
	n.mu.Lock()
	dns := n.dns
	n.mu.Unlock()
	if dns == nil {
		return func() {}
	}
	release := dns.Hold()
	return func() {
		runtime.GC()
		release()
	}
}

// When DNS threads keep their processors for the sake of what comes: from so many queries or requests a second on, over
// roomLooked, and until there have been fewer for roomLinger.
const (
	roomRate     = 5000
	roomRequests = 2000
	roomWaits    = 4 // of each loop of L4, in a second: as many as one has that carries next to nothing
	roomLooked   = time.Second
	roomLinger   = 10 * time.Second
)

// watchRoom makes room in two cases.
//
// While many queries come and their threads have real-time priority: one that had to wait for a processor would wait for threads that have
// not. Otherwise it would gain nothing (decision 31).
//
// While many HTTP requests come, and L4 has nothing to do (decision 32).
func watchRoom(ctx context.Context, dns *dnslb.Server, web *l7.Server, loops ...interface{ Waits() (uint64, int) }) error {
	k := newRoomKeeper(dns.Hold)
	defer k.end()
	look := time.NewTicker(roomLooked)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		var now roomCounts
		for _, t := range dns.Traffic() {
			now.queries += t.Queries
		}
		for _, l := range loops {
			waits, n := l.Waits()
			now.waits += waits
			now.loops += uint64(n)
		}
		now.requests = requests(web)
		k.look(now, dns.RealTime() > 0)
	}
}

// requests is what web has had to do so far: requests, and connections, of which each costs as much again.
func requests(web *l7.Server) uint64 {
	s := web.Stats()
	n := s.Accepted
	for _, class := range s.Answered {
		n += class
	}
	for _, status := range s.Replied {
		n += status
	}
	return n
}

// roomCounts are what came so far, what the loops of L4 waited, and how many these are.
type roomCounts struct{ queries, requests, waits, loops uint64 }

// A roomKeeper decides when there is room.
type roomKeeper struct {
	queries, web roomHold
	before       roomCounts
	loud         time.Duration // for so long L4 counts as busy
}

func newRoomKeeper(hold func() (release func())) *roomKeeper {
	return &roomKeeper{queries: roomHold{hold: hold}, web: roomHold{hold: hold}}
}

// look is told, every roomLooked, the counts and whether the queries' threads have real-time priority.
func (k *roomKeeper) look(now roomCounts, first bool) {
	many := func(now, before, rate uint64) bool { return now >= before+rate*uint64(roomLooked/time.Second) }
	before := k.before
	k.before = now // fewer queries than before: a listener is gone
	// A flood of queries, under which they have it not, changes nothing.
	k.queries.look(many(now.queries, before.queries, roomRate) && (first || k.queries.held()))
	if k.loud = max(k.loud-roomLooked, 0); many(now.waits, before.waits, roomWaits*now.loops+1) {
		k.loud = roomLinger
		k.web.end()
	}
	k.web.look(many(now.requests, before.requests, roomRequests) && k.loud == 0)
}

func (k *roomKeeper) end() {
	k.queries.end()
	k.web.end()
}

// A roomHold is one reason to have room.
type roomHold struct {
	hold    func() (release func())
	release func() // nil = nobody holds
	quiet   time.Duration
}

func (h *roomHold) held() bool { return h.release != nil }

// look is told, every roomLooked, whether the reason is there.
func (h *roomHold) look(there bool) {
	switch {
	case there:
		if h.quiet = 0; h.release == nil {
			h.release = h.hold()
		}
	case h.release != nil:
		if h.quiet += roomLooked; h.quiet >= roomLinger {
			h.end()
		}
	}
}

func (h *roomHold) end() {
	if h.release != nil {
		h.release()
		h.release = nil
	}
}

// addProcessors is told by DNS servers (dnslb.Options.Room) how many more of their threads keep theirs.
func addProcessors(n int) {
	room.Lock()
	defer room.Unlock()
	if room.more == 0 {
		room.usual = runtime.GOMAXPROCS(0)
	}
	room.more += n
	if room.more == 0 && os.Getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS() // and the runtime goes on to follow the limits of its cgroup
		return
	}
	runtime.GOMAXPROCS(room.usual + room.more)
}
