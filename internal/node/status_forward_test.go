package node

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/pharos-lb/pharos/internal/admin"
)

// Status says how much of its weight a backend that takes less than it could has.
func TestStatusSaysTheEffectiveWeight(t *testing.T) {
	t.Parallel()
	const network = "127.9.73."
	newBackend(t, network+"11:9000", "one", released())
	l, err := net.Listen("tcp", network+"12:9000")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Free", "25")
		fmt.Fprint(w, "two")
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	config := replaceOnce(t, at(network, oneSite), "path: /healthz}, every: 200ms, timeout: 200ms,", "path: /healthz}, weight: {header: X-Free}, every: 200ms, timeout: 200ms,")
	config = replaceOnce(t, config, `["`+network+`11:9000", "`+network+`12:9000"]`, `["`+network+`11:9000", {address: "`+network+`12:9000", weight: 10}]`)
	r := startServing(t, replaceOnce(t, config, "WAIT", "3s"))
	want := map[string][2]float64{network + "11:9000": {1, 1}, network + "12:9000": {10, 2.5}}
	eventually(t, "web has its weights", func() bool {
		st, err := r.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return sameWeights(st.Forwarding, want)
	})
}

// sameWeights looks at the configured weights of web's backends, and at what counts of them.
func sameWeights(pools []admin.PoolStatus, want map[string][2]float64) bool {
	for _, p := range pools {
		if p.Service != "web" {
			continue
		}
		for _, b := range p.Backends {
			if want[b.Address.String()] != [2]float64{float64(b.Weight), b.EffectiveWeight} {
				return false
			}
		}
		return len(p.Backends) == len(want)
	}
	return false
}
