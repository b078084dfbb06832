package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/pharos-lb/pharos/forward/porttest"
	"github.com/pharos-lb/pharos/internal/admin"
)

// An upgradeRig is one node of one site, as real processes, with a web server and an echo server behind it.
type upgradeRig struct {
	t      *testing.T
	dir    string
	binary string // this test binary, by the name that makes it pharos
	socket string
	log    *lockedBuffer

	web, echo                   netip.AddrPort // backends
	http, tcp, dns, bgp, gossip int            // ports of the node
	files                       int            // how many it may have open; 0 = as many as this process
	secureRig
}

// A lockedBuffer takes the logs of several processes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newUpgradeRig(t *testing.T) *upgradeRig {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &upgradeRig{
		t: t, dir: dir, binary: filepath.Join(dir, "pharos"), socket: filepath.Join(dir, "s"), log: &lockedBuffer{},
		http: porttest.Free(t), tcp: porttest.Free(t), dns: porttest.Free(t), bgp: porttest.Free(t), gossip: porttest.Free(t),
	}
	if err := os.Symlink(self, r.binary); err != nil {
		t.Fatal(err)
	}
	r.web, r.echo, r.secureRig = webBackend(t), echoBackend(t), newSecureRig(t)
	r.configure(30)
	return r
}

// webBackend answers "ok" and speaks an echo protocol after an upgrade.
func webBackend(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			io.WriteString(w, "ok")
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		io.Copy(conn, rw)
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echoBackend sends back what comes over TCP, and what comes over UDP.
func echoBackend(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	echoDatagrams(t, addr)
	return addr
}

// configure writes the configuration; ttl tells one from another.
func (r *upgradeRig) configure(ttl int) {
	r.t.Helper()
	text := fmt.Sprintf(`
sites: {fra: {location: FRA, nodes: {n1: 127.0.0.1}}}
cluster: {port: %d, wait: 2s}
services:
  web: {check: {tcp: {}, every: 1s}, backends: {fra: ["%s"]}, vip: {fra: 127.0.0.1}}
  echo: {check: {tcp: {}, every: 1s}, backends: {fra: ["%s"]}, vip: {fra: 127.0.0.3}}
%szones:
  example.test: {names: {www: {service: web, ttl: %ds}}}
dns: {listen: "127.0.0.1:%d"}
listeners:
  - {bind: "127.0.0.1:%d", http: {routes: [{service: web}]}}
  - {bind: "127.0.0.1:%d", tcp: {service: echo}}
%sbgp:
  asn: 64500
  port: %d
  peers: {fra: [{address: 127.0.0.2, asn: 64496, port: %d, multihop: 2}]}
  prefixes: [{prefix: 192.0.2.0/24, requires: [web]}]
`, r.gossip, r.web, r.echo, r.services(), ttl, r.dns, r.http, r.tcp, r.listeners(), r.bgp, r.bgp)
	r.write(text)
}

// executable is this test binary.
func (r *upgradeRig) executable() string {
	file, err := os.Readlink(r.binary)
	if err != nil {
		r.t.Fatal(err)
	}
	return file
}

func (r *upgradeRig) write(text string) {
	r.t.Helper()
	tmp := filepath.Join(r.dir, "p.yaml.new")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(r.dir, "p.yaml")); err != nil {
		r.t.Fatal(err)
	}
}

// start runs the node and waits until it serves. env is added to its environment.
func (r *upgradeRig) start(env ...string) {
	r.t.Helper()
	args := []string{
		r.binary, "run", "--config", filepath.Join(r.dir, "p.yaml"), "--node", "n1",
		"--state-dir", filepath.Join(r.dir, "state"), "--socket", r.socket,
	}
	if r.files > 0 {
		args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, r.files), "sh"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = r.logFile(), r.logFile()
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go cmd.Wait()
	r.t.Cleanup(r.end)
	r.within(30*time.Second, "serving", func() bool { return r.ready() == nil })
}

// logFile is where every process of the node writes to: a file, since it outlives the first of them.
func (r *upgradeRig) logFile() *os.File {
	f, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { f.Close() })
	return f
}

func (r *upgradeRig) logged() string {
	data, _ := os.ReadFile(filepath.Join(r.dir, "log"))
	return string(data)
}

