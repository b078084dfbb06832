package probe

import (
	"sync"
	"time"
)

// The bounds of keepers.
const (
	// maxIdle is how many keepers wait for the next command; more are ended when
	// theirs has ended.
	maxIdle = 4
	// idleFor is how long a keeper waits for the next command.
	idleFor = time.Minute
	// keeperGrace is how much longer than a command its keeper may take to say how
	// it ended, and then once more to end itself when it is told to.
	keeperGrace = 2 * time.Second
)

// An order tells a keeper to run a command.
type order struct {
	Command []string // placeholders are filled in
	User    string   // empty: that of the keeper
	Env     []string
	// End is when it is to end, on the system's monotonic clock, which all processes
	// share: a keeper that has just been started begins late.
	End   time.Duration
	Limit time.Duration // the timeout of the check
}

// orderOf returns the order of c.
func orderOf(c Check, end time.Duration) order {
	o := order{User: c.Exec.User, Env: environment(c.Target), End: end, Limit: c.Timeout}
	for _, arg := range c.Exec.Command {
		o.Command = append(o.Command, fill(arg, c.Target))
	}
	return o
}

// keepers are the processes that run commands for this one. A keeper runs one
// command at a time, so that all its descendants are of that command: as their
// "child subreaper" it becomes the parent of every process whose own has ended,
// whatever session or group that has put itself into, and can end them all. It is a
// process of its own because the system gives a process no way to tell apart the
// orphans of several commands; and it is kept for the next command because to start
// one costs ten times what a command does.
type keepers struct {
	argv []string // of a process that runs KeeperMain

	mu     sync.Mutex // guards the rest
	idle   []*keeper  // the longest idle first
	closed bool
}
