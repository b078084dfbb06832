package node

import (
	"context"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/dnslb"
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

// When DNS threads keep their processors for the queries' sake: from so many a second on, over roomLooked,
// and until there have been fewer for roomLinger.
const (
	roomRate   = 5000
	roomLooked = time.Second
	roomLinger = 10 * time.Second
)

// watchRoom makes room while many queries come and their threads have real-time priority: one that had to wait for
// a processor would wait for threads that have not. Otherwise it would gain nothing (decision 31).
func watchRoom(ctx context.Context, dns *dnslb.Server) error {
	k := roomKeeper{hold: dns.Hold}
	defer k.end()
	look := time.NewTicker(roomLooked)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		var queries uint64
		for _, t := range dns.Traffic() {
			queries += t.Queries
		}
		k.look(queries, dns.RealTime() > 0)
	}
}

// A roomKeeper decides when there is room.
type roomKeeper struct {
	hold    func() (release func())
	release func() // nil = nobody holds
	queries uint64 // so far
	quiet   time.Duration
}

// look is told, every roomLooked, how many queries came so far, and whether their threads have real-time priority.
func (k *roomKeeper) look(queries uint64, first bool) {
	many := queries >= k.queries+uint64(roomRate*roomLooked/time.Second)
	k.queries = queries // fewer than before: a listener is gone
	switch {
	case many && (first || k.release != nil): // a flood, under which they have it not, changes nothing
		if k.quiet = 0; k.release == nil {
			k.release = k.hold()
		}
	case k.release != nil:
		if k.quiet += roomLooked; k.quiet >= roomLinger {
			k.end()
		}
	}
}

func (k *roomKeeper) end() {
	if k.release != nil {
		k.release()
		k.release = nil
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
