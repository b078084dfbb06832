package node

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/internal/admin"
)

// TestZones: work stays in the node's availability zone, goes to the rest of the site as far as the zone is short of backends, and
// status, explain and the metrics say so.
func TestZones(t *testing.T) {
	t.Parallel()
	const network = "127.9.74."
	near := newBackend(t, network+"11:9000", "near", released())
	newBackend(t, network+"12:9000", "far", released())
	config := replaceOnce(t, at(network, oneSite), `nodes: {a1: `+network+`1}`, `nodes: {a1: {address: `+network+`1, zone: eu-1a}}`)
	config = replaceOnce(t, config, `["`+network+`11:9000", "`+network+`12:9000"]`,
		`[{address: "`+network+`11:9000", zone: eu-1a}, {address: "`+network+`12:9000", zone: eu-1b}]`)
	r := startServing(t, replaceOnce(t, config, "WAIT", "3s"))
	says := func(want string) bool {
		st, err := r.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range st.Forwarding {
			if p.Service == "web" {
				return p.Zones == want
			}
		}
		return false
	}
	ask := func() map[string]int {
		got := make(map[string]int)
		for range 200 {
			answer, err := http.Get("http://" + network + "80:8080/")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Fatal(answer.Status, err)
			}
			got[string(body)]++
		}
		return got
	}
	// The only node of the site: half of the capacity is for all of its work.
	eventually(t, "half stays", func() bool { return says("zone eu-1a: 50 % stays, the rest to eu-1b") })
	if got := ask(); got["near"] < 50 || got["far"] < 50 {
		t.Errorf("got %v, want about half each", got)
	}
	e, err := r.client.Explain(t.Context(), admin.ExplainRequest{Name: "www.t.test", From: netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	if detail := e.Sites[0].Detail; !strings.Contains(detail, "zone eu-1a: 50 % stays, the rest to eu-1b") {
		t.Errorf("explain says %q", detail)
	}
	if text := scrape(t, r); !strings.Contains(text, `pharos_forward_zone_leases_total{service="web",zone="other"} `) {
		t.Errorf("no metric of what has left the zone:\n%s", text)
	}
	near.healthy.Store(false)
	eventually(t, "nothing stays", func() bool { return says("zone eu-1a: 0 % stays, the rest to eu-1b") })
	if got := ask(); got["near"] != 0 {
		t.Errorf("got %v, near is down", got)
	}
}