// processes are the pids of the node, by what the kernel says: those whose arguments name its folder.
func (r *upgradeRig) processes() (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if bytes.Contains(line, []byte("\x00run\x00")) && bytes.Contains(line, []byte(r.socket)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (r *upgradeRig) end() {
	for _, pid := range r.processes() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if r.t.Failed() {
		r.t.Logf("log of the node:\n%s", r.logged())
	}
}

func (r *upgradeRig) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	st, err := admin.NewClient(r.socket).Status(ctx)
	if err == nil && st.State != "serving" {
		err = errors.New(st.State)
	}
	return err
}

func (r *upgradeRig) within(limit time.Duration, what string, ok func() bool) {
	r.t.Helper()
	for start := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > limit {
			r.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// upgrade hands over to a new process of the same program.
func (r *upgradeRig) upgrade(request admin.UpgradeRequest) (*admin.UpgradeResult, error) {
	if request.Binary == "" {
		request.Binary = r.binary
	}
	return admin.NewClient(r.socket).Upgrade(context.Background(), request)
}

// A load repeats one kind of work until it is stopped, and counts.
type load struct {
	name string
	did  atomic.Int64
	once func() error

	mu     sync.Mutex
	failed []error
}

func (l *load) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.once(); err != nil {
			l.mu.Lock()
			l.failed = append(l.failed, fmt.Errorf("%s: %w", time.Now().Format("05.000"), err))
			l.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			continue
		}
		l.did.Add(1)
	}
}

// keepAlive asks over one connection for as long as the node allows, and never asks twice.
func (r *upgradeRig) keepAlive() *load {
	return keepAlive("HTTP keep-alive", func() (net.Conn, error) {
		return net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", r.http), 5*time.Second)
	})
}

func keepAlive(name string, dial func() (net.Conn, error)) *load {
	var conn net.Conn
	var in *bufio.Reader
	return &load{name: name, once: func() (err error) {
		if conn == nil {
			if conn, err = dial(); err != nil {
				conn = nil
				return err
			}
			in = bufio.NewReader(conn)
		}
		defer func() {
			if err != nil {
				conn.Close()
				conn = nil
			}
		}()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		if err := wantOK(resp); err != nil {
			return err
		}
		if resp.Close {
			conn.Close()
			conn = nil
		}
		time.Sleep(time.Millisecond)
		return nil
	}}
}

// connections opens one for each of its lines.
func (r *upgradeRig) connections() *load {
	return &load{name: "TCP connections", once: func() error {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", r.tcp), 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		time.Sleep(2 * time.Millisecond)
		return pingPong(conn, "hello\n")
	}}
}

func pingPong(conn net.Conn, text string) error {
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("got %q back, want %q", got, text)
	}
	return nil
}

// held is one connection that goes on and on; begin opens it.
func held(t *testing.T, name string, begin func() (net.Conn, error)) *load {
	t.Helper()
	conn, err := begin()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() { conn.Close() })
	return &load{name: name, once: func() error {
		time.Sleep(5 * time.Millisecond)
		return pingPong(conn, "still here\n")
	}}
}

func (r *upgradeRig) webSocket() (net.Conn, error) {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.http))
	if err != nil {
		return nil, err
	}
	return conn, switchProtocols(conn)
}

// switchProtocols makes a connection a WebSocket's.
func switchProtocols(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(resp.Status)
	}
	return nil
}

