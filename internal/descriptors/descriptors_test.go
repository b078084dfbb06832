package descriptors

import "testing"

// TestBounds: forwarding leaves the whole reserve, DNS over TCP half of it, and what the kernel does not say bounds nobody.
func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		all             int
		forwarding, dns Bound
	}{
		{0, 0, 0}, {400, 300, 350}, {1024, 768, 896}, {4096, 3072, 3584}, {1 << 20, 1<<20 - 1024, 1<<20 - 512},
	} {
		if f, d := forwarding(tt.all), dns(tt.all); f != tt.forwarding || d != tt.dns {
			t.Errorf("of %d: forwarding %d and DNS %d, want %d and %d", tt.all, f, d, tt.forwarding, tt.dns)
		}
	}
	b := Bound(300)
	if !b.Room(299) || b.Room(300) || !Bound(0).Room(1<<30) {
		t.Error("a bound is the first number that is refused, 0 refuses none")
	}
	if all := All(); all == 0 || Connections() != all/2 || Forwarding() != forwarding(all) || DNS() != dns(all) {
		t.Errorf("of %d: forwarding %d, DNS %d, its connections %d", all, Forwarding(), DNS(), Connections())
	}
}
