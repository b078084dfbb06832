package node

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestRates: what may begin in a second, of the node, of a service and of a client, reaches the engines, and what is refused the metrics, by
// whose rate it was; so does what a reload makes of it.
func TestRates(t *testing.T) {
	t.Parallel()
	const network = "127.9.94."
	base := at(network, strings.ReplaceAll(oneSite, "WAIT", "300ms")) + `
  - {bind: "` + network + `1:9101", udp: {service: web}}
  - {bind: "` + network + `1:9102", udp: {service: spare, limits: {client_rate: 1}}}
  - {bind: "` + network + `1:9103", udp: {service: spare}}
  - {bind: "` + network + `1:9104", tcp: {service: web}}
limits: {session_rate: 4}
`
	base = edit(t, base, "services:\n  web:\n", "services:\n  spare: {check: {icmp: {}}, backends: {a: [\""+network+"11:9000\"]}}\n  web:\n    limit: {rate: 1}\n")
	newBackend(t, network+"11:9000", "one", released())
	newBackend(t, network+"12:9000", "two", released())
	r := startServing(t, base)
	// datagrams begins as many sessions at a port.
	datagrams := func(port, n int) {
		for range n {
			c, err := net.Dial("udp", fmt.Sprintf("%s1:%d", network, port))
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte("x"))
			c.Close()
		}
	}
	dropped := func(engine, what, reason string) (n int) {
		line := fmt.Sprintf("pharos_%s_dropped_%s_total{reason=%q} ", engine, what, reason)
		_, rest, ok := strings.Cut(scrape(t, r), line)
		if _, err := fmt.Sscan(rest, &n); !ok || err != nil {
			t.Fatalf("no %s in the metrics: %v", line, err)
		}
		return n
	}
	const tries = 100 // in less than 20 seconds
	for _, tt := range []struct {
		port   int
		reason string
	}{{9101, "service_rate"}, {9102, "client_rate"}, {9103, "node_rate"}} {
		before := dropped("udp", "datagrams", tt.reason)
		datagrams(tt.port, tries)
		eventually(t, tt.reason, func() bool { return dropped("udp", "datagrams", tt.reason) > before })
	}
	connect := func() {
		for range tries {
			if c, err := net.Dial("tcp", network+"1:9104"); err == nil {
				c.Close()
			}
		}
	}
	connect()
	eventually(t, "connections of the service are refused", func() bool { return dropped("l4", "connections", "service_rate") > 0 })
	if text := scrape(t, r); !strings.Contains(text, `pharos_forward_limited_total{reason="rate",service="web"}`) ||
		strings.Contains(text, `pharos_forward_limited_total{reason="rate",service="web"} 0`) {
		t.Error("the service's own count is missing")
	}
	if _, err := r.reload(t, edit(t, base, "limit: {rate: 1}", "limit: {rate: 1000000}"), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the looser rate counts", func() bool {
		for range 1000 {
			if !r.backends.Load().Admit("web") {
				return false
			}
		}
		return true
	})
}
