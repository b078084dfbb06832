package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
)

// TestOverflowBetweenSites: who comes to a site whose backends are gone is served by the other one, whichever of the two it
// is, connections (db) as well as HTTP requests (web); where both have nobody it is told so, and neither hands on what the other has
// handed on. When they come back all is as before.
func TestOverflowBetweenSites(t *testing.T) {
	l := startLabOf(t, "tover", "testdata/overflow.yaml")
	space, err := l.net.client(l.layout.Members[len(l.layout.Members)-1].Own[0])
	if err != nil {
		t.Fatal(err)
	}
	overflowBetween(t, l, space, "db", map[string]string{"fra": "10.94.1.81:5432", "iad": "10.94.2.81:5432"})
	overflowBetween(t, l, space, "web", map[string]string{"fra": "10.94.1.82:80", "iad": "10.94.2.82:80"})
}

func overflowBetween(t *testing.T, l *Lab, space *namespace, service string, vips map[string]string) {
	t.Helper()
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
		resp, err := client.Get("http://" + service + ".lab.test/")
		if err != nil {
			return ""
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return ""
		}
		if self := l.layout.Members[len(l.layout.Members)-1].Own[0]; service == "web" && !strings.Contains(string(body), fmt.Sprintf(", for %s\n", self)) {
			t.Errorf("the backend was told another client than %s: %q", self, body)
		}
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
			t.Fatalf("who comes to %s of %s is served by %q, want %q", service, site, got, want)
		}
	}
	pool := func(node string) admin.PoolStatus {
		t.Helper()
		st, err := admin.NewClient(l.nodes[l.index[node]].socket()).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range st.Forwarding {
			if p.Service == service {
				return p
			}
		}
		t.Fatalf("%s has no pool of %s: %+v", node, service, st.Forwarding)
		return admin.PoolStatus{}
	}
	do := func(site string, up bool) {
		t.Helper()
		if _, err := l.Do(Fault{Kind: FaultBackend, A: service + "@" + site, Up: up}); err != nil {
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
