package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/steer"
)

// A visitor is a client in the lab that resolves a name as a stub behind a resolver does, holds the answer for its
// TTL, and fetches a page each time.
type visitor struct {
	lab  *Lab
	name string // "" = always the address below
	addr netip.Addr
	from netip.Addr
	ttl  time.Duration

	// again: a connection that the routers moved in its middle is tried again, as browsers do with what is safe to repeat.
	again bool

	expires time.Time
	fetched int
	retried int
	failed  []string
}

// resolve asks one name server after the other.
func (v *visitor) resolve(ctx context.Context, now time.Time) error {
	if v.name == "" || now.Before(v.expires) {
		return nil
	}
	for i := range v.lab.nodes {
		conn, err := v.lab.dialDNS(i, v.from)
		if err != nil {
			return err
		}
		if a := ask(ctx, conn, Question{Name: v.name}); a.RCode == "Success" && len(a.Addresses) > 0 {
			v.addr, v.expires = a.Addresses[0], now.Add(v.ttl)
			return nil
		}
	}
	return fmt.Errorf("no name server answers for %s", v.name)
}

// visit fetches pages until ctx ends.
func (v *visitor) visit(ctx context.Context, space *namespace) {
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
			err = space.do(func() (err error) {
				conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(v.addr, 80).String())
				return err
			})
			return conn, err
		},
	}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		err := v.resolve(ctx, now)
		if err == nil {
			if err = fetch(client); err != nil && v.again {
				v.retried++
				err = fetch(client)
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			v.failed = append(v.failed, fmt.Sprintf("%s at %s: %v", now.Format("15:04:05.000"), v.addr, err))
		default:
			v.fetched++
		}
	}
}

// fetch fetches the page once.
func fetch(client *http.Client) error {
	resp, err := client.Get("http://www.lab.test/")
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// TestStopLosesNothing: a node that is told to stop is not missed by anybody who comes by its names or by its
// routes: the names lead elsewhere first, then the routers do.
func TestStopLosesNothing(t *testing.T) {
	const prefix = "198.51.100.0/24"
	l, _ := startRouted(t, "tstop", "testdata/stop.yaml")
	hops(t, l, transitName, prefix, 2)
	hops(t, l, "iad-r1", prefix, 1) // FRR passes a route on before it has written it itself
	american := netip.MustParseAddr("8.8.8.8")
	space, err := l.net.client(american)
	if err != nil {
		t.Fatal(err)
	}
	named := &visitor{lab: l, name: "www.lab.test", from: american, ttl: 3 * time.Second}
	anycast := &visitor{lab: l, addr: netip.MustParseAddr("198.51.100.80"), again: true}
	if err := named.resolve(t.Context(), time.Now()); err != nil || named.addr != netip.MustParseAddr("10.92.2.80") {
		t.Fatalf("an American is led to %s: %v", named.addr, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var visits sync.WaitGroup
	visits.Go(func() { named.visit(ctx, space) })
	visits.Go(func() { anycast.visit(ctx, space) })
	defer visits.Wait()
	defer cancel()

	// Who is asked for the name, and when it was seen to lead elsewhere.
	elsewhere := make(chan time.Time, 1)
	visits.Go(func() {
		for ctx.Err() == nil {
			answers, err := l.Query(ctx, Question{Name: "www.lab.test", From: american, Node: "fra1"})
			if err == nil && len(answers) == 1 && len(answers[0].Sites) == 1 && answers[0].Sites[0] == "fra" {
				elsewhere <- time.Now()
				return
			}
		}
	})
	node := l.nodes[l.index["iad1"]]
	began := time.Now()
	ended := make(chan struct{})
	go func() {
		node.end(syscall.SIGTERM)
		close(ended)
	}()
	hops(t, l, "iad-r1", prefix, 0)
	withdrawn := l.routes.now("iad-r1", netip.MustParsePrefix(prefix)).Since
	var moved time.Time
	select {
	case moved = <-elsewhere:
	default:
		t.Fatal("the route went before the names led elsewhere")
	}
	if least := 3 * time.Second; withdrawn.Sub(moved) < least {
		t.Errorf("names led elsewhere after %s, the route went after %s: want %s between", moved.Sub(began), withdrawn.Sub(began), least)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the node did not stop")
	}
	took := time.Since(began)
	time.Sleep(2 * time.Second) // those who come after it has gone
	cancel()
	visits.Wait()
	t.Logf("names elsewhere after %s, route gone after %s, ended after %s; %d pages by name, %d by anycast (%d tried again)",
		moved.Sub(began).Round(time.Millisecond), withdrawn.Sub(began).Round(time.Millisecond), took.Round(time.Millisecond), named.fetched, anycast.fetched, anycast.retried)
	if len(named.failed)+len(anycast.failed) > 0 {
		t.Errorf("%d failures by name: %v; %d by anycast: %v", len(named.failed), named.failed, len(anycast.failed), anycast.failed)
	}
	if named.fetched < 100 || anycast.fetched < 100 {
		t.Errorf("too few pages to tell: %d by name, %d by anycast", named.fetched, anycast.fetched)
	}
	if limit := 13 * time.Second; took > limit {
		t.Errorf("the stop took %s, want %s at most", took, limit)
	}
}

// TestDoorsAtTheRouter: a node that does not answer at the VIP any more has its route withdrawn, although its backends
// are well, and names lead elsewhere; when it answers again the route is back, then the names.
func TestDoorsAtTheRouter(t *testing.T) {
	const prefix, vip = "198.51.100.0/24", "198.51.100.80/32"
	l, _ := startRouted(t, "tdoor", "testdata/stop.yaml")
	american := netip.MustParseAddr("8.8.8.8")
	leads := func(site string) {
		t.Helper()
		var last Answer
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			answers, err := l.Query(t.Context(), Question{Name: "www.lab.test", From: american, Node: "fra1"})
			if err != nil {
				t.Fatal(err)
			}
			if last = answers[0]; len(last.Sites) == 1 && last.Sites[0] == site {
				return
			}
		}
		t.Fatalf("an American is led to %v, want %s", last.Sites, site)
	}
	address := func(verb string) {
		t.Helper()
		out, err := exec.Command("ip", "-n", l.layout.Namespace("iad1"), "address", verb, vip, "dev", uplink).CombinedOutput()
		if err != nil {
			t.Fatalf("ip address %s: %v: %s", verb, err, out)
		}
	}
	hops(t, l, "iad-r1", prefix, 1)
	leads("iad")
	began := time.Now()
	address("del")
	hops(t, l, "iad-r1", prefix, 0)
	t.Logf("withdrawn after %s", time.Since(began).Round(time.Millisecond))
	leads("fra")
	st, err := admin.NewClient(l.nodes[l.index["iad1"]].socket()).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := st.Routes[0]; r.Why != steer.ReasonVIPMissing || r.Lacks != "VIP 198.51.100.80" {
		t.Errorf("not announced for %q, lacks %q", r.Why, r.Lacks)
	}
	began = time.Now()
	address("add")
	hops(t, l, "iad-r1", prefix, 1)
	t.Logf("announced again after %s", time.Since(began).Round(time.Millisecond))
	leads("iad")
}
