package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answer serves as a name server that answers one of every n queries; the serial as soon as it is told to.
func answer(t *testing.T, n int, serial *atomic.Uint32) netip.AddrPort {
	t.Helper()
	return answerAt(t, netip.MustParseAddrPort("127.0.0.1:0"), n, serial)
}

func answerAt(t *testing.T, addr netip.AddrPort, n int, serial *atomic.Uint32) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for i := 0; ; i++ {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if n == 0 || i%n != 0 && buf[size-3] != 6 {
				continue
			}
			out := append([]byte{}, buf[:size]...)
			out[2], out[7] = 0x84, 1
			record := []byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1}
			if buf[size-3] == 6 { // SOA
				s := serial.Load()
				record = append([]byte{0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 9, 0, 22, 0, 0, byte(s >> 24), byte(s >> 16), byte(s >> 8), byte(s)}, make([]byte, 16)...)
			}
			_, _ = conn.WriteToUDPAddrPort(append(out, record...), from)
		}
	}()
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}

// The test binary is the probe and the neighbour too.
func TestMain(m *testing.M) {
	beProbe()
	beNeighbour()
	os.Exit(m.Run())
}

// What is not answered is lost, and counted; what was tried in vain before the server was told is not its time.
func TestProbeCounts(t *testing.T) {
	var serial atomic.Uint32
	serial.Store(1)
	began := time.Now()
	seen, err := probe(answer(t, 2, &serial), 2, func() (time.Time, error) {
		time.Sleep(300 * time.Millisecond) // in vain
		told := time.Now()
		serial.Store(2)
		return told, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if lost := seen.Asked - len(seen.Latencies); lost < seen.Asked/4 { // more on a busy machine
		t.Errorf("%d of %d lost, want half at least", lost, seen.Asked)
	}
	if all := time.Since(began); seen.lasted <= 0 || seen.lasted > all-300*time.Millisecond {
		t.Errorf("the reload took %s of %s, with what was tried before", seen.lasted, all)
	}
	var w watched
	w.add(seen)
}

// A neighbour keeps a core busy for as long as it is wanted, and ends.
func TestBeside(t *testing.T) {
	spent := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano())
	}
	before := spent()
	if err := beside(time.Second); err != nil {
		t.Fatal(err)
	}
	if took := spent() - before; took < 20*time.Millisecond { // others may have most of the cores
		t.Errorf("it was busy for %v", took)
	}
}

// A server that answers nothing is an error, no crash.
func TestProbeOfNobody(t *testing.T) {
	var serial atomic.Uint32
	if seen, err := probe(answer(t, 0, &serial), 0, func() (time.Time, error) { return time.Now(), nil }); err == nil {
		t.Errorf("no error: %+v", seen)
	}
}

// A server that begins anew refuses for a while; that is lost, and no end of the measurement.
func TestProbeOfOneThatBeginsAnew(t *testing.T) {
	old, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}) // answers nothing
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(old.LocalAddr().String())
	var serial atomic.Uint32
	serial.Store(2)
	seen, err := probe(addr, 2, func() (time.Time, error) {
		told := time.Now()
		old.Close()
		time.Sleep(50 * time.Millisecond) // refused meanwhile
		answerAt(t, addr, 2, &serial)
		return told, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen.Asked == len(seen.Latencies) || seen.lasted < 50*time.Millisecond {
		t.Errorf("%d of %d answered, after %v", len(seen.Latencies), seen.Asked, seen.lasted)
	}
}

// When an answer came is known, however late it is taken.
func TestArrival(t *testing.T) {
	var serial atomic.Uint32
	u, err := dial(answer(t, 2, &serial), &workload{query: func(buf []byte, n uint16, _ *rand.PCG) int {
		return len(question(buf, n, []byte("s00001"), nil))
	}, check: wantAnswer})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(u.fd)
	if err := u.stamp(); err != nil {
		t.Fatal(err)
	}
	// The kernel begins to note when datagrams come a moment after it was asked to, and says of earlier ones that they came when they were taken.
	const tries = 50
	for try := 1; ; try++ {
		if wrong := arrive(t, u); wrong == "" {
			return
		} else if try == tries {
			t.Fatalf("never right in %d tries: %s", tries, wrong)
		}
	}
}

// arrive has one of two queries answered, takes the answer late, and says what is wrong with when it is said to have come, "" if nothing.
func arrive(t *testing.T, u *udp) (wrong string) {
	t.Helper()
	for range 2 {
		if err := u.send(1, func(int) int64 { return realTime() }); err != nil {
			t.Fatal(err)
		}
	}
	fds := []unix.PollFd{{Fd: int32(u.fd), Events: unix.POLLIN}}
	for n, err := 0, unix.EINTR; n != 1; { // interrupted by the scheduler's signal
		if err != unix.EINTR {
			t.Fatalf("no answer: %v", err)
		}
		var failed error
		n, failed = unix.Poll(fds, 20_000)
		err, _ = failed.(unix.Errno)
	}
	there := realTime()
	const late = 50 * time.Millisecond
	time.Sleep(late)
	n, err := u.receive(func(sent int64) {
		if u.arrived < sent || u.arrived > there || realTime()-u.arrived < int64(late) {
			wrong = fmt.Sprintf("sent at %d, there at %d, taken at %d, said to have come at %d", sent, there, realTime(), u.arrived)
		}
	})
	if n != 1 || err != nil {
		t.Fatalf("%d answers: %v", n, err)
	}
	return wrong
}
