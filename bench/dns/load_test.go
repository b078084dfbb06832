package main

import (
	"testing"

	"github.com/miekg/dns"
)

// The queries that are measured are what they are said to be.
func TestQuestion(t *testing.T) {
	buf := make([]byte, 512)
	for _, w := range workloads {
		for n := range 200 {
			var m dns.Msg
			if err := m.Unpack(buf[:w.query(buf, n)]); err != nil {
				t.Fatalf("%s: %v", w.name, err)
			}
			if int(m.Id) != n || len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeA || m.IsEdns0() == nil {
				t.Fatalf("%s: got %v", w.name, &m)
			}
			subnets := 0
			for _, o := range m.IsEdns0().Option {
				if s, ok := o.(*dns.EDNS0_SUBNET); ok && s.SourceNetmask == 24 && s.Address.To4()[0] > 0 && s.Address.To4()[0] < 224 {
					subnets++
				}
			}
			if (subnets == 1) != (w.name == "geo + ECS") {
				t.Fatalf("%s: %d client subnets in %v", w.name, subnets, &m)
			}
		}
	}
}

func TestWantAnswer(t *testing.T) {
	refused := []byte{0, 1, 0x80, 5, 0, 1, 0, 0, 0, 0, 0, 0}
	empty := []byte{0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	good := []byte{0, 1, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0}
	if wantAnswer(refused) == nil || wantAnswer(empty) == nil || wantAnswer(nil) == nil || wantAnswer(good) != nil {
		t.Error("an error or an empty answer would be measured")
	}
}
