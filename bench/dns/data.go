package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/pharos-lb/pharos/geo"
)

// The sites that steered names are steered to, the same in every server.
var (
	vips   = map[string]string{"fra": "127.8.0.10", "iad": "127.8.0.20", "sin": "127.8.0.30"}
	ranked = []string{"fra", "iad", "sin"}
	// nearby is the first site of each continent; fra is everybody else's.
	nearby = map[string]string{"EU": "fra", "AF": "fra", "NA": "iad", "SA": "iad", "AS": "sin", "OC": "sin"}
	// continents has its keys in a fixed order.
	continents = []string{"EU", "AF", "NA", "SA", "AS", "OC"}
)

// prepare writes every server's files.
func prepare(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil { // some servers drop root
		return err
	}
	for _, d := range []string{"gdnsd/zones", "gdnsd/run", "gdnsd/state", "knot/db", "knot/plain/db", "nsd", "pdns", "bind"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o777); err != nil {
			return err
		}
	}
	static := records()
	files := map[string]string{
		"zone":                   static,
		"pharos.yaml":            pharosConfig(),
		"orders":                 "site/* up\n", // the other sites' nodes are not here to say so
		"gdnsd/config":           gdnsdConfig(dir),
		"gdnsd/zones/bench.test": static + dynamic(),
		"knot/knot.conf":         fmt.Sprintf(knotConfig, dir),
		"knot/zone":              static + fallback(),
		"knot/geo.conf":          knotGeo(),
		"knot/plain/knot.conf":   fmt.Sprintf(knotPlain, dir),
		"nsd/nsd.conf":           fmt.Sprintf(nsdConfig, dir),
		"pdns/named.conf":        fmt.Sprintf("zone \"bench.test\" { type master; file \"%s/zone\"; };\n", dir),
		"pdns/pdns.conf":         fmt.Sprintf(pdnsConfig, dir),
		"bind/named.conf":        fmt.Sprintf(bindConfig, dir),
		"Corefile":               fmt.Sprintf(coreFile, dir),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return countryData(filepath.Join(dir, "country.mmdb"))
}

// records is the zone that all servers serve.
func records() string {
	var b bytes.Buffer
	b.WriteString("$TTL 300\n$ORIGIN bench.test.\n@ IN SOA ns1 root 1 3600 600 86400 60\n@ IN NS ns1\nns1 IN A 127.8.0.1\n")
	for i := range names {
		fmt.Fprintf(&b, "%s IN A 10.0.%d.%d\n", label('s', i), i>>8, i&255)
	}
	return b.String()
}

// fallback is the steered names as Knot's zone has them: what clients get of
// whom its module knows nothing.
func fallback() string {
	var b bytes.Buffer
	for i := range names {
		fmt.Fprintf(&b, "%s 300 IN A %s\n", label('g', i), vips["fra"])
	}
	return b.String()
}

// dynamic is the steered names as gdnsd has them.
func dynamic() string {
	var b bytes.Buffer
	for i := range names {
		fmt.Fprintf(&b, "%s 300 IN DYNA geoip!web\n", label('g', i))
	}
	return b.String()
}

func pharosConfig() string {
	var b bytes.Buffer
	b.WriteString(pharosHead)
	for i := range names {
		fmt.Fprintf(&b, "      %s: {service: web, ttl: 300s}\n", label('g', i))
	}
	return b.String()
}

// gdnsdConfig ranks the sites as pharos does: the continent's, then the others by name.
func gdnsdConfig(dir string) string {
	var b bytes.Buffer
	for _, continent := range continents {
		fmt.Fprintf(&b, "%s => [%s", continent, nearby[continent])
		for _, site := range ranked {
			if site != nearby[continent] {
				b.WriteString(", " + site)
			}
		}
		b.WriteString("], ")
	}
	return fmt.Sprintf(gdnsdText, dir+"/gdnsd", dir, b.String())
}

func knotGeo() string {
	var b bytes.Buffer
	for i := range names {
		fmt.Fprintf(&b, "%s.bench.test:\n", label('g', i))
		for _, continent := range continents {
			fmt.Fprintf(&b, "  - geo: \"%s\"\n    A: %s\n", continent, vips[nearby[continent]])
		}
	}
	return b.String()
}

// countryData rewrites the embedded country data in MaxMind's schema, which
// the others read.
func countryData(file string) error {
	db, err := geo.Embedded()
	if err != nil {
		return err
	}
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoIP2-Country", RecordSize: 28, IncludeReservedNetworks: true, DisableIPv4Aliasing: true})
	if err != nil {
		return err
	}
	for prefix, place := range db.All() {
		if place.Country == "" {
			continue
		}
		record := mmdbtype.Map{
			"country":   mmdbtype.Map{"iso_code": mmdbtype.String(place.Country)},
			"continent": mmdbtype.Map{"code": mmdbtype.String(place.Continent)},
		}
		ip := prefix.Addr().AsSlice()
		if err := tree.Insert(&net.IPNet{IP: ip, Mask: net.CIDRMask(prefix.Bits(), 8*len(ip))}, record); err != nil {
			return fmt.Errorf("write country data: %s: %w", prefix, err)
		}
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = tree.WriteTo(f)
	return err
}
