package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

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

// TestTenThousandServices: a large fleet is accepted. How long that takes is the
// benchmark's matter; what it may allocate is TestAllocations'.
func TestTenThousandServices(t *testing.T) {
	cfg := mustParse(t, "x", fleet(10_000))
	if len(cfg.Services) != 10_000 || len(cfg.Zones[0].Names) != 10_000 {
		t.Errorf("%d services, %d names", len(cfg.Services), len(cfg.Zones[0].Names))
	}
}

// TestAllocations: the cost per service is bounded and does not grow with their
// number. Each service of fleet is about 55 YAML nodes.
func TestAllocations(t *testing.T) {
	perService := func(n int) float64 {
		data := []byte(fleet(n))
		return testing.AllocsPerRun(1, func() {
			if _, err := config.Parse("x", data, sources()); err != nil {
				t.Fatal(err)
			}
		}) / float64(n)
	}
	few, many := perService(200), perService(2000)
	t.Logf("%.0f allocations a service of 200, %.0f of 2000", few, many)
	if few > 700 || many > few*1.2 {
		t.Errorf("%.0f allocations a service of 200, %.0f of 2000; want at most 700, and no growth", few, many)
	}
}

// TestManyMistakes: a fleet in which every name is wrong is refused; the searches
// for near names are bounded.
func TestManyMistakes(t *testing.T) {
	text := strings.ReplaceAll(fleet(2_000), "service: service-", "service: servcie-")
	_, err := config.Parse("x", []byte(text), sources())
	var errs config.Errors
	if !errors.As(err, &errs) || len(errs) != 1001 {
		t.Fatalf("%d errors, want 1001", len(errs))
	}
	hints := 0
	for _, e := range errs {
		if e.Hint != "" {
			hints++
		}
	}
	if hints == 0 || hints > 50 {
		t.Errorf("%d hints, want 1 to 50", hints)
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
