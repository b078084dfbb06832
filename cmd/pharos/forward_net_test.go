package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/bgp/bed"
)

// A forwardBed is machines: a client and backends behind a router, and two nodes of one site with one VIP.
type forwardBed struct {
	t                              *testing.T
	dir                            string
	client, router, a, b, backends *bed.Namespace
	nodeA, nodeB                   *exec.Cmd
	endA, endB                     chan struct{}
}

const (
	bedVIP      = "10.8.9.80"
	bedBackends = "10.8.3.2"
)

const forwardConfig = `
cluster: {wait: 0s, secret: "${GOSSIP_KEY}"}
sites: {fra: {location: FRA, nodes: {a: {address: 10.8.1.2, zone: east}, b: {address: 10.8.2.2, zone: west}}}}
services:
  words:
    backends: {fra: ["10.8.3.2:9001", "10.8.3.2:9002", "10.8.3.2:9003", "10.8.3.2:9004"]}
    vip: {fra: 10.8.9.80}
    balance: source
    check: {tcp: {}, every: 200ms}
  datagrams: # hashed, so zones do not count: whichever node has them, they go to the same backend
    backends:
      fra:
        - {address: "10.8.3.2:9001", zone: east}
        - {address: "10.8.3.2:9002", zone: east}
        - {address: "10.8.3.2:9003", zone: west}
        - {address: "10.8.3.2:9004", zone: west}
    vip: {fra: 10.8.9.80}
    check: {tcp: {}, every: 200ms, vip_port: 7001}
  iperf:
    backends: {fra: ["10.8.3.2:5201"]}
    vip: {fra: 10.8.9.80}
    check: {tcp: {}, every: 1h}
listeners:
  - {bind: "vip:7001", tcp: {service: words, idle: 2s}}
  - {bind: "vip:7002", udp: {service: datagrams}}
  - {bind: "vip:7003", tcp: {service: words, transparent: true}}
  - {bind: "vip:7004", tcp: {service: words, keepalive: 1s}}
  - {bind: "vip:7005", tcp: {service: words, user_timeout: 1s}}
  - {bind: "vip:5201", tcp: {service: iperf}}
dns: {listen: "node:5353"}
`

// newForwardBed has the nodes serve, and the router send everything to both.
func newForwardBed(t *testing.T) *forwardBed {
	m := bed.New(t)
	f := &forwardBed{
		t: t, dir: t.TempDir(), client: m.Namespace("client"), router: m.Namespace("router"),
		a: m.Namespace("a"), b: m.Namespace("b"), backends: m.Namespace("backends"),
	}
	m.Link(f.client, "10.8.0.2/24", f.router, "10.8.0.1/24")
	m.Link(f.a, "10.8.1.2/24", f.router, "10.8.1.1/24")
	m.Link(f.b, "10.8.2.2/24", f.router, "10.8.2.1/24")
	m.Link(f.backends, bedBackends+"/24", f.router, "10.8.3.1/24")
	for ns, via := range map[*bed.Namespace]string{f.client: "10.8.0.1", f.a: "10.8.1.1", f.b: "10.8.2.1", f.backends: "10.8.3.1"} {
		ns.Run("ip", "route", "add", "default", "via", via)
	}
	for _, ns := range []*bed.Namespace{f.a, f.b} {
		ns.Run("ip", "addr", "add", bedVIP+"/32", "dev", "lo")
	}
	f.router.Run("sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=1")
	f.route(f.a, f.b)
	for port := 9001; port <= 9004; port++ {
		f.backend(port)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "pharos.yaml"), []byte(forwardConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	f.nodeA, f.endA = f.start(f.a, "a")
	f.nodeB, f.endB = f.start(f.b, "b")
	return f
}

// route has the router send what is for the VIP to these nodes, by hash of addresses and ports.
func (f *forwardBed) route(to ...*bed.Namespace) {
	f.t.Helper()
	args := []string{"ip", "route", "replace", bedVIP}
	for _, ns := range to {
		via := "10.8.1.2"
		if ns == f.b {
			via = "10.8.2.2"
		}
		args = append(args, "nexthop", "via", via)
	}
	f.router.Run(args...)
}

// backend answers each line, and each datagram, with its own port and the address of whoever asks.
func (f *forwardBed) backend(port int) {
	f.t.Helper()
	address := fmt.Sprintf("%s:%d", bedBackends, port)
	f.backends.Do(func() error {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		u, err := net.ListenPacket("udp", address)
		if err != nil {
			l.Close()
			return err
		}
		f.t.Cleanup(func() { l.Close(); u.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
					for lines := bufio.NewScanner(c); lines.Scan(); {
						fmt.Fprintf(c, "%d %s\n", port, host)
					}
				}()
			}
		}()
		go func() {
			buf := make([]byte, 1500)
			for {
				_, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(from.String())
				_, _ = u.WriteTo([]byte(fmt.Sprintf("%d %s", port, host)), from)
			}
		}()
		return nil
	})
}

