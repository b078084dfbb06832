package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// window is how many queries are under way at once in a closed loop.
const window = 64

// silence ends the wait for answers that will not come.
const silence = 300 * time.Millisecond

// A played is what a load came to.
type played struct {
	asked, answered int
	took            time.Duration
}

// width is how many datagrams one system call moves at most.
const width = 32

// A udp sends and receives in batches on one connected socket, without waiting.
type udp struct {
	fd      int
	w       *workload
	random  *rand.PCG
	out, in [width]unix.Mmsghdr
	to, at  [width]unix.Iovec
	space   [2 * width][512]byte
	sent    [1 << 16]int64 // by ID: when it was sent, 0 once it is answered
	next    uint16
	seen    uint32 // the newest serial, where a check notes it

	// Where the kernel was asked to say when each answer came (stamp): the messages that it says it in, and what the one in hand says,
	// ns of CLOCK_REALTIME; 0 if nothing.
	control [][stampSpace]byte
	arrived int64
}

func dial(addr netip.AddrPort, w *workload) (*udp, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // the default serves too
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	u := &udp{fd: fd, w: w, random: rand.NewPCG(rand.Uint64(), rand.Uint64())}
	for i := range width {
		u.to[i].Base, u.at[i].Base = &u.space[i][0], &u.space[width+i][0]
		u.at[i].SetLen(len(u.space[i]))
		u.out[i].Hdr.Iov, u.out[i].Hdr.Iovlen = &u.to[i], 1
		u.in[i].Hdr.Iov, u.in[i].Hdr.Iovlen = &u.at[i], 1
	}
	return u, nil
}

// stampSpace holds a message of type SCM_TIMESTAMPNS.
const stampSpace = 64

// stamp asks the kernel to say when each answer came, whenever it is taken.
func (u *udp) stamp() error {
	if err := unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("ask for the time of arrival: %w", err)
	}
	u.control = make([][stampSpace]byte, width)
	for i := range u.in {
		u.in[i].Hdr.Control = &u.control[i][0]
	}
	return nil
}

// arrival is when the ith answer came, 0 if that is not known. A message is its length (8 octets), level and type (4 each), and here a timespec.
func (u *udp) arrival(i int) int64 {
	if u.control == nil || u.in[i].Hdr.Controllen < 32 {
		return 0
	}
	said, word := u.control[i][:], binary.NativeEndian
	if word.Uint32(said[8:]) != unix.SOL_SOCKET || word.Uint32(said[12:]) != unix.SCM_TIMESTAMPNS {
		return 0
	}
	return int64(word.Uint64(said[16:]))*int64(time.Second) + int64(word.Uint64(said[24:]))
}

// send sends n queries, at most width; stamp is when they are said to be sent.
func (u *udp) send(n int, stamp func(i int) int64) error {
	for i := range n {
		u.to[i].SetLen(u.w.query(u.space[i][:], u.next, u.random))
		u.sent[u.next] = stamp(i)
		u.next++
	}
	for done := 0; done < n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(u.fd), uintptr(unsafe.Pointer(&u.out[done])), uintptr(n-done), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			done += int(sent)
		case unix.EAGAIN, unix.EINTR:
		default:
			return fmt.Errorf("send: %w", errno)
		}
	}
	return nil
}

// receive takes the answers that are there and yields when each was sent.
func (u *udp) receive(yield func(sent int64)) (int, error) {
	for i := range u.control {
		u.in[i].Hdr.SetControllen(stampSpace)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(u.fd), uintptr(unsafe.Pointer(&u.in[0])), width, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	default:
		return 0, fmt.Errorf("receive: %w", errno)
	}
	answered := 0
	for i := range int(n) {
		answer := u.space[width+i][:u.in[i].Len]
		if err := u.w.check(answer); err != nil {
			return 0, err
		}
		id := uint16(answer[0])<<8 | uint16(answer[1])
		if sent := u.sent[id]; sent != 0 {
			u.sent[id] = 0
			u.arrived = u.arrival(i)
			answered++
			yield(sent)
		}
	}
	return answered, nil
}

