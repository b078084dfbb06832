package main

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// The queries that are measured are what they are said to be.
func TestQuestion(t *testing.T) {
	buf, random := make([]byte, 512), rand.NewPCG(1, 2)
	for _, w := range workloads {
		asked := map[string]bool{}
		for n := range 200 {
			var m dns.Msg
			if err := m.Unpack(buf[:w.query(buf, uint16(n), random)]); err != nil {
				t.Fatalf("%s: %v", w.name, err)
			}
			if int(m.Id) != n || len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeA || m.IsEdns0() == nil || !strings.HasSuffix(m.Question[0].Name, ".bench.test.") {
				t.Fatalf("%s: got %v", w.name, &m)
			}
			asked[m.Question[0].Name] = true
			subnets := 0
			for _, o := range m.IsEdns0().Option {
				if s, ok := o.(*dns.EDNS0_SUBNET); ok && s.SourceNetmask == 24 && s.Address.To4()[0] > 0 && s.Address.To4()[0] < 224 {
					subnets++
				}
			}
			if (subnets == 1) != w.steered {
				t.Fatalf("%s: %d client subnets in %v", w.name, subnets, &m)
			}
		}
		if len(asked) < 190 {
			t.Errorf("%s: %d names in 200 queries", w.name, len(asked))
		}
	}
}

func TestWanted(t *testing.T) {
	refused := []byte{0, 1, 0x80, 5, 0, 1, 0, 0, 0, 0, 0, 0}
	empty := []byte{0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	good := []byte{0, 1, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0}
	missing := []byte{0, 1, 0x80, 3, 0, 1, 0, 0, 0, 1, 0, 0}
	if wantAnswer(refused) == nil || wantAnswer(empty) == nil || wantAnswer(nil) == nil || wantAnswer(good) != nil {
		t.Error("an error or an empty answer would be measured")
	}
	if wantNothing(good) == nil || wantNothing(refused) == nil || wantNothing(nil) == nil || wantNothing(missing) != nil {
		t.Error("what is not NXDOMAIN would be measured as if it were")
	}
}

// TestZone: every name that is asked for is in the zone.
func TestZone(t *testing.T) {
	random := rand.NewPCG(3, 4)
	zone, steered := records(), dynamic()
	for range 100 {
		if l := string(named('s', random)); !strings.Contains(zone, "\n"+l+" IN A ") {
			t.Errorf("no %s in the zone", l)
		}
		if l := string(named('g', random)); !strings.Contains(steered, l+" 300 IN DYNA ") {
			t.Errorf("no %s in the zone", l)
		}
	}
}

// TestPipelined: each answer makes room for another question, no more than a pipeline is under way, and all are answered, in
// whatever pieces the answers come.
func TestPipelined(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const queries = 50*connections + 1 // one is too many to share
	asked, most := make(chan int, connections), make(chan int, connections)
	serve := func(conn net.Conn) {
		defer conn.Close()
		in, have, n, deepest := make([]byte, 64<<10), 0, 0, 0
		for {
			got, err := conn.Read(in[have:])
			if have += got; err != nil {
				break
			}
			var out []byte
			waiting := 0
			for have >= 2 && have >= 2+int(in[0])<<8+int(in[1]) {
				size := 2 + int(in[0])<<8 + int(in[1])
				out = append(out, 0, 12, in[2], in[3], 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0)
				have = copy(in, in[size:have])
				waiting++
			}
			n, deepest = n+waiting, max(deepest, waiting)
			for len(out) > 0 { // cut where it falls
				piece := min(len(out), 9)
				conn.Write(out[:piece])
				out = out[piece:]
			}
		}
		asked <- n
		most <- deepest
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	got, err := pipelined(netip.MustParseAddrPort(l.Addr().String()), &workloads[3], queries)
	if err != nil || got.answered != queries-1 || got.asked != got.answered {
		t.Fatalf("%d of %d answered, %v", got.answered, got.asked, err)
	}
	for range connections {
		if n, deepest := <-asked, <-most; n != queries/connections || deepest > pipeline {
			t.Errorf("asked %d, %d at once, want %d and at most %d", n, deepest, queries/connections, pipeline)
		}
	}
}

func TestVersion(t *testing.T) {
	for said, want := range map[string]string{
		"gdnsd version 3.8.1\nUsage: gdnsd": "3.8.1", "Nov 27 20:53:22 PowerDNS Authoritative Server 4.7.3 (C)": "4.7.3",
		"BIND 9.18.49-1~deb12u3-Debian": "9.18.49", "CoreDNS-1.15.0\nlinux/amd64, go1.26.8": "1.15.0", "none": "",
	} {
		if got := numbers.FindString(said); got != want {
			t.Errorf("of %q: %q, want %q", said, got, want)
		}
	}
}

// TestTurned: in as many rounds as there are servers each is first once, and all are there.
func TestTurned(t *testing.T) {
	results := []*result{{peer: &peer{name: "a"}}, {peer: &peer{name: "b"}}, {peer: &peer{name: "c"}}}
	for round, want := range []string{"abc", "bca", "cab", "abc"} {
		got := ""
		for _, r := range turned(results, round) {
			got += r.peer.name
		}
		if got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
	}
}
