package udp

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// TestLaneRouted: client and backend are other machines. The kernel sends on what fits, without being a router; sockets carry what
// does not.
func TestLaneRouted(t *testing.T) {
	if !alone(t) {
		return
	}
	for _, knob := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		must(t, os.WriteFile("/proc/sys/net/"+knob, []byte("0"), 0o644))
	}
	up(t, "lo", []string{"192.0.2.1/32", "2001:db8::1/128"}) // RFC 5737, RFC 3849
	clients := connect(t, cable{name: "clients", here: []string{"10.1.0.1/24", "fd01::1/64"}, there: []string{"10.1.0.2/24", "fd01::2/64"}})
	backends := connect(t, cable{name: "backends", here: []string{"10.2.0.1/24", "fd02::1/64"}, there: []string{"10.2.0.2/24", "fd02::2/64"}})
	setMTU := func() {
		l, err := netlink.LinkByName("eth0")
		must(t, err)
		must(t, netlink.LinkSetMTU(l, 1400))
	}
	backends.do(setMTU)
	l, err := netlink.LinkByName("backends")
	must(t, err)
	must(t, netlink.LinkSetMTU(l, 1400))
	for _, tt := range []struct {
		name, listener, backend, spare string
		sums                           bool // clients and backends sum up whole, and leave nothing to a card
	}{
		{"IPv4", "192.0.2.1:5000", "10.2.0.2:6000", "10.2.0.2:6001", false},
		{"IPv6", "[2001:db8::1]:5000", "[fd02::2]:6000", "[fd02::2]:6001", false},
		{"IPv4, whole checksums", "192.0.2.1:5000", "10.2.0.2:6000", "10.2.0.2:6001", true},
		{"IPv6, whole checksums", "[2001:db8::1]:5000", "[fd02::2]:6000", "[fd02::2]:6001", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.sums {
				clients.do(func() { wholeChecksums(t, "eth0") })
				backends.do(func() { wholeChecksums(t, "eth0") })
			}
			var a, b netip.AddrPort
			var stop func()
			var c *net.UDPConn
			backends.do(func() { a, stop = backendAt(t, "a", tt.backend) })
			backends.do(func() { b, _ = backendAt(t, "b", tt.spare) })
			f := start(t, lane(tt.listener), a)
			need(t, f)
			clients.do(func() { c = dial(t, f.addr) })
			said := enterLane(t, f, c)
			for _, text := range []string{"", "x", strings.Repeat("long ", 250)} {
				if got := askByKernel(t, f, c, "|"+text, true); got != said+"|"+text {
					t.Errorf("got %.60q, want %q and the text", got, said)
				}
			}
			if !tt.sums { // which GSO does not go with
				askSegments(t, f, c)
			}
			longer := strings.Repeat("longer", 240) // than the link, in both directions
			if got := askByKernel(t, f, c, "|"+longer, false); got != said+"|"+longer {
				t.Errorf("got %.60q, want %q and the text", got, said)
			}
			askByKernel(t, f, c, "|x", true)

			f.pools.publish(b, a)
			stop()
			_, err := c.Write([]byte("lost"))
			must(t, err)
			until(t, "the session has ended", func() bool { st := f.Stats(); return st.Refused == 1 && st.Active == 0 && st.Lane.Active == 0 })
			if said := enterLane(t, f, c); !strings.HasPrefix(said, "b") {
				t.Errorf("then %s", said)
			}
			askByKernel(t, f, c, "|x", true)
		})
	}
}

// wholeChecksums has an interface of these namespaces leave no checksum to the other end (ethtool -K tx off).
func wholeChecksums(t *testing.T, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	value := struct{ command, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatal(errno)
	}
}

