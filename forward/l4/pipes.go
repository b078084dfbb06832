package l4

import "golang.org/x/sys/unix"

const (
	// pipeSize is asked for; the kernel gives less to those who have many.
	pipeSize = 1 << 20
	// maxPipes is how many flows of one shard are spliced at once; others are copied.
	maxPipes = 256
	// keptPipes is how many are kept for the next bulky flow.
	keptPipes = 4
)

// A pipe carries bytes inside the kernel from one socket to another. It is lent
// to a flow only while that has more to move.
type pipe struct {
	read, write int32
	size, held  int
}

type pipes struct {
	free []*pipe
	lent int
	used bool // since the last housekeeping
	room func(fd int) bool
}

// lend gives an end a pipe if it has none. It reports whether it has one now.
func (p *pipes) lend(e *end) bool {
	if e.pipe != nil {
		return true
	}
	if p.lent >= maxPipes {
		return false
	}
	p.used = true
	if n := len(p.free); n > 0 {
		e.pipe = p.free[n-1]
		p.free = p.free[:n-1]
		p.lent++
		return true
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return false
	}
	if !p.room(max(fds[0], fds[1])) {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return false
	}
	size, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil {
		if size, err = unix.FcntlInt(uintptr(fds[1]), unix.F_GETPIPE_SZ, 0); err != nil {
			size = 4096
		}
	}
	e.pipe = &pipe{read: int32(fds[0]), write: int32(fds[1]), size: size}
	p.lent++
	return true
}

// put takes a pipe back. One that still holds bytes is closed.
func (p *pipes) put(x *pipe) {
	p.lent--
	if x.held > 0 || len(p.free) >= keptPipes {
		x.close()
		return
	}
	p.free = append(p.free, x)
}

// close closes the pipes that are not lent.
func (p *pipes) close() {
	for _, x := range p.free {
		x.close()
	}
	p.free = nil
}

func (x *pipe) close() {
	closeFD(x.read)
	closeFD(x.write)
}
