package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// window is how many queries are under way at once.
const window = 64

// silence ends the wait for answers that will not come.
const silence = 500 * time.Millisecond

// A workload is one kind of query.
type workload struct {
	name string
	// query writes the nth query into buf and returns its length.
	query func(buf []byte, n int) int
	// check wants something of the first answer, so that an error is not measured.
	check func(answer []byte) error
}

var workloads = []workload{
	{"static", func(buf []byte, n int) int { return question(buf, n, "static", false) }, wantAnswer},
	{"geo + ECS", func(buf []byte, n int) int { return question(buf, n, "www", true) }, wantAnswer},
}

// question writes a query for LABEL.bench.test A with EDNS, and with a random /24
// as client subnet (RFC 7871) if ecs.
func question(buf []byte, n int, label string, ecs bool) int {
	b := append(buf[:0], byte(n>>8), byte(n), 0, 0, 0, 1, 0, 0, 0, 0, 0, 1)
	for _, l := range []string{label, "bench", "test"} {
		b = append(append(b, byte(len(l))), l...)
	}
	b = append(b, 0, 0, 1, 0, 1)
	b = append(b, 0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0) // OPT, 1232 octets
	if !ecs {
		return len(append(b, 0, 0))
	}
	subnet := rand.Uint32()
	b = append(b, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0)
	return len(append(b, byte(subnet>>24)%223+1, byte(subnet>>16), byte(subnet>>8)))
}

func wantAnswer(answer []byte) error {
	if len(answer) < 12 || answer[3]&15 != 0 || binary.BigEndian.Uint16(answer[6:]) == 0 {
		return fmt.Errorf("the answer has no address: %x", answer)
	}
	return nil
}

// load keeps a window of queries under way until count were sent and returns
// how many were answered. It pins this process to the second core.
func (w workload) load(addr netip.AddrPort, count int) (int, error) {
	if err := pinSelf(); err != nil {
		return 0, err
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buf, in := make([]byte, 512), make([]byte, 4096)
	sent, answered := 0, 0
	for answered < count {
		for sent < count && sent-answered < window {
			if _, err := conn.Write(buf[:w.query(buf, sent)]); err != nil {
				return answered, err
			}
			sent++
		}
		conn.SetReadDeadline(time.Now().Add(silence)) // a read that cannot time out fails below
		n, err := conn.Read(in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if sent == count {
				return answered, nil
			}
			count -= sent - answered // those are lost
			sent = answered
			continue
		}
		if err != nil {
			return answered, err
		}
		if answered == 0 {
			if err := w.check(in[:n]); err != nil {
				return 0, err
			}
		}
		answered++
	}
	return answered, nil
}

func pinSelf() error {
	var set unix.CPUSet
	set.Set(1)
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, e := range entries {
		var tid int
		if _, err := fmt.Sscan(e.Name(), &tid); err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}