// TestLaneFollowsRoutes: interfaces that come later are seen too, and a session whose way changes goes the new one.
func TestLaneFollowsRoutes(t *testing.T) {
	if !alone(t) {
		return
	}
	up(t, "lo", []string{"192.0.2.1/32"})
	backends := connect(t, cable{name: "backends", here: []string{"10.2.0.1/24"}, there: []string{"10.2.0.2/24"}})
	var b netip.AddrPort
	backends.do(func() { b, _ = backendAt(t, "a", "10.2.0.2:6000") })
	f := start(t, lane("192.0.2.1:5000"), b)
	need(t, f)
	clients := connect(t, cable{name: "clients", here: []string{"10.1.0.1/24"}, there: []string{"10.1.0.2/24"}})
	var c *net.UDPConn
	clients.do(func() { c = dial(t, f.addr) })
	said, _, _ := strings.Cut(ask(t, c, "|"), "|")
	byKernel := func() bool {
		before := f.Stats().Lane
		got := askAgain(t, c, "|x")
		after := f.Stats().Lane
		if got != said+"|x" {
			t.Fatalf("got %q, want %q", got, said)
		}
		return after.Asked > before.Asked && after.Answered > before.Answered
	}
	until(t, "the kernel carries it", byKernel)

	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "detour"}, PeerName: "eth1", PeerNamespace: netlink.NsFd(int(backends.ns)),
	}))
	up(t, "detour", []string{"10.3.0.1/24"})
	backends.do(func() {
		up(t, "eth1", []string{"10.3.0.2/24"})
		eth0, err := netlink.LinkByName("eth0")
		must(t, err)
		address, err := netlink.ParseAddr("10.2.0.2/32")
		must(t, err)
		must(t, netlink.LinkDel(eth0))
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.AddrAdd(lo, address))
		eth1, err := netlink.LinkByName("eth1")
		must(t, err)
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth1.Attrs().Index, Gw: netip.MustParseAddr("10.3.0.1").AsSlice()}))
	})
	detour, err := netlink.LinkByName("detour")
	must(t, err)
	up(t, "lo", []string{"10.2.0.1/32"}) // where the session's port is; it went with the interface
	_, dst, err := net.ParseCIDR("10.2.0.2/32")
	must(t, err)
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: detour.Attrs().Index, Dst: dst, Gw: netip.MustParseAddr("10.3.0.2").AsSlice()}))
	until(t, "the kernel carries it on the detour", byKernel)
	if st := f.Stats(); st.Sessions != 1 || st.Lane.Emptied == 0 {
		t.Errorf("%+v", st)
	}
}

// askAgain asks until there is an answer: what is under way while routes change may be lost.
func askAgain(t *testing.T, c *net.UDPConn, text string) string {
	t.Helper()
	defer c.SetDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 1000)
	for range 100 {
		if _, err := c.Write([]byte(text)); err != nil {
			continue // tells of an earlier one
		}
		must(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		if n, err := c.Read(buf); err == nil {
			return string(buf[:n])
		}
	}
	t.Fatal("no answer")
	return ""
}

// TestLaneKilled: a process that is killed leaves no program behind, and its successor's sockets get everything.
func TestLaneKilled(t *testing.T) {
	const word = "PHAROS_TEST_VICTIM"
	if os.Getenv(word) != "" {
		f := start(t, lane("127.0.0.2:5000"), netip.MustParseAddrPort("127.0.0.3:6000"))
		fmt.Println("open:", f.Stats().LaneOpen)
		_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed
		return
	}
	if !alone(t) {
		return
	}
	b, _ := backendAt(t, "a", "127.0.0.3:6000")
	victim := exec.Command(os.Args[0], "-test.run=^TestLaneKilled$")
	victim.Env = append(os.Environ(), word+"=1")
	victim.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := victim.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := victim.StdoutPipe()
	must(t, err)
	must(t, victim.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "open: true\n" {
		_ = victim.Process.Kill()
		_ = victim.Wait()
		missing(t, fmt.Sprintf("the kernel carries no sessions here: %q, %v", line, err))
	}
	c := dial(t, netip.MustParseAddrPort("127.0.0.2:5000"))
	for range 5 {
		ask(t, c, "|x")
	}
	if n := attached(t, 1); n != 1 {
		t.Errorf("%d programs while it runs", n)
	}
	must(t, victim.Process.Kill())
	_ = victim.Wait()
	until(t, "the program has gone", func() bool { return attached(t, 1) == 0 })
	f := start(t, lane("127.0.0.2:5000"), b)
	askAgain(t, c, "|x")
	enterLane(t, f, dial(t, f.addr))
}

// TestLaneRights: without the rights sockets carry everything, and it is said once; two capabilities are enough.
func TestLaneRights(t *testing.T) {
	if !alone(t) {
		return
	}
	b, _ := backendAt(t, "a", "127.0.0.3:6000")
	var log bytes.Buffer
	try := func() *fixture {
		return startWith(t, Options{Listeners: []Listener{lane("127.0.0.2:5000")}, Log: slog.New(slog.NewTextHandler(&log, nil))}, b)
	}
	have := cap.NewSet()
	must(t, have.SetFlag(cap.Permitted, true, cap.BPF, cap.NET_ADMIN))
	must(t, have.SetFlag(cap.Effective, true, cap.BPF, cap.NET_ADMIN))
	must(t, have.SetProc())
	f := try()
	need(t, f)
	c := dial(t, f.addr)
	enterLane(t, f, c)
	askByKernel(t, f, c, "|x", true)
	f.stop()
	if log.Len() != 0 {
		t.Errorf("said: %s", &log)
	}

	must(t, cap.NewSet().SetProc())
	f = try()
	c = dial(t, f.addr)
	for range 20 {
		ask(t, c, "|x")
	}
	if st := f.Stats(); st.LaneOpen || !st.LaneWanted || st.Received != 20 || st.Answered != 20 {
		t.Errorf("got %+v", st)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "CAP_BPF") {
		t.Errorf("said %d times: %s", n, &log)
	}
}
