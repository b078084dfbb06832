package config_test

import (
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/internal/config"
)

// zoneFleet is the least that a zone with a steered name needs above it.
const zoneFleet = `sites: {fra: {location: FRA, nodes: {fra1: 127.0.0.1}}}
services: {web: {backends: {fra: [10.0.0.1:80]}, vip: {fra: 127.0.1.1}}}
`

// TestZoneWithoutRecords: steered names are enough for a zone, since what else a
// zone cannot do without is made up; a zone with nothing at all is a mistake.
func TestZoneWithoutRecords(t *testing.T) {
	const names = "names: {www: {service: web}}"
	for _, c := range []struct{ zone, want string }{
		{"{" + names + "}", ""},
		{"{file: blank.zone, " + names + "}", ""},
		{`{records: " ", ` + names + "}", ""},
		{"{records: |\n\n    , " + names + "}", "not YAML"},
		{"{}", "zones.example.com: has no records and no names: write file or records, names, or both"},
		{"{names: {}}", "zones.example.com: has no records and no names"},
		{"{file: blank.zone}", "zones.example.com.file: blank.zone is empty: write records into it, or add names"},
		{`{records: ""}`, "zones.example.com.records: is empty: write records, or add names"},
		{"{records: x, file: example.com.zone, " + names + "}", "write only one of file or records"},
		{"{file: missing.zone}", "cannot read missing.zone"},
		{"{nmaes: {www: {service: web}}}", `unknown key (did you mean "names"?)`},
	} {
		cfg, err := config.Parse("x", []byte(zoneFleet+"zones: {example.com: "+c.zone+"}"), sources())
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.zone, err)
		case c.want == "" && (strings.TrimSpace(cfg.Zones[0].Master) != "" || len(cfg.Zones[0].Names) != 1):
			t.Errorf("%s: zone %+v", c.zone, cfg.Zones[0])
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "more)")):
			t.Errorf("%s: %v, want %s and nothing else", c.zone, err, c.want)
		}
	}
}

// TestMasterLine: line n of inline records is line MasterLine+n-1 of the file,
// however the block is written, or MasterLine is 0.
func TestMasterLine(t *testing.T) {
	env := func(name string) (string, bool) { return map[string]string{"ONE": "x", "TWO": "x\ny"}[name], true }
	for _, c := range []struct {
		name, records string
		known         bool
	}{
		{"literal", "|\n      @ NS a\n      b A 192.0.2.1\n", true},
		{"comment and chomping", "|-  # why\n      @ NS a\n      b A 192.0.2.1\n", true},
		{"indentation", "|2\n       @ NS a\n      b A 192.0.2.1\n", true},
		{"blank lines first", "|\n\n\n      @ NS a\n\n      b A 192.0.2.1\n", true},
		{"indicator below the key", "\n      |\n      @ NS a\n      b A 192.0.2.1\n", true},
		{"CRLF", "|\r\n      @ NS a\r\n      b A 192.0.2.1\r\n", true},
		{"variable", "|\n      @ NS ${ONE}\n      b A 192.0.2.1\n", true},
		{"variable with lines", "|\n      @ NS ${TWO}\n      b A 192.0.2.1\n", false},
		{"line separator", "|\n      @ NS a ; \u2028\n      b A 192.0.2.1\n", false},
		{"folded", ">\n      @ NS a\n      b A 192.0.2.1\n", false},
		{"quoted", "\"@ NS a\\nb A 192.0.2.1\"\n", false},
		{"plain", "b NS a\n", false},
	} {
		text := "# comment\n" + zoneFleet + "zones:\n  example.com:\n    records: " + c.records + "    names: {www: {service: web}}\n"
		cfg, err := config.Parse("x", []byte(text), config.Sources{Getenv: env})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		zone := cfg.Zones[0]
		if zone.MasterLine > 0 != c.known {
			t.Errorf("%s: MasterLine %d", c.name, zone.MasterLine)
		}
		if zone.MasterLine == 0 {
			continue
		}
		file := strings.Split(text, "\n")
		for n, line := range strings.Split(strings.TrimSuffix(zone.Master, "\n"), "\n") {
			at := strings.ReplaceAll(file[zone.MasterLine+n-1], "${ONE}", "x")
			if strings.TrimSpace(at) != strings.TrimSpace(line) {
				t.Errorf("%s: line %d of the records is %q, line %d of the file %q", c.name, n+1, line, zone.MasterLine+n, at)
			}
		}
	}
	cfg := mustParse(t, "x", zoneFleet+"zones: {example.com: {file: example.com.zone}}")
	if got := cfg.Zones[0].MasterLine; got != 0 {
		t.Errorf("a file's MasterLine is %d", got)
	}
}
