package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
)

// TestOverflowBetweenSites: who comes to a site whose backends are gone is served by the other one, whichever of the two it
// is; where both have nobody it is told so, and neither hands on what the other has handed on. When they come back all is as before.
func TestOverflowBetweenSites(t *testing.T) {
	l := startLabOf(t, "tover", "testdata/overflow.yaml")
	space, err := l.net.client(l.layout.Members[len(l.layout.Members)-1].Own[0])
	if err != nil {
		t.Fatal(err)
	}
	vips := map[string]string{"fra": "10.94.1.81:5432", "iad": "10.94.2.81:5432"}
	// served says which site's backend answers one who comes to a site, on a connection of its own; "" = none.
	served := func(site string) string {
		client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
				err = space.do(func() (err error) {
					conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", vips[site])
					return err
				})
				return conn, err
			},
		}}
		resp, err := client.Get("http://db.lab.test/")
		if err != nil {
			return ""
		}
		resp.Body.Close()
		return resp.Header.Get("X-Site")
	}
	await := func(site, want string) {
		t.Helper()
		got := "?"
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			if got = served(site); got == want {
				break
			}
		}
		for range 20 { // from then on everybody
			if got == want {
				got = served(site)
			}
		}
		if got != want {
			t.Fatalf("who comes to %s is served by %q, want %q", site, got, want)
		}
	}
	pool := func(node string) admin.PoolStatus {
		t.Helper()
		st, err := admin.NewClient(l.nodes[l.index[node]].socket()).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Forwarding) != 1 {
			t.Fatalf("%s has %d pools", node, len(st.Forwarding))
		}
		return st.Forwarding[0]
	}
	do := func(site string, up bool) {
		t.Helper()
		if _, err := l.Do(Fault{Kind: FaultBackend, A: "db@" + site, Up: up}); err != nil {
			t.Fatal(err)
		}
	}
	await("fra", "fra")
	await("iad", "iad")
	for site, other := range map[string]string{"fra": "iad", "iad": "fra"} {
		do(site, false)
		await(site, other)
		await(other, other)
		p := pool(site + "1")
		if fmt.Sprint(p.Overflow) != "["+other+"]" {
			t.Errorf("%s1 says that it overflows to %v", site, p.Overflow)
		}
		elsewhere := 0
		for _, b := range p.Backends {
			if b.Elsewhere && b.Active {
				elsewhere++
			}
		}
		if elsewhere != 1 {
			t.Errorf("%s1 shows %d VIPs of other sites among its backends, want 1: %+v", site, elsewhere, p.Backends)
		}
		do(site, true)
		await(site, site)
	}
	do("fra", false)
	do("iad", false)
	await("fra", "")
	await("iad", "")
	for _, node := range []string{"fra1", "iad1"} { // nothing goes to and fro between them
		for _, b := range pool(node).Backends {
			if b.Elsewhere && b.Open > 0 {
				t.Errorf("%s has %d connections to %s, though nobody is served", node, b.Open, b.Address)
			}
		}
	}
	do("fra", true)
	await("iad", "fra")
	do("iad", true)
	await("iad", "iad")
}
