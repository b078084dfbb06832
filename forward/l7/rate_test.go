package l7

import (
	"testing"

	"github.com/pharos-lb/pharos/forward"
)

// TestServiceRate: requests beyond what the service takes a second get 503 and reach no backend; the connection goes on, and so do other services.
func TestServiceRate(t *testing.T) {
	routes := []Route{{Path: "/free", Service: "free"}, {Service: "web"}}
	f := start(t, Options{Listeners: []Listener{{Routes: routes}}}, echoHead(t))
	f.pools.mu.Lock()
	web := f.pools.pools[0]
	free := web
	free.Service = "free"
	web.Policy.Limit = forward.Limit{Rate: 1}
	f.pools.pools = []forward.ServicePool{web, free}
	f.pools.version++
	f.pools.mu.Unlock()
	w := dial(t, f.addr)
	refused := 0
	for i := range 200 { // in less than 200 seconds
		w.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		switch a := w.read("GET"); {
		case a.StatusCode == 503 && a.Header.Get("Retry-After") == "1" && i > 0:
			refused++
		case a.StatusCode != 200:
			t.Fatalf("request %d: %d, Retry-After %q", i, a.StatusCode, a.Header.Get("Retry-After"))
		}
		w.send("GET /free HTTP/1.1\r\nHost: a\r\n\r\n")
		if a := w.read("GET"); a.StatusCode != 200 {
			t.Fatalf("another service: got %d", a.StatusCode)
		}
	}
	if got := f.Stats().Refusals["service_rate"]; refused == 0 || got != uint64(refused) {
		t.Errorf("%d refused, %d counted", refused, got)
	}
	var leases uint64
	for _, s := range f.registry.Snapshot() {
		if s.Service == "web" {
			leases += s.Leases
		}
	}
	if leases+uint64(refused) != 200 {
		t.Errorf("%d leases and %d refused, want 200 in all", leases, refused)
	}
}
