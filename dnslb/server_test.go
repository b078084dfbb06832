package dnslb

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/dnslb/zone"
	"github.com/pharos-lb/pharos/internal/steer"
)

func TestOptions(t *testing.T) {
	board := new(steer.Board)
	tests := []struct {
		name    string
		options Options
		want    string // in the error
	}{
		{"no board", Options{}, "no board"},
		{"UDP size", Options{Board: board, Tunables: Tunables{UDPSize: 100}}, "udp size 100"},
		{"TCP max", Options{Board: board, Tunables: Tunables{TCPMax: -1}}, "tcp max -1"},
		{"TCP idle", Options{Board: board, Tunables: Tunables{TCPIdle: time.Millisecond}}, "tcp idle 1ms"},
		{"server id", Options{Board: board, Tunables: Tunables{ServerID: strings.Repeat("x", 65)}}, "server id of 65"},
		{"sockets", Options{Board: board, Sockets: 1000}, "1000 sockets"},
		{"same address twice", Options{Board: board, Listen: []netip.AddrPort{loopback, loopback}}, "given twice"},
		{"no address", Options{Board: board}, "nothing to listen on"},
		{"address of another machine", Options{Board: board, Listen: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")}}, "no interface of this machine"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := New(tt.options)
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestBindAllOrNothing: a port that is taken fails New, with its address, and
// leaves nothing bound.
func TestBindAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := taken.Addr().(*net.TCPAddr).AddrPort()
	free := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), busy.Port())
	_, err = New(Options{Board: new(steer.Board), Listen: []netip.AddrPort{free, busy}, Shared: true})
	if err == nil || !strings.Contains(err.Error(), busy.String()+" (tcp)") || !strings.Contains(err.Error(), "another program") {
		t.Errorf("got %v", err)
	}
	for _, network := range []string{"udp", "tcp"} { // without SO_REUSEPORT: only if really free
		if network == "udp" {
			c, err := net.ListenPacket(network, free.String())
			if err != nil {
				t.Errorf("left bound: %v", err)
				continue
			}
			c.Close()
			continue
		}
		l, err := net.Listen(network, free.String())
		if err != nil {
			t.Errorf("left bound: %v", err)
			continue
		}
		l.Close()
	}
}

// TestSharedAddress: several processes may serve one address.
func TestSharedAddress(t *testing.T) {
	first := start(t, Options{})
	udp, _ := first.Addrs()
	second := start(t, Options{Listen: udp, Board: newBoard(t), Shared: true})
	for range 20 {
		ask(t, second, "udp", query("mail.example.com.", "A"))
		ask(t, second, "tcp", query("mail.example.com.", "A"))
	}
}

// TestReplySource: a reply comes from the address that was asked, also where a
// wildcard is bound. A connected socket takes no other.
func TestReplySource(t *testing.T) {
	s := start(t, Options{Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}})
	udp, _ := s.Addrs()
	targets := []string{"127.0.0.1", "127.0.0.2", "127.9.9.9"}
	var udp6 []netip.AddrPort
	if probe, err := net.ListenPacket("udp6", "[::1]:0"); err == nil { // none on a machine without IPv6
		probe.Close()
		udp6, _ = start(t, Options{Listen: []netip.AddrPort{netip.MustParseAddrPort("[::]:0")}}).Addrs()
	}
	ports := map[string]netip.AddrPort{}
	for _, target := range targets {
		ports[target] = netip.AddrPortFrom(netip.MustParseAddr(target), udp[0].Port())
	}
	if len(udp6) > 0 {
		ports["::1"] = netip.AddrPortFrom(netip.IPv6Loopback(), udp6[0].Port())
	}
	for _, target := range ports {
		for _, network := range []string{"udp", "tcp"} {
			client := &dns.Client{Net: network, Timeout: 2 * time.Second}
			if _, _, err := client.Exchange(query("mail.example.com.", "A"), target.String()); err != nil {
				t.Errorf("%s %v: %v", network, target, err)
			}
		}
	}
}

// TestEveryAddress: an address that is not valid means all of both families.
func TestEveryAddress(t *testing.T) {
	got, err := addresses([]netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, 53)})
	want := []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53"), netip.MustParseAddrPort("[::]:53")}
	if err != nil || !cmp.Equal(got, want, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
		t.Errorf("got %v %v", got, err)
	}
}

