package engine

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// lone starts an engine that listens nowhere.
func lone(t *testing.T) *Engine {
	t.Helper()
	pid := os.Getpid()
	e, err := Start(Options{ASN: 64500, RouterID: netip.AddrFrom4([4]byte{127, byte(64 + pid%128), 211, 1})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Stop(patience) })
	return e
}

func (e *Engine) known(t *testing.T) map[string]*api.Peer {
	t.Helper()
	out := map[string]*api.Peer{}
	err := e.server.ListPeer(context.Background(), &api.ListPeerRequest{}, func(p *api.Peer) { out[p.GetConf().GetNeighborAddress()] = p })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var visitors = Range{
	Prefix: netip.MustParsePrefix("127.60.1.0/24"), Local: netip.MustParseAddr("127.60.2.1"), ASN: 64496, Hold: 9 * time.Second, Most: 2,
}

// TestLimitAloneEndsNothing: a range whose limit alone changed goes on; any other change closes it.
func TestLimitAloneEndsNothing(t *testing.T) {
	e := lone(t)
	admit := func(r Range) *hall {
		t.Helper()
		if failed := e.Admit([]Range{r}, nil); len(failed) > 0 {
			t.Fatal(failed)
		}
		return e.halls[r.Prefix]
	}
	r := visitors
	first := admit(r)
	for _, most := range []int{3, 1} {
		r.Most = most
		if h := admit(r); h != first || h.Most != most {
			t.Errorf("a limit of %d closed the range, or is not in force: %+v", most, h)
		}
	}
	r.Most, r.ASN = 2, 64497
	if h := admit(r); h == first {
		t.Error("another AS number changed nothing")
	}
}

// TestBarred: who is to be refused is, before the range opens, and a failure is told.
func TestBarred(t *testing.T) {
	e := lone(t)
	culprit := netip.MustParseAddr("127.60.1.9")
	// It got in, and nobody has seen it yet.
	n := apiPeer(Neighbor{Address: culprit, ASN: 64496, Hold: 9 * time.Second, Passive: true, Local: visitors.Local})
	if err := e.server.AddPeer(t.Context(), &api.AddPeerRequest{Peer: n}); err != nil {
		t.Fatal(err)
	}
	e.journal.started()
	if failed := e.Admit([]Range{visitors}, []netip.Addr{culprit}); len(failed) > 0 {
		t.Fatal(failed)
	}
	if p := e.known(t)[culprit.String()]; p == nil || !p.GetConf().GetAdminDown() || !e.barred[culprit] {
		t.Errorf("it is not refused: %v", p.GetConf())
	}
	// A server that is gone refuses nobody.
	other := netip.MustParseAddr("127.60.1.10")
	if err := e.server.StopBgp(t.Context(), &api.StopBgpRequest{}); err != nil {
		t.Fatal(err)
	}
	if failed := e.Admit([]Range{visitors}, []netip.Addr{culprit, other}); failed[visitors.Prefix] == nil {
		t.Errorf("nobody was told that %s is not refused: %v", other, failed)
	}
	fresh := visitors
	fresh.Prefix = netip.MustParsePrefix("127.60.3.0/24")
	if failed := e.Admit([]Range{fresh}, []netip.Addr{netip.MustParseAddr("127.60.3.9")}); failed[fresh.Prefix] == nil || e.halls[fresh.Prefix] != nil {
		t.Errorf("a range was opened to one that is not refused: %v", failed)
	}
}

// TestRenewalThatFailsIsRetried: a neighbor that GoBGP did not take back is handed to it again.
func TestRenewalThatFailsIsRetried(t *testing.T) {
	e := lone(t)
	n := Neighbor{Address: netip.MustParseAddr("127.60.4.1"), Local: visitors.Local, ASN: 64496, Hold: 9 * time.Second, Passive: true, Restart: time.Minute}
	if err := e.Add(n); err != nil {
		t.Fatal(err)
	}
	// GoBGP takes nobody with both.
	spoilt := n
	spoilt.Multihop, spoilt.TTLSecurity = 2, 1
	p := e.peers[n.Address]
	p.neighbor, p.renew = spoilt, true
	e.redial(time.Now())
	if e.known(t)[n.Address.String()] != nil || e.journal.lastError(n.Address) == "" {
		t.Fatalf("it was taken, which this test is not about: %q", e.journal.lastError(n.Address))
	}
	p.neighbor = n
	e.redial(time.Now())
	if e.known(t)[n.Address.String()] == nil {
		t.Error("the neighbor is lost for good")
	}
	if p.renew {
		t.Error("it is renewed again and again")
	}
}
