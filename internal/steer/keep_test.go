package steer

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/health"
)

func TestMinSites(t *testing.T) {
	min := ReasonMinimum.String()
	unmeasured := map[string]health.Verdict{"web/fra/backend/10.0.2.1:8080": {}, "web/fra/backend/10.0.2.2:8080": {}}
	long := vipsDown(map[string]time.Duration{"iad": time.Hour})
	for _, c := range []struct {
		name     string
		sites    int
		verdicts map[string]health.Verdict
		orders   []string
		want     string
		active   string
	}{
		{"enough", 3, poolDown("fra"), nil, "fra: all backends down", "ams ++ fra -- iad ++ sin ++"},
		{"one short", 4, poolDown("fra"), nil, "fra: " + min, "ams ++ fra ++ iad ++ sin ++"},
		{"more than there are", 9, poolDown("fra"), nil, "fra: " + min, "ams ++ fra ++ iad ++ sin ++"},
		{"by name", 3, poolDown("fra", "iad"), nil, "fra: " + min + " | iad: all backends down", "ams ++ fra ++ iad -- sin ++"},
		{"the VIP before the backends", 3, merge(poolDown("ams"), long), nil, "ams: all backends down | iad: " + min, "ams -- fra ++ iad ++ sin ++"},
		{"the unmeasured before the VIP", 3, merge(unmeasured, long), nil, "fra: " + min + " | iad: VIP unreachable from the other sites", "ams ++ fra ++ iad ++ sin ++"},
		{"dead backends before the drained", 3, poolDown("fra"), []string{"drain site/ams"}, "ams: drained by order | fra: " + min, "ams ++ fra ++ iad ++ sin ++"},
		{"the drained before those down", 3, nil, []string{"down site/ams", "drain site/sin"}, "ams: down by order | sin: " + min, "ams -- fra ++ iad ++ sin ++"},
		{"of the drained those that work", 3, poolDown("ams"), []string{"drain site/ams", "drain site/sin"}, "ams: drained by order | sin: " + min, "ams -- fra ++ iad ++ sin ++"},
		{"all of them", 4, merge(poolDown("fra"), long), []string{"down site/ams", "drain site/sin"}, strings.Join([]string{
			"ams: " + min, "fra: " + ReasonFailOpen.String(), "iad: " + ReasonFailOpen.String(), "sin: " + min,
		}, " | "), "ams ++ fra ++ iad ++ sin ++"},
		{"after fail-open", 3, poolDown("ams", "fra"), []string{"down site/iad", "drain site/sin"}, strings.Join([]string{
			"ams: " + ReasonFailOpen.String(), "fra: " + ReasonFailOpen.String(), "iad: down by order", "sin: " + min,
		}, " | "), "ams ++ fra ++ iad -- sin ++"},
		{
			"a backend that works is enough", 4,
			map[string]health.Verdict{"web/iad/backend/10.0.3.1:8080": down(0), "web/iad/vip/198.51.100.3:8080": down(time.Hour)},
			nil, "iad: " + min, "ams ++ fra ++ iad -+ sin ++",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := everywhere(steps(config.PolicyGeo)...)
			s.MinSites = c.sites
			topology := compile(t, fleet(s), "")
			p := Decide(topology, view(t, topology, c.verdicts), Facts{Now: now, Overrides: ordered(t, c.orders...)}, nil)
			if got := states(p); got != c.want {
				t.Errorf("sites:\n got %s\nwant %s", got, c.want)
			}
			if diff := cmp.Diff(c.active, active(p)); diff != "" {
				t.Errorf("active (-want +got):\n%s", diff)
			}
		})
	}
}

// A site that comes back to make up the minimum is answered with the addresses that are reached.
func TestMinSitesAnswersWhatIsReached(t *testing.T) {
	s := service(steps(config.PolicyGeo), "fra", "iad")
	s.MinSites = 2
	second := netip.MustParseAddr("198.51.100.102")
	s.VIPs[0].Addresses = append(s.VIPs[0].Addresses, second)
	topology := compile(t, fleet(s), "")
	p := Decide(topology, view(t, topology, vipsDown(map[string]time.Duration{"fra": 0})), Facts{Now: now, Overrides: ordered(t, "drain site/fra")}, nil)
	if a := p.Services[0].Sites[0].V4; a.Why != ReasonMinimum || len(a.Addresses) != 1 || a.Addresses[0] != second {
		t.Errorf("%s with %v, want %s with %s", a.Why, a.Addresses, ReasonMinimum, second)
	}
}

// A backend that is used again only because the other family fails open is no
// evidence that its site works.
func TestFailOpenOfOneFamilyIsNoEvidenceForTheOther(t *testing.T) {
	s := service(steps(config.PolicyGeo), "fra", "iad")
	verdicts := map[string]health.Verdict{}
	for i, site := range []string{"fra", "iad"} {
		s.VIPs[i].Addresses = []netip.Addr{vip4(site), vip6(site)}
		verdicts["web/"+site+"/vip/"+netip.AddrPortFrom(vip4(site), 8080).String()] = down(0)
		for n := byte(1); n <= 2; n++ {
			verdicts["web/"+site+"/backend/"+backend(site, n).String()] = health.Verdict{Status: health.StatusUnknown}
		}
	}
	verdicts["web/fra/backend/"+backend("fra", 1).String()] = up()
	topology := compile(t, fleet(s), "")
	p := Decide(topology, view(t, topology, verdicts), Facts{AssumeDown: []string{backend("fra", 1).String()}}, nil)
	for site := range p.Services[0].Sites {
		if a := p.Services[0].Sites[site].V6; len(a.Addresses) == 0 {
			t.Errorf("%s is not answered over IPv6: %s", topology.SiteName(0, site), a.Why)
		}
	}
}