// TestGarbage: whatever arrives, the next question is answered.
func TestGarbage(t *testing.T) {
	s := start(t, Options{Sockets: 1})
	conn, err := net.Dial("udp", address(s))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	random := rand.New(rand.NewPCG(3, 4))
	valid, _ := query("www.example.com.", "A").Pack()
	for range 2000 {
		msg := make([]byte, random.IntN(80))
		copy(msg, valid)
		for range random.IntN(6) {
			if len(msg) > 0 {
				msg[random.IntN(len(msg))] = byte(random.Uint32())
			}
		}
		if _, err := conn.Write(msg); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{0, 1, 65507} {
		_, _ = conn.Write(make([]byte, size))
	}
	tcp, err := net.Dial("tcp", address(s))
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	_, _ = tcp.Write([]byte{0, 5, 1, 2, 3})
	if got := ask(t, s, "udp", query("mail.example.com.", "A")); len(got.Answer) != 1 {
		t.Errorf("got\n%v", got)
	}
	if got := ask(t, s, "tcp", query("mail.example.com.", "A")); len(got.Answer) != 1 {
		t.Errorf("got\n%v", got)
	}
}

// TestZonesSwap: zones change between one answer and the next, and none is lost.
func TestZonesSwap(t *testing.T) {
	s := start(t, Options{})
	other, err := zone.Parse("example.com.", "mail 60 IN A 192.0.2.26", "other")
	if err != nil {
		t.Fatal(err)
	}
	first := newSet(t)
	for i := range 100 {
		set, want := first, "192.0.2.25"
		if i%2 == 1 {
			set, want = other, "192.0.2.26"
		}
		s.SetZones(set)
		if got := ask(t, s, "udp", query("mail.example.com.", "A")); got.Answer[0].(*dns.A).A.String() != want {
			t.Fatalf("got %v, want %s", got.Answer, want)
		}
	}
	s.SetZones(nil)
	if got := ask(t, s, "udp", query("mail.example.com.", "A")); got.Rcode != dns.RcodeRefused {
		t.Errorf("without zones: %v", got)
	}
}

// TestReload: addresses that stay are never unbound, new ones serve after
// Commit, removed ones are free after it; Discard and errors change nothing.
func TestReload(t *testing.T) {
	keep, remove, add := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("127.0.0.2:0"), netip.MustParseAddrPort("127.0.0.3:0")
	s := start(t, Options{Listen: []netip.AddrPort{keep, remove}})
	before, _ := s.Addrs()

	if _, err := s.Prepare([]netip.AddrPort{keep, netip.MustParseAddrPort("192.0.2.1:0")}, Tunables{}); err == nil {
		t.Error("Prepare bound an address of another machine")
	}
	if _, err := s.Prepare([]netip.AddrPort{keep}, Tunables{UDPSize: 1}); err == nil {
		t.Error("Prepare took a UDP size of 1")
	}
	dropped, err := s.Prepare([]netip.AddrPort{add}, Tunables{})
	if err != nil {
		t.Fatal(err)
	}
	dropped.Discard()
	dropped.Commit() // does nothing any more
	if now, _ := s.Addrs(); !cmp.Equal(now, before, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
		t.Fatalf("addresses changed without a commit: %v", now)
	}

	// Questions at the address that stays go on all the while.
	ctx, cancel := context.WithCancel(context.Background())
	asked := make(chan int)
	go func() {
		n := 0
		client := &dns.Client{Timeout: 5 * time.Second}
		for ctx.Err() == nil {
			if _, _, err := client.Exchange(query("mail.example.com.", "A"), before[0].String()); err != nil {
				t.Errorf("question lost during the reload: %v", err)
				break
			}
			n++
		}
		asked <- n
	}()
	change, err := s.Prepare([]netip.AddrPort{add, keep}, Tunables{ServerID: "new"})
	if err != nil {
		t.Fatal(err)
	}
	change.SetZones(newSet(t))
	change.Commit()
	after, _ := s.Addrs()
	if len(after) != 2 || after[1] != before[0] || after[0].Addr() != add.Addr() {
		t.Fatalf("listens on %v, was %v", after, before)
	}
	m := query("id.server.", "TXT")
	m.Question[0].Qclass = dns.ClassCHAOS
	if got := ask(t, s, "udp", m); len(got.Answer) != 1 || !strings.Contains(got.Answer[0].String(), "new") {
		t.Errorf("the new address does not answer as configured: %v", got)
	}
	s.stopping.Wait()
	if c, err := net.ListenPacket("udp", before[1].String()); err != nil {
		t.Errorf("the removed address is still bound: %v", err)
	} else {
		c.Close()
	}
	cancel()
	if n := <-asked; n == 0 {
		t.Error("nothing was asked during the reload")
	}
}

// TestEnd: the end of Run leaves nothing bound, and nothing works after it.
func TestEnd(t *testing.T) {
	s, err := New(Options{Listen: []netip.AddrPort{loopback}, Board: new(steer.Board)})
	if err != nil {
		t.Fatal(err)
	}
	udp, tcp := s.Addrs()
	if len(udp) != 1 || len(tcp) != 1 || udp[0] != tcp[0] {
		t.Fatalf("UDP on %v, TCP on %v: want one port for both", udp, tcp)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	conn, err := net.Dial("tcp", tcp[0].String()) // an idle client does not hold up the end
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := s.Run(context.Background()); err != ErrStopped {
		t.Errorf("second Run: %v", err)
	}
	if _, err := s.Prepare([]netip.AddrPort{loopback}, Tunables{}); err != ErrStopped {
		t.Errorf("Prepare: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if c, err := net.ListenPacket("udp", udp[0].String()); err != nil {
		t.Errorf("still bound: %v", err)
	} else {
		c.Close()
	}
	unused, err := New(Options{Listen: []netip.AddrPort{loopback}, Board: new(steer.Board)})
	if err != nil {
		t.Fatal(err)
	}
	if err := unused.Close(); err != nil {
		t.Errorf("Close without Run: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	s := start(t, Options{Registerer: registry})
	ask(t, s, "udp", query("mail.example.com.", "A"))
	ask(t, s, "udp", query("nobody.example.com.", "A"))
	ask(t, s, "udp", query("big.example.com.", "TXT"))
	ask(t, s, "tcp", query("elsewhere.net.", "A"))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += "," + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"pharos_dnslb_queries_total,udp":                  3,
		"pharos_dnslb_queries_total,tcp":                  1,
		"pharos_dnslb_responses_total,noerror":            2,
		"pharos_dnslb_responses_total,nxdomain":           1,
		"pharos_dnslb_responses_total,refused":            1,
		"pharos_dnslb_truncated_total":                    1,
		"pharos_dnslb_dropped_total,malformed":            0,
		"pharos_dnslb_tcp_connections_total,accepted":     1,
		"pharos_dnslb_zones":                              1,
		"pharos_dnslb_steered_names":                      5,
		"pharos_dnslb_tcp_connections_total,refused":      0,
		"pharos_dnslb_responses_total,notimp":             0,
		"pharos_dnslb_dropped_total,source_port":          0,
		"pharos_dnslb_tcp_connections_total,evicted":      0,
		"pharos_dnslb_tcp_connections_total,slow":         0,
		"pharos_dnslb_tcp_connections_total,crowded":      0,
		"pharos_dnslb_tcp_connections_total,descriptors":  0,
		"pharos_dnslb_tcp_connections_total,stalled":      0,
		"pharos_dnslb_tcp_connections_total,idle":         0,
		"pharos_dnslb_tcp_connections_total,malformed":    0,
		"pharos_dnslb_tcp_connections_total,memory":       0,
		"pharos_dnslb_responses_total,servfail":           0,
		"pharos_dnslb_dropped_total,internal":             0,
		"pharos_dnslb_dropped_total,send":                 0,
		"pharos_dnslb_dropped_total,overflow":             0,
		"pharos_dnslb_responses_total,badvers":            0,
		"pharos_dnslb_responses_total,yxdomain":           0,
		"pharos_dnslb_responses_total,formerr":            0,
		"pharos_dnslb_tcp_connections_total,accept_error": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, want)
		}
	}
}

// TestDig asks with the tool that operators use.
func TestDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("dig is missing: install dnsutils")
		}
		t.Skip("dig is missing: install dnsutils")
	}
	s := start(t, Options{Tunables: Tunables{ECS: true}})
	udp, _ := s.Addrs()
	for _, tt := range []struct{ name, args, want string }{
		{"Germany", "www.example.com +subnet=46.4.0.0/24 +short", "198.51.100.8"},
		{"USA", "www.example.com +subnet=8.8.8.0/24 +short", "203.0.113.80"},
		{"Singapore", "www.example.com +subnet=203.116.0.0/24 +short", "192.0.2.80"},
		{"scope shown", "www.example.com +subnet=8.8.8.0/24", "CLIENT-SUBNET: 8.8.8.0/24/"},
		{"subnet 0", "www.example.com +subnet=0", "CLIENT-SUBNET: 0.0.0.0/0/0"},
		{"TCP", "mail.example.com +tcp +short", "192.0.2.25"},
		{"TC falls back to TCP", "big.example.com TXT +short +bufsize=512", "1111"},
		{"no EDNS", "mail.example.com +noedns +short", "192.0.2.25"},
		{"cookie ignored", "mail.example.com +cookie +short", "192.0.2.25"},
		{"keepalive", "mail.example.com +tcp +keepalive", "KEEPALIVE: 10.0 secs"},
		{"transfer", "example.com AXFR", "Transfer failed"},
		{"NXDOMAIN", "nobody.example.com", "status: NXDOMAIN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"@127.0.0.1", "-p", strings.Split(udp[0].String(), ":")[1], "+tries=1", "+time=5"}, strings.Fields(tt.args)...)
			out, err := exec.Command(dig, args...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("dig %s: %v\n%s", tt.args, err, out)
			}
		})
	}
}

// Two processes that answer on one address without knowing would each get a part of the queries.
func TestSecondOwner(t *testing.T) {
	first := start(t, Options{})
	udp, _ := first.Addrs()
	_, err := New(Options{Board: new(steer.Board), Listen: udp})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), udp[0].String()) {
		t.Errorf("got %v, want an error that names %s", err, udp[0])
	}
	second, err := New(Options{Board: new(steer.Board), Listen: udp, Shared: true})
	if err != nil {
		t.Fatalf("shared: %v", err)
	}
	second.Close()
}
