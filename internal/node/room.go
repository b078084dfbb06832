package node

import (
	"os"
	"runtime"
	"sync"
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
	threads := dns.Threads()
	addProcessors(threads)
	release := dns.Hold()
	return func() {
		runtime.GC()
		release()
		addProcessors(-threads)
	}
}

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