// queries asks once each and wants an answer to each.
func (r *upgradeRig) queries(network string) *load {
	question := dnsmessage.Question{Name: dnsmessage.MustNewName("www.example.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	query, err := (&dnsmessage.Message{Header: dnsmessage.Header{ID: 4711}, Questions: []dnsmessage.Question{question}}).Pack()
	if err != nil {
		r.t.Fatal(err)
	}
	if network == "tcp" {
		query = append([]byte{byte(len(query) >> 8), byte(len(query))}, query...)
	}
	return &load{name: "DNS over " + network, once: func() error {
		time.Sleep(time.Millisecond)
		conn, err := net.Dial(network, fmt.Sprintf("127.0.0.1:%d", r.dns))
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write(query); err != nil {
			return err
		}
		reply := make([]byte, 2048)
		n, err := conn.Read(reply)
		if err != nil {
			return err
		}
		if reply = reply[:n]; network == "tcp" {
			reply = reply[2:]
		}
		var m dnsmessage.Message
		if err := m.Unpack(reply); err != nil {
			return err
		}
		if m.RCode != dnsmessage.RCodeSuccess || len(m.Answers) != 1 || m.ID != 4711 {
			return fmt.Errorf("%s with %d records", m.RCode, len(m.Answers))
		}
		return nil
	}}
}

// bird starts a router that the node peers with, and returns what it has logged so far; nil without BIRD.
func (r *upgradeRig) bird() func() string {
	r.t.Helper()
	program, err := exec.LookPath("bird")
	if err != nil {
		if program = "/usr/sbin/bird"; !exists(program) {
			if os.Getenv("CI") == "true" {
				r.t.Fatal("bird is not installed, and in CI nothing is skipped")
			}
			r.t.Log("bird is not installed (Debian: bird2): no route is watched")
			return nil
		}
	}
	config := filepath.Join(r.dir, "bird.conf")
	text := fmt.Sprintf(`
log stderr all;
router id 127.0.0.2;
protocol device { scan time 60; }
protocol bgp pharos {
	local 127.0.0.2 port %d as 64496; neighbor 127.0.0.1 port %d as 64500; strict bind yes; multihop 2;
	connect delay time 1; error wait time 1, 2; debug { states, routes };
	ipv4 { import all; export none; };
}`, r.bgp, r.bgp)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(program, "-f", "-c", config, "-s", filepath.Join(r.dir, "bird.ctl"), "-P", filepath.Join(r.dir, "bird.pid"))
	cmd.Stderr = r.log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return r.log.String
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// TestUpgradeLosesNothing: connections, requests and queries go on through reloads and upgrades, and the route stays.
// PHAROS_UPGRADE=full plays it for a minute with five upgrades (make upgrade).
func TestUpgradeLosesNothing(t *testing.T) {
	upgrades, pause, least := 2, time.Second, 1
	if os.Getenv("PHAROS_UPGRADE") == "full" {
		upgrades, pause, least = 5, 12*time.Second, 100
	}
	r := newUpgradeRig(t)
	routes := r.bird()
	r.start()
	if routes != nil {
		r.within(30*time.Second, "a route at the router", func() bool { return strings.Contains(routes(), "> added") })
	}
	loads := []*load{
		r.keepAlive(), r.keepAlive(), r.connections(), r.connections(), r.queries("udp"), r.queries("udp"), r.queries("tcp"),
		held(t, "held TCP flow", func() (net.Conn, error) { return net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.tcp)) }),
		held(t, "held WebSocket", r.webSocket),
	}
	loads = append(loads, r.all(t)...)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for _, l := range loads {
		wg.Go(func() { l.run(ctx) })
	}
	var reloads int
	wg.Go(func() {
		for ttl := 31; ctx.Err() == nil; ttl++ {
			time.Sleep(100 * time.Millisecond)
			r.configure(30 + ttl%60)
			if _, err := admin.NewClient(r.socket).Reload(context.Background(), admin.Allowed{}); err == nil {
				reloads++
			} else if !strings.Contains(err.Error(), "draining") && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset") {
				t.Errorf("reload: %v", err)
			}
		}
	})
	for i := range upgrades {
		time.Sleep(pause)
		began := time.Now()
		result, err := r.upgrade(admin.UpgradeRequest{})
		if err != nil {
			t.Fatalf("upgrade %d: %v", i+1, err)
		}
		t.Logf("upgrade %d: process %d after %s", i+1, result.PID, time.Since(began).Round(time.Millisecond))
		r.within(20*time.Second, "the new process serves", func() bool { return r.ready() == nil })
	}
	time.Sleep(pause)
	if r.metric("pharos_udp_offload_available") == "1" {
		r.within(30*time.Second, "the newest process has the kernel carry its session", func() bool { return r.metric("pharos_udp_offloaded_sessions") == "1" })
	} else if os.Getenv("CI") == "true" {
		t.Error("the kernel carries no UDP sessions here, and in CI nothing is skipped")
	}
	if carried, err := strconv.Atoi(r.metric("pharos_udp_carried_sessions_total")); err != nil || carried < 2*upgrades {
		t.Errorf("%d UDP sessions were carried over %d upgrades, want 2 each time: %v", carried, upgrades, err)
	}
	if n := len(r.processes()); n != upgrades+1 && n != 2 {
		t.Logf("%d processes: those that a held connection was opened in, and the newest", n)
	}
	stop()
	wg.Wait()
	for _, l := range loads {
		t.Logf("%-24s %6d", l.name, l.did.Load())
		if len(l.failed) > 0 || l.did.Load() == 0 {
			t.Errorf("%s: %d failures, the first: %v", l.name, len(l.failed), l.failed[:min(3, len(l.failed))])
		}
	}
	if t.Logf("%d reloads", reloads); reloads < least {
		t.Errorf("%d reloads, want %d", reloads, least)
	}
	if routes != nil && (strings.Contains(routes(), "> removed") || strings.Count(routes(), "State changed to up") != 1) {
		t.Errorf("the route or its session did not stay:\n%s", routes())
	}
}
