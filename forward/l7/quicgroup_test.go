package l7

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A quicProcess is what one process has at an address.
type quicProcess struct {
	*quicGroups
	front front3
}

// TestQUICGroup: every datagram goes to the process whose connection it is for, new ones to the newest, whichever of the
// others have closed their sockets or ended; the socket of one that has ended is used again.
func TestQUICGroup(t *testing.T) {
	t.Setenv("PHAROS_LEFT_"+wordQUIC, "")
	first, err := bindUDP(netip.MustParseAddrPort("127.0.0.1:0"), true)
	if err != nil {
		t.Fatal(err)
	}
	addr := first.LocalAddr().(*net.UDPAddr).AddrPort()
	var all []*quicProcess
	// next is the process after the newest, with copies of its sockets.
	next := func() *quicProcess {
		p := &quicProcess{quicGroups: newQUICGroups(), front: front3{asked: addr, conn: first}}
		if len(all) > 0 {
			before := &all[len(all)-1].front
			raw, err := before.conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			raw.Control(func(fd uintptr) {
				for _, fd := range append([]int{int(fd)}, before.copies...) {
					own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
					if err != nil {
						t.Fatal(err)
					}
					p.front.copies = append(p.front.copies, own)
				}
			})
		}
		use, err := p.join(addr, p.front.copies)
		if err == nil && len(all) > 0 {
			p.front.conn, err = p.front.socket(use, false)
		}
		if err == nil {
			err = p.settle(addr, p.front.conn)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.front.conn.Close(); p.front.forsake() })
		all = append(all, p)
		return p
	}
	client, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	arrives := func(packet []byte, at *quicProcess, what string) {
		t.Helper()
		for range 8 { // what is wrong may be drawn by lot
			if _, err := client.Write(packet); err != nil {
				t.Fatal(err)
			}
			at.front.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := at.front.conn.Read(make([]byte, 100)); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	check := func(when string, newest *quicProcess, there ...*quicProcess) {
		t.Helper()
		arrives(append([]byte{0xc0, 0, 0, 0, 1, 8}, make([]byte, 20)...), newest, when+": a new client")
		for _, p := range there {
			id := binary.BigEndian.AppendUint32(nil, p.epoch)
			arrives(append(append([]byte{0x40}, id...), make([]byte, 20)...), p, when+": a client that is known")
			arrives(append(append([]byte{0xe0, 0, 0, 0, 1, idLength}, id...), make([]byte, 20)...), p, when+": one that shakes hands")
		}
	}
	one := next()
	check("alone", one, one)
	two := next()
	check("two", two, one, two)
	one.front.conn.Close() // it has told its clients to leave, and serves TCP still
	check("one has closed its socket", two, two)
	three := next()
	check("three", three, two, three)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	three.all[addr.String()].Members[0].PID = gone.Process.Pid
	three.tend(addr, three.front.conn)
	check("the first has ended", three, two, three)
	four := next()
	check("four", four, two, three, four)
	two.front.conn.Close()
	five := next()
	check("five", five, three, four, five)
	if n := len(five.all[addr.String()].Members); n != 4 {
		t.Errorf("%d sockets, want 4: that of the process that has ended is used again", n)
	}
}
