package bgp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Wire is the version of what parent and child tell each other. A parent adopts a child only
// if it speaks the same.
const Wire = 2

// A Leash is what a parent holds a running child by: what another process needs to become its
// parent, without a session or a route that changes.
type Leash struct {
	PID        int
	Wire       int
	Generation uint64
	// Config and Peers are what the child was started with.
	Config Config
	Peers  []Peer
	// Files are the parent's ends of its stdin, stdout and stderr. Those of Detach stay the Speaker's.
	Files [3]int `json:"-"`
}

// errDetached ends Run for a child that has another parent now.
var errDetached = errors.New("child was handed over")

// A detachment is an open Detach.
type detachment struct {
	leash  chan *Leash // answered once; nil when there is no child that runs
	settle chan bool   // true: another process has it; false: it stays ours
}

// Detach stops talking to the child, with nothing half said, and returns what another process
// needs for Options.Adopt; nil without a child that runs. settle, which the caller calls within the lease, ends that: with
// true the child is another's and Run returns nil without withdrawing anything; with false
// it goes on as before. The error is ctx's.
func (s *Speaker) Detach(ctx context.Context) (leash *Leash, settle func(gone bool), err error) {
	d := detachment{leash: make(chan *Leash, 1), settle: make(chan bool, 1)}
	select {
	case s.detach <- d:
	case <-s.idle:
		return nil, func(bool) {}, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	return <-d.leash, func(gone bool) { d.settle <- gone }, nil
}

// lend carries a detachment out: feed says nothing until it is settled. It reports whether the child is another's now.
func (s *Speaker) lend(p *process, config Config, peers []Peer, d detachment) bool {
	if p.send(order{Kind: orderRelease}, time.Second) != nil {
		d.leash <- nil
		<-d.settle
		return false
	}
	p.reportsGate.park()
	p.errsGate.park()
	l := &Leash{PID: p.pid, Wire: Wire, Generation: s.generation, Config: config, Peers: peers}
	for i, f := range []*os.File{p.orders, p.reports, p.errs} {
		if raw, err := f.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { l.Files[i] = int(fd) })
		}
	}
	d.leash <- l
	if <-d.settle {
		return true
	}
	p.reportsGate.open()
	p.errsGate.open()
	_ = p.send(order{Kind: orderGuard}, time.Second) // if it cannot be told, feed will notice
	return false
}

// adopt makes a process of a leash, whose files are the Speaker's from here on.
func adopt(l *Leash) (*process, error) {
	pidfd, err := unix.PidfdOpen(l.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("adopt BGP child %d: %w", l.PID, os.NewSyscallError("pidfd_open", err))
	}
	var files [3]*os.File
	for i, fd := range l.Files {
		_ = unix.SetNonblock(fd, true) // so that the poller takes it
		files[i] = os.NewFile(uintptr(fd), "bgp-child")
	}
	p := newProcess(l.PID, files[0], files[1], files[2])
	p.kill = func() { _ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) }
	p.left = make(chan struct{})
	go p.watch(pidfd)
	return p, nil
}

// watch closes exited when the process ends, which is not our child by birth: it is nobody's to wait for.
func (p *process) watch(pidfd int) {
	defer unix.Close(pidfd)
	defer close(p.exited)
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 500); n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			return
		}
		select {
		case <-p.left: // it is another's now
			return
		default:
		}
	}
}

// leave lets go of a child that has another parent now.
func (p *process) leave() {
	_ = p.orders.Close()
	if p.left != nil {
		close(p.left)
	}
}

// A gate is a pipe's reading end whose reader can be held up between two messages.
type gate struct {
	f *os.File

	within atomic.Bool // the reader is inside a message
	ending atomic.Bool // a deadline ends the reader, instead of holding it up

	mu     sync.Mutex // guards the rest
	closed chan struct{}
	parked chan struct{}
}

// Read implements io.Reader.
func (g *gate) Read(b []byte) (int, error) {
	for {
		if !g.within.Load() {
			g.rest()
		}
		n, err := g.f.Read(b)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && !g.ending.Load() {
			if g.within.Load() || !g.held() {
				_ = g.f.SetReadDeadline(time.Time{}) // to the end of the message
			}
			continue
		}
		return n, err
	}
}

func (g *gate) held() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed != nil
}

// rest says that the reader is between two messages, and waits while the gate is shut.
func (g *gate) rest() {
	g.mu.Lock()
	closed := g.closed
	if closed != nil && g.parked != nil {
		close(g.parked)
		g.parked = nil
	}
	g.mu.Unlock()
	if closed != nil {
		<-closed
	}
}

// park shuts the gate and waits until the reader stands before it, at most a second: then it has ended.
func (g *gate) park() {
	parked := make(chan struct{})
	g.mu.Lock()
	g.closed, g.parked = make(chan struct{}), parked
	g.mu.Unlock()
	_ = g.f.SetReadDeadline(time.Unix(1, 0))
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-parked:
	case <-timer.C:
	}
}

// open lets the reader go on.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		_ = g.f.SetReadDeadline(time.Time{})
		close(g.closed)
		g.closed, g.parked = nil, nil
	}
}

func newProcess(pid int, orders, reports, errs *os.File) *process {
	return &process{
		pid: pid, orders: orders, reports: reports, errs: errs,
		reportsGate: &gate{f: reports}, errsGate: &gate{f: errs}, exited: make(chan struct{}),
	}
}

// killer kills a child that was started here.
func killer(cmd *exec.Cmd) func() { return func() { _ = cmd.Process.Kill() } }

// inside is a gate of which each Read is inside a message, but for the first.
type inside struct{ *gate }

// Read implements io.Reader.
func (i *inside) Read(b []byte) (int, error) {
	n, err := i.gate.Read(b)
	if n > 0 {
		i.within.Store(true)
	}
	return n, err
}