// closed keeps a window of queries under way until all are sent, and does
// nothing else: it spins on its core.
func closed(addr netip.AddrPort, w *workload, queries int) (played, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	u, err := dial(addr, w)
	if err != nil {
		return played{}, err
	}
	defer unix.Close(u.fd)
	start := time.Now()
	sent, underway, answered, last := 0, 0, 0, start
	stamp := func(int) int64 { return 1 }
	for answered < queries {
		if n := min(width, window-underway, queries-sent); n > 0 {
			if err := u.send(n, stamp); err != nil {
				return played{}, err
			}
			sent += n
			underway += n
		}
		n, err := u.receive(func(int64) {})
		if err != nil {
			return played{}, err
		}
		answered += n
		underway -= n
		switch now := time.Now(); {
		case n > 0:
			last = now
		case now.Sub(last) > silence: // those are lost
			if sent == queries {
				return played{queries, answered, last.Sub(start)}, nil
			}
			underway, last = 0, now
		}
	}
	return played{queries, answered, time.Since(start)}, nil
}

// A latency is what queries waited, µs.
type latency struct {
	p50, p99 float64
	away     float64 // for how long the load did not run, where it was for more than a moment
}

const (
	// moment is what the load takes to send a batch and to receive one, and more.
	moment = 400 * time.Microsecond
	// step is what it takes for the few that are due at a time: interrupts, too, take longer.
	step = 30 * time.Microsecond
	// burst is how many go at a time at most.
	burst = 4
	// slip is the part of the time that steps may have been longer.
	slip = 0.1
)

// paced sends at a steady rate, whatever the answers do, and returns the
// median and the 99th percentile of the latency. A query's is counted from when it is sent, which waits for no server, to when the
// kernel has its answer: a server that stalls is not spared the queries that it holds up, and is not charged for what the load takes.
// What was due while the load itself stood still is sent later, at the same rate, and not in one burst, that would have to wait for itself.
// The load's own garbage collector has to wait: it would take the core from it.
func paced(addr netip.AddrPort, w *workload, rate float64, queries int) (latency, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	u, err := dial(addr, w)
	if err != nil {
		return latency{}, err
	}
	defer unix.Close(u.fd)
	if err := u.stamp(); err != nil {
		return latency{}, err
	}
	latencies := make([]float64, 0, queries)
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	gap := 1e9 / rate
	start := time.Now().UnixNano()
	var sent int
	var now, last, away, slipped int64
	stamp := func(int) int64 { return now }
	note := func(at int64) {
		came := u.arrived
		if came == 0 {
			came = time.Now().UnixNano()
		}
		latencies = append(latencies, float64(max(came-at, 0))/1e3)
	}
	for last = start; ; {
		now = time.Now().UnixNano()
		if now-last > int64(step) {
			slipped += now - last - int64(step)
		}
		if now-last > int64(moment) {
			away += now - last
		}
		last = now
		passed := now - start - slipped
		n := min(int(float64(passed)/gap)-sent, queries-sent, burst)
		if n > 0 {
			if err := u.send(n, stamp); err != nil {
				return latency{}, err
			}
			sent += n
		}
		if _, err := u.receive(note); err != nil {
			return latency{}, err
		}
		if sent == queries && (len(latencies) == queries || passed > int64(float64(queries)*gap)+int64(silence)) {
			break
		}
	}
	if slipped-away > int64(float64(now-start)*slip) {
		return latency{}, fmt.Errorf("the load came to %.0f queries a second, not %.0f", float64(queries)/float64(now-start)*1e9, rate)
	}
	if len(latencies) < queries/2 {
		return latency{}, fmt.Errorf("%d of %d queries were answered at %.0f a second", len(latencies), queries, rate)
	}
	slices.Sort(latencies)
	return latency{latencies[len(latencies)/2], latencies[len(latencies)*99/100], float64(away) / 1e3}, nil
}