func (f *forwardBed) start(ns *bed.Namespace, name string) (*exec.Cmd, chan struct{}) {
	f.t.Helper()
	pharos, err := exec.LookPath("pharos")
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := ns.Command(pharos, "run", "--config", filepath.Join(f.dir, "pharos.yaml"), "--node", name,
		"--state-dir", filepath.Join(f.dir, "state-"+name), "--socket", filepath.Join(f.dir, name))
	cmd.Env = nodeEnv()
	log, err := os.Create(filepath.Join(f.dir, "log-"+name))
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		if f.t.Failed() {
			text, _ := os.ReadFile(filepath.Join(f.dir, "log-"+name))
			f.t.Logf("%s: %s", name, text)
		}
	})
	bed.Await(f.t, "node "+name+" to serve", func() bool {
		var c net.Conn
		err := error(nil)
		ns.Do(func() error {
			c, err = net.DialTimeout("tcp", bedVIP+":7001", time.Second)
			return nil
		})
		if err != nil {
			return false
		}
		defer c.Close()
		_, err = askLine(c)
		return err == nil
	})
	return cmd, done
}

// askLine asks a backend over a connection, and returns its port and whom it sees.
func askLine(c net.Conn) (string, error) {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "?\n"); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return strings.TrimSpace(string(buf[:n])), err
}

