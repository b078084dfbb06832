package main

import (
	"math/rand/v2"
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
