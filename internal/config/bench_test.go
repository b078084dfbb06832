package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
)

// fleet writes a configuration of 20 sites and n services with policies, checks,
// backends, VIPs and names.
func fleet(n int) string {
	var b strings.Builder
	b.WriteString("cluster: {secret_file: gossip.key}\nsites:\n")
	for s := range 20 {
		fmt.Fprintf(&b, "  site%d: {location: FRA, nodes: {node%d: 198.51.100.%d}}\n", s, s, s+1)
	}
	b.WriteString("services:\n")
	for i := range n {
		one, two, three := i%20, (i+7)%20, (i+13)%20
		hi, lo := i/250, i%250+1
		fmt.Fprintf(&b, `  service-%d:
    policy: [{geo: {DE: [site%d, site%d], "continent:EU": site%d, default: [site%d]}}, nearest]
    check: {http: {path: /healthz, host: s%d.example.com}, every: 5s, timeout: 1s}
    backends:
      site%d: [10.1.%d.%d:8080, {address: 10.2.%d.%d:8080, weight: 2}]
      site%d: [10.3.%d.%d:8080]
      site%d: [10.4.%d.%d:8080]
    vip: {site%d: 100.%d.%d.%d, site%d: 101.%d.%d.%d, site%d: 102.%d.%d.%d}
`, i, one, two, one, three, i, one, hi, lo, hi, lo, two, hi, lo, three, hi, lo,
			one, 64, hi, lo, two, 64, hi, lo, three, 64, hi, lo)
	}
	b.WriteString("zones:\n  example.com:\n    records: \"@ NS ns\"\n    names:\n")
	for i := range n {
		fmt.Fprintf(&b, "      s%d: {service: service-%d, ttl: 1m}\n", i, i)
	}
	return b.String()
}

// TestTenThousandServices: a large fleet is accepted, in time that no operator
// notices. The bound is loose because other tests share the machine.
func TestTenThousandServices(t *testing.T) {
	text := fleet(10_000)
	start := time.Now()
	cfg := mustParse(t, "x", text)
	took := time.Since(start)
	t.Logf("%d bytes in %v", len(text), took)
	if len(cfg.Services) != 10_000 || len(cfg.Zones[0].Names) != 10_000 {
		t.Errorf("%d services, %d names", len(cfg.Services), len(cfg.Zones[0].Names))
	}
	if took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestManyMistakes: a fleet in which every service has mistakes is refused as
// quickly: the searches for near names are bounded.
func TestManyMistakes(t *testing.T) {
	text := strings.ReplaceAll(fleet(10_000), "service: service-", "service: servcie-")
	start := time.Now()
	if _, err := config.Parse("x", []byte(text), sources()); err == nil {
		t.Error("accepted")
	}
	took := time.Since(start)
	t.Logf("refused in %v", took)
	if took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

func BenchmarkParse10000Services(b *testing.B) {
	data := []byte(fleet(10_000))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := config.Parse("x", data, sources()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSchema(b *testing.B) {
	for b.Loop() {
		if _, err := config.Schema(); err != nil {
			b.Fatal(err)
		}
	}
}