// dial connects the client.
func (f *forwardBed) dial(network, address string) (c net.Conn, err error) {
	f.client.Do(func() error {
		c, err = net.DialTimeout(network, address, 5*time.Second)
		return nil
	})
	if err == nil {
		f.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// TestReshuffle: whichever node a packet goes to, it reaches the backend that the one before it reached:
// a UDP session of which every datagram takes another way, and a TCP client that connects anew.
func TestReshuffle(t *testing.T) {
	f := newForwardBed(t)
	backends := make(map[string]bool)
	for client := range 12 {
		c, err := f.dial("udp", bedVIP+":7002")
		if err != nil {
			t.Fatal(err)
		}
		first, nodes := "", make(map[string]bool)
		for i := range 6 {
			f.route([]*bed.Namespace{f.a, f.b}[i%2])
			got, err := askLine(c)
			if err != nil {
				t.Fatalf("client %d, datagram %d: %v", client, i, err)
			}
			backend, node, _ := strings.Cut(got, " ")
			nodes[node] = true
			if first == "" {
				first = backend
			}
			if backend != first {
				t.Errorf("client %d: datagram %d reached %s, the first %s", client, i, backend, first)
			}
		}
		backends[first] = true
		if len(nodes) != 2 {
			t.Fatalf("the datagrams all went through %v", nodes)
		}
	}
	if len(backends) < 2 {
		t.Errorf("12 sessions have only seen %v", backends)
	}
	seen, nodes := make(map[string]bool), make(map[string]bool)
	for i := range 8 {
		f.route([]*bed.Namespace{f.a, f.b}[i%2])
		c, err := f.dial("tcp", bedVIP+":7001")
		if err != nil {
			t.Fatal(err)
		}
		got, err := askLine(c)
		if err != nil {
			t.Fatal(err)
		}
		backend, node, _ := strings.Cut(got, " ")
		seen[backend], nodes[node] = true, true
	}
	if len(nodes) != 2 {
		t.Errorf("the connections all went through %v", nodes)
	}
	if len(seen) != 1 {
		t.Errorf("one client's connections reached %v", seen)
	}
	t.Run("one node dies", f.testNodeDies)
}

// testNodeDies: the flows of the other node go on, and those of the dead one connect again.
func (f *forwardBed) testNodeDies(t *testing.T) {
	f.route(f.a, f.b)
	const through = "10.8.2.2" // b, as backends see it
	byNode := make(map[string][]net.Conn)
	for range 40 {
		c, err := f.dial("tcp", bedVIP+":7001")
		if err != nil {
			t.Fatal(err)
		}
		got, err := askLine(c)
		if err != nil {
			t.Fatal(err)
		}
		_, node, _ := strings.Cut(got, " ")
		byNode[node] = append(byNode[node], c)
	}
	if len(byNode) != 2 {
		t.Fatalf("40 connections went through %d nodes", len(byNode))
	}
	if err := f.nodeA.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-f.endA
	f.route(f.b) // what BFD, or the end of the BGP session, does
	for i, c := range byNode[through] {
		if got, err := askLine(c); err != nil || !strings.HasSuffix(got, through) {
			t.Errorf("connection %d of the other node: %q, %v", i, got, err)
		}
	}
	for range byNode["10.8.1.2"] {
		c, err := f.dial("tcp", bedVIP+":7001")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := askLine(c); err != nil || !strings.HasSuffix(got, through) {
			t.Errorf("anew: %q, %v", got, err)
		}
	}
}

// TestTransparent: the backend sees the client's own address.
func TestTransparent(t *testing.T) {
	f := newForwardBed(t)
	f.route(f.a)
	// What the manual says: answers come back through the node, which takes them for its own.
	f.backends.Run("ip", "route", "add", "10.8.0.0/24", "via", "10.8.3.1")
	f.router.Run("ip", "rule", "add", "from", bedBackends, "to", "10.8.0.0/24", "lookup", "100")
	f.router.Run("ip", "route", "add", "default", "via", "10.8.1.2", "table", "100")
	f.a.Run("ip", "rule", "add", "fwmark", "1", "lookup", "100")
	f.a.Run("ip", "route", "add", "local", "default", "dev", "lo", "table", "100")
	f.a.Run("nft", "add", "table", "inet", "mangle")
	f.a.Run("nft", "add", "chain", "inet", "mangle", "prerouting", "{ type filter hook prerouting priority mangle; }")
	f.a.Run("nft", "add", "rule", "inet", "mangle", "prerouting", "socket", "transparent", "1", "meta", "mark", "set", "1")
	for range 5 {
		c, err := f.dial("tcp", bedVIP+":7003")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got, err := askLine(c); err != nil || !strings.HasSuffix(got, " 10.8.0.2") {
				t.Fatalf("got %q, %v; want the client's address", got, err)
			}
		}
	}
}

// TestIperf: bulk through a VIP arrives whole, both ways.
func TestIperf(t *testing.T) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("iperf3 is not installed (Debian: iperf3), and in CI nothing is skipped")
		}
		t.Skip("iperf3 is not installed (Debian: iperf3)")
	}
	f := newForwardBed(t)
	f.route(f.a)
	server := f.backends.Command("iperf3", "-s", "-p", "5201")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	for _, way := range []string{"", "-R"} {
		var out []byte
		bed.Await(t, "iperf3"+way, func() (ok bool) {
			cmd := f.client.Command(strings.Fields("iperf3 -c " + bedVIP + " -p 5201 -n 200M -P 2 -f m " + way)...)
			var err error
			out, err = cmd.CombinedOutput()
			return err == nil // else its server is not there yet
		})
		if !strings.Contains(string(out), "iperf Done.") {
			t.Errorf("%s", out)
		}
		t.Logf("%s", out)
	}
	if n := f.metric("a", "pharos_l4_up_bytes_total") + f.metric("a", "pharos_l4_down_bytes_total"); n < 300<<20 { // what is under way at the end of a connection is not in it
		t.Errorf("%.0f bytes went through the node", n)
	}
}

