package steer

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// What an operator is shown of orders and safety rules: who, why, until when.
func TestExplainSafetyGolden(t *testing.T) {
	type ago = map[string]time.Duration
	const web, any, api = "web.example.com", "any.example.com", "api.example.com"
	for _, c := range []struct {
		file     string
		name     string
		verdicts map[string]health.Verdict
		orders   []string
		minority bool
	}{
		{"drained", web, nil, []string{"drain site/fra"}, false},
		{"ordered-down", web, nil, []string{"down pool/web/fra", "drain backend/web/ams/10.0.1.1:8080", "down site/mars"}, false},
		{"ordered-up", web, merge(poolDown("fra"), vipsDown(ago{"fra": time.Hour})), []string{"up pool/web/fra"}, false},
		{"service-drained", web, nil, []string{"drain service/web"}, false},
		{"budget", web, vipsDown(ago{"ams": 12 * time.Second, "fra": 12 * time.Second}), nil, false},
		{"mass-failure", api, massDown("ams", "fra"), nil, false},
		{"minimum", web, poolDown("ams", "fra"), nil, false},
		{"minority", web, nil, nil, true},
		{"anycast-drained", any, nil, []string{"drain pool/web/fra"}, false},
		{"anycast-up", any, poolDown("fra"), []string{"up prefix/192.0.2.0/24"}, false},
	} {
		t.Run(c.file, func(t *testing.T) {
			cfg := shop()
			if c.file == "minimum" {
				cfg.Services[2].MinSites = 3
			}
			topology := compile(t, cfg, "fra1")
			v := view(t, topology, c.verdicts)
			if c.minority {
				v.Minority, v.Sites, v.Heard = true, 4, 1
			}
			orders := ordered(t, c.orders...)
			for i := range orders {
				orders[i].Until = now.Add(2 * time.Hour)
			}
			p := Decide(topology, v, Facts{Now: now, Ready: true, Overrides: orders}, nil)
			e, err := Explain(p, Question{Name: c.name, Where: "DE"})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "explain-"+c.file+".txt", []byte(e.Text()))
		})
	}
}

// massDown is every VIP of shop at the sites, down at once.
func massDown(at ...string) map[string]health.Verdict {
	m := make(map[string]health.Verdict)
	for _, site := range at {
		for _, service := range []string{"api", "shared", "web"} {
			m[service+"/"+site+"/vip/"+vip4(site).String()+":8080"] = down(4 * time.Second)
		}
		if site == "fra" {
			m["web/fra/vip/["+vip6(site).String()+"]:8080"] = down(4 * time.Second)
		}
	}
	return m
}

func TestSummarySafetyGolden(t *testing.T) {
	topology := compile(t, shop(), "fra1")
	verdicts := merge(vipsDown(map[string]time.Duration{"ams": 12 * time.Second, "iad": 12 * time.Second}))
	orders := ordered(t, "drain pool/web/fra", "down backend/web/sin/10.0.4.1:8080", "up pool/shared/fra", "drain site/mars")
	p := Decide(topology, view(t, topology, verdicts), Facts{Now: now, Ready: true, Overrides: orders}, nil)
	text, err := json.MarshalIndent(p.Summary(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "summary-safety.json", append(text, '\n'))
}
