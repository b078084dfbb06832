package l7

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"github.com/pharos-lb/pharos/forward/porttest"
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
	// dies ends the newest as a process does that has not taken over yet.
	dies := func() {
		newest := all[len(all)-1]
		newest.front.conn.Close()
		newest.front.forsake()
		all = all[:len(all)-1]
		before := all[len(all)-1]
		t.Setenv("PHAROS_LEFT_"+wordQUIC, "") // the environment of each is its own
		if err := before.takeBack(addr, before.front.conn); err != nil {
			t.Fatal(err)
		}
	}
	two.lend()
	never := next()
	check("a third is about to take over", never, one, two, never)
	dies()
	check("the third has died", two, one, two)
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
	three.lend()
	never = next()
	check("a fourth is about to take over", never, two, three, never)
	three.all[addr.String()].Members[1].PID = gone.Process.Pid // not to be noticed now: the fourth has noticed it
	three.tend(addr, three.front.conn)
	check("another has ended", never, two, three, never)
	three.all[addr.String()].Members[1].PID = os.Getpid()
	dies()
	check("the fourth has died, which had the first one's socket", three, two, three)
	four := next()
	check("four", four, two, three, four)
	two.front.conn.Close()
	five := next()
	check("five", five, three, four, five)
	if n := len(five.all[addr.String()].Members); n != 4 {
		t.Errorf("%d sockets, want 4: that of the process that has ended is used again", n)
	}
}

// TestUpgradeGivenUp3: when the process that was to take over has ended before it did, new connections go to the one that
// serves on, not to where that one had the kernel send them.
func TestUpgradeGivenUp3(t *testing.T) {
	t.Setenv("PHAROS_LEFT_"+wordQUIC, "")
	ca := certtest.New(t)
	release := make(chan struct{})
	backend := webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.(http.Flusher).Flush()
			<-release
		}
		fmt.Fprint(w, "ok")
	})
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(porttest.Free(t)))
	_, leave, _ := process3(t, ca, addr, backend)
	c, _ := client3(t, ca, addr.String())
	slow, err := c.Get("https://a.test/slow") // keeps the first there
	if err != nil {
		t.Fatal(err)
	}
	offer3(t)
	leave(forward.HandedOver{Limit: time.Minute})
	serving, _, _ := process3(t, ca, addr, backend)
	for try := range 2 {
		offer3(t)
		serving.Lend()
		_, end, ended := process3(t, ca, addr, backend)
		end(nil)
		<-ended
		serving.TakeBack()
		for i := range 10 {
			c, _ := client3(t, ca, addr.String())
			res, err := c.Get("https://a.test/")
			if err != nil {
				t.Fatalf("upgrade %d, client %d: %v", try, i, err)
			}
			slurp(t, res, nil)
		}
	}
	if n := serving.Stats().HTTP3; n != 20 {
		t.Errorf("%d connections of 20 came to the process that serves", n)
	}
	close(release)
	if got := slurp(t, slow, nil); got != "ok" {
		t.Errorf("the request that the first process has got %q", got)
	}
}