// TestFlood: a flood of SYNs from addresses that never answer leaves others served and takes no memory, and
// peers that vanish without a word are given up.
func TestFlood(t *testing.T) {
	f := newForwardBed(t)
	f.route(f.a)
	pid := f.nodeA.Process.Pid
	before, came := residentOf(t, pid), f.received("a")
	const flood = 30_000
	var wg sync.WaitGroup
	wg.Go(func() {
		f.client.Do(func() error { return sendSYNs(netip.MustParseAddrPort(bedVIP+":7001"), flood) })
	})
	for i := range 50 {
		c, err := f.dial("tcp", bedVIP+":7001")
		if err != nil {
			t.Errorf("connection %d in the flood: %v", i, err)
			continue
		}
		if _, err := askLine(c); err != nil {
			t.Errorf("connection %d in the flood: %v", i, err)
		}
		c.Close()
	}
	wg.Wait()
	if n := f.received("a") - came; n < flood/2 { // a queue on the way may be too short for all
		t.Errorf("%d packets came, of %d SYNs: that was no flood", n, flood)
	}
	if grown := residentOf(t, pid) - before; grown > 16<<20 {
		t.Errorf("%d SYNs: %d MB more", flood, grown>>20)
	}
	for range 300 {
		c, err := f.dial("tcp", bedVIP+":7001")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := askLine(c); err != nil {
			t.Fatal(err)
		}
	}
	const idle = `pharos_l4_dropped_connections_total{reason="idle"}`
	// The first may have been silent for too long already.
	if n := f.metric("a", "pharos_l4_active_connections") + f.metric("a", idle); n < 300 {
		t.Fatalf("%v connections are open, or were", n)
	}
	asked := make(map[string]net.Conn)
	for _, port := range []string{"7004", "7005"} {
		c, err := f.dial("tcp", bedVIP+":"+port)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := askLine(c); err != nil {
			t.Fatal(err)
		}
		asked[port] = c
	}
	defer f.a.Drop("ip saddr " + bedBackends)() // so are the backends
	if _, err := io.WriteString(asked["7005"], "?\n"); err != nil {
		t.Fatal(err)
	}
	bed.Await(t, "a backend that acknowledges nothing to be given up", func() bool {
		return f.metric("a", `pharos_l4_dropped_connections_total{reason="backend_lost"}`) == 1
	})
	undo := f.a.Drop("ip saddr 10.8.0.2") // the client is gone, and says nothing
	defer undo()
	bed.Await(t, "a client that answers no keep-alive to be given up", func() bool {
		return f.metric("a", `pharos_l4_dropped_connections_total{reason="client_lost"}`) == 1
	})
	bed.Await(t, "half-open connections to end", func() bool { return f.metric("a", "pharos_l4_active_connections") == 0 })
	if n := f.metric("a", idle); n < 300 {
		t.Errorf("%v ended for their silence, want 300", n)
	}
}

// received is how many packets a node has received, on whatever interface.
func (f *forwardBed) received(name string) (packets int) {
	f.t.Helper()
	ns := map[string]*bed.Namespace{"a": f.a, "b": f.b}[name]
	text, err := ns.Command("cat", "/proc/net/dev").Output()
	if err != nil {
		f.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, figures, ok := strings.Cut(line, ":"); ok {
			n, err := strconv.Atoi(strings.Fields(figures)[1])
			if err != nil {
				f.t.Fatal(err)
			}
			packets += n
		}
	}
	return packets
}

// metric reads one of a node's metrics.
func (f *forwardBed) metric(name, metric string) float64 {
	f.t.Helper()
	socket := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(f.dir, name))
	}}
	defer socket.CloseIdleConnections()
	resp, err := (&http.Client{Transport: socket, Timeout: 10 * time.Second}).Get("http://pharos/metrics")
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), metric+" "); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				f.t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// residentOf is how much memory a process holds.
func residentOf(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// sendSYNs sends n SYNs, each from another address of 10.77.0.0/16, which nobody has.
func sendSYNs(to netip.AddrPort, n int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	dst := to.Addr().As4()
	var packet [40]byte
	ip, tcp := packet[:20], packet[20:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[2:], uint16(len(packet)))
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	tcp[12], tcp[13] = 5<<4, 0x02
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	for i := range n {
		copy(ip[12:], []byte{10, 77, byte(i >> 8), byte(i)})
		binary.BigEndian.PutUint16(tcp[0:], uint16(1024+i%60000))
		binary.BigEndian.PutUint32(tcp[4:], uint32(i)*2654435761)
		tcp[16], tcp[17] = 0, 0
		sum := uint32(unix.IPPROTO_TCP + len(tcp))
		for _, part := range [][]byte{ip[12:20], tcp} {
			for k := 0; k < len(part); k += 2 {
				sum += uint32(binary.BigEndian.Uint16(part[k:]))
			}
		}
		for sum>>16 != 0 {
			sum = sum&0xffff + sum>>16
		}
		binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
		if err := unix.Sendto(fd, packet[:], 0, &unix.SockaddrInet4{Addr: dst}); err != nil && err != unix.ENOBUFS {
			return err
		}
	}
	return nil
}
