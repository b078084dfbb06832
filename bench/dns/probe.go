package main

import (
	"cmp"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probeVariable makes this program a probe, of the address and serial that it names.
const probeVariable = "PHAROS_BENCH_PROBE"

// probePriority is above that of a server's own real-time threads.
const probePriority = 2

// A sight is one run of probe.
type sight struct {
	// Latencies are from when a query was sent to when the kernel had its answer for the probe, µs, of those that were answered: when the probe took it does not count.
	Latencies []float64
	Asked     int
	Unsure    int       // queries that are left out: the probe stood still while it sent them
	Late      float64   // µs; the longest that a query was sent after it was due, or an answer taken after it came, for which no server is to blame
	Start     time.Time // of the probe
	Seen      time.Duration
	lasted    time.Duration // from when the server was told to when it answered the new serial
}

// probe asks at a steady rate while begin makes a server read its zone, until
// the new serial is answered and a little longer; with serial 0 until begin returns. It returns
// what each query waited from when it was sent, and how late the probe itself was. What begin tried in vain before does not count as the reload's time.
//
// The probe is a process of its own, all of whose threads go before everything
// else, where that is allowed: one thread alone would have to wait, after the runtime's preemptions, for others that do not.
func probe(addr netip.AddrPort, serial uint32, begin func() (time.Time, error)) (sight, error) {
	self, err := os.Executable()
	if err != nil {
		return sight{}, err
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%v %d", probeVariable, addr, serial))
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log strings.Builder
	child.Stderr = &log
	in, err1 := child.StdinPipe() // it ends with this
	out, err2 := child.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return sight{}, err
	}
	if err := child.Start(); err != nil {
		return sight{}, err
	}
	defer child.Wait() //nolint:errcheck // what it had to say has been read
	ready := make([]byte, 1)
	if _, err := io.ReadFull(out, ready); err != nil {
		return sight{}, fmt.Errorf("the probe did not begin: %s", log.String())
	}
	told, err := begin()
	if err != nil || serial == 0 {
		in.Close()
	}
	var seen sight
	if read := gob.NewDecoder(out).Decode(&seen); err == nil && read != nil {
		err = fmt.Errorf("probe: %w: %s", read, log.String())
	}
	if err != nil {
		return sight{}, err
	}
	if len(seen.Latencies) == 0 {
		return sight{}, fmt.Errorf("none of %d queries was answered", seen.Asked)
	}
	seen.lasted = seen.Start.Add(seen.Seen).Sub(told)
	return seen, nil
}

// beProbe is the whole program of a probe, if this process is to be one.
func beProbe() {
	address, serial, ok := strings.Cut(os.Getenv(probeVariable), " ")
	if !ok {
		return
	}
	runtime.LockOSThread()
	now, err := unix.SchedGetAttr(0, 0)
	if err == nil && now.Policy != unix.SCHED_FIFO {
		// The runtime has threads by now. Those of the same program begun anew are all as this one.
		if unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: probePriority}, 0) == nil {
			err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
		}
	}
	addr, err2 := netip.ParseAddrPort(address)
	number, err3 := strconv.ParseUint(serial, 10, 32)
	if err = errors.Join(err, err2, err3); err == nil {
		err = watchZone(addr, uint32(number))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// watchZone runs a probe and writes its sight.
func watchZone(addr netip.AddrPort, serial uint32) error {
	debug.SetGCPercent(-1)
	_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE) // it is a little slower without
	p := prober{serial: serial, latencies: make([]float64, 0, reloadLimit/probeEvery)}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		p.stop.Store(true)
	}()
	if err := p.run(addr); err != nil {
		return err
	}
	return gob.NewEncoder(os.Stdout).Encode(sight{Latencies: p.latencies, Asked: p.asked, Unsure: p.unsure, Late: p.late, Start: p.start, Seen: p.seen})
}

// sure is how long sending may take; one that took longer was interrupted, before or after the query was on its way.
const sure = 100 * time.Microsecond

// realTime is the clock that the kernel stamps packets by, in ns.
func realTime() int64 {
	return time.Now().UnixNano()
}

// A prober is one run of probe.
type prober struct {
	u         *udp
	serial    uint32
	latencies []float64 // µs
	asked     int
	unsure    int
	late      float64 // µs
	start     time.Time
	seen      time.Duration // when the serial was answered; 0 = not yet
	stop      atomic.Bool
}

func (p *prober) run(addr netip.AddrPort) error {
	u, err := dial(addr, &workload{query: p.query, check: p.check})
	if err != nil {
		return err
	}
	defer unix.Close(u.fd)
	if err := u.stamp(); err != nil {
		return err
	}
	p.u = u
	if _, err := os.Stdout.Write([]byte{'!'}); err != nil {
		return err
	}
	p.start = time.Now()
	for n := int64(0); ; n++ {
		due := n * int64(probeEvery)
		if err := p.receiveUntil(due); err != nil {
			return err
		}
		now := time.Since(p.start)
		if p.seen == 0 && p.serial != 0 && p.u.seen == p.serial {
			p.seen = now
		}
		if p.seen != 0 && now > p.seen+settled || p.stop.Load() {
			break
		}
		if now > reloadLimit {
			return fmt.Errorf("the zone with serial %d was not answered within %v", p.serial, reloadLimit)
		}
		p.late = max(p.late, float64(int64(now)-due)/1e3)
		// One whose server begins anew hears that nobody is there: those queries are lost.
		id := u.next
		if err := u.send(1, func(int) int64 { return realTime() }); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return err
		}
		if p.asked++; realTime()-u.sent[id] > int64(sure) {
			u.sent[id] = 0
			p.asked--
			p.unsure++
		}
	}
	for end := time.Since(p.start) + time.Second; len(p.latencies) < p.asked && time.Since(p.start) < end; { // the last ones are on their way
		if err := p.receiveUntil(int64(time.Since(p.start) + 10*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// receiveUntil takes answers until a time after the start.
func (p *prober) receiveUntil(due int64) error {
	for {
		_, err := p.u.receive(func(sent int64) {
			now := realTime()
			came := cmp.Or(p.u.arrived, now)
			p.late = max(p.late, float64(now-came)/1e3)
			p.latencies = append(p.latencies, max(0, float64(came-sent)/1e3))
		})
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return err
		}
		wait := due - int64(time.Since(p.start))
		if wait <= 0 {
			return nil
		}
		ts := unix.NsecToTimespec(wait)
		fds := [1]unix.PollFd{{Fd: int32(p.u.fd), Events: unix.POLLIN}}
		// The scheduler is not told: it would have to give the processor back.
		_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), 1, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	}
}

// query asks for a static name that every zone has, and for the serial at times.
func (p *prober) query(buf []byte, n uint16, random *rand.PCG) int {
	if n%serialEvery != 0 {
		return static(buf, n, random)
	}
	const soa = "\x05bench\x04test\x00\x00\x06\x00\x01"
	return len(append(append(buf[:0], byte(n>>8), byte(n), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0), soa...))
}

// check wants an answer, and notes the serial.
func (p *prober) check(answer []byte) error {
	if err := wantAnswer(answer); err != nil {
		return err
	}
	at := skipName(answer, 12)
	if binary.BigEndian.Uint16(answer[at:]) != 6 {
		return nil
	}
	at = skipName(answer, at+4) + 10            // to the data of the record
	at = skipName(answer, skipName(answer, at)) // past both of its names
	if len(answer) < at+4 {
		return fmt.Errorf("the SOA record is cut: %x", answer)
	}
	p.u.seen = binary.BigEndian.Uint32(answer[at:])
	return nil
}
