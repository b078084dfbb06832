package geo

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"
)

const (
	// MaxFileBytes bounds an mmdb file; the largest in common use has about 150 MB.
	MaxFileBytes = 1 << 30
	// maxFiles bounds what one Open reads.
	maxFiles = 16
	// Years a database can have been made in: outside, the metadata is damage.
	firstYear, lastYear = 2000, 2200
)

// Open reads mmdb files through read (os.ReadFile, or a test's), checks every
// record of them, and returns one Database that no longer needs the files.
// Known are MaxMind's GeoIP2 and GeoLite2 City, Country, Enterprise, ASN and
// ISP, DB-IP's and IPinfo's, and those of ip-location-db. Where several files
// are given, later ones fill what earlier ones leave unknown, as in [Join].
//
// Any file that is missing, empty, larger than MaxFileBytes, cut off, damaged or
// without places fails the whole call; whoever reloads keeps the Database it has.
// Files must be replaced by renaming a complete one over the old, as geoipupdate
// does, or a reload may find half a file (and say so).
//
// Cost: about 0.4 µs per network of the files, and their size in memory while
// they are read.
func Open(read func(string) ([]byte, error), files ...string) (*Database, error) {
	if len(files) == 0 {
		return nil, errors.New("open geo database: no files given")
	}
	if len(files) > maxFiles {
		return nil, fmt.Errorf("open geo database: %d files; at most %d", len(files), maxFiles)
	}
	databases := make([]*Database, 0, len(files))
	for _, file := range files {
		data, err := read(file)
		if err != nil {
			return nil, fmt.Errorf("open geo database: %w", err)
		}
		db, err := parse(data)
		if err != nil {
			return nil, fmt.Errorf("open geo database %s: %w", file, err)
		}
		db.info.Name = filepath.Base(file)
		databases = append(databases, db)
	}
	return Join(databases...)
}

// parse flattens one mmdb file.
func parse(data []byte) (*Database, error) {
	switch {
	case len(data) == 0:
		return nil, errors.New("the file is empty")
	case len(data) > MaxFileBytes:
		return nil, fmt.Errorf("%d bytes; at most %d", len(data), MaxFileBytes)
	}
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("not a complete mmdb file: %w", err)
	}
	if err := checkMetadata(reader.Metadata, len(data)); err != nil {
		return nil, fmt.Errorf("damaged mmdb file: %w", err)
	}
	if err := checkTree(reader); err != nil {
		return nil, fmt.Errorf("damaged mmdb file: %w", err)
	}
	schema, err := schemaOf(reader)
	if err != nil {
		return nil, err
	}
	db, err := flatten(reader, schema)
	if err != nil {
		return nil, fmt.Errorf("damaged mmdb file: %w", err)
	}
	return db, nil
}

func checkMetadata(m maxminddb.Metadata, size int) error {
	switch {
	case m.BinaryFormatMajorVersion != 2:
		return fmt.Errorf("binary format %d.%d; only 2.x is known", m.BinaryFormatMajorVersion, m.BinaryFormatMinorVersion)
	case m.IPVersion != 4 && m.IPVersion != 6:
		return fmt.Errorf("IP version %d", m.IPVersion)
	case m.RecordSize != 24 && m.RecordSize != 28 && m.RecordSize != 32:
		return fmt.Errorf("record size %d", m.RecordSize)
	case m.NodeCount == 0 || m.NodeCount > uint(size)/(m.RecordSize/4):
		return fmt.Errorf("%d nodes in %d bytes", m.NodeCount, size)
	case m.DatabaseType == "":
		return errors.New("no database type")
	case m.BuildEpoch > 1<<40:
		return fmt.Errorf("build time %d", m.BuildEpoch)
	}
	if year := m.BuildTime().UTC().Year(); year < firstYear || year > lastYear {
		return fmt.Errorf("made in the year %d", year)
	}
	return nil
}

// checkTree walks the search tree once without decoding. A tree of n nodes has
// n+1 leaves, and writers alias the IPv4 part a few times; a damaged tree can
// join itself and have 2^128, so the walk stops when there are far too many.
func checkTree(reader *maxminddb.Reader) error {
	limit := 8*(uint64(reader.Metadata.NodeCount)+1) + 256
	leaves := uint64(0)
	for result := range reader.Networks(maxminddb.IncludeAliasedNetworks(), maxminddb.IncludeNetworksWithoutData()) {
		if err := result.Err(); err != nil {
			return fmt.Errorf("search tree: %w", err)
		}
		if leaves++; leaves > limit {
			return fmt.Errorf("search tree: %d nodes with more than %d leaves", reader.Metadata.NodeCount, limit)
		}
	}
	return nil
}

// flatten decodes every network. Records are decoded once per place in the
// file: many networks share them.
func flatten(reader *maxminddb.Reader, decode schema) (*Database, error) {
	db := &Database{
		info: Info{
			Type:  reader.Metadata.DatabaseType,
			Built: time.Unix(int64(reader.Metadata.BuildEpoch), 0).UTC(),
		},
		records: []record{{}},
	}
	numbers := map[record]uint32{{}: 0}
	decoded := map[uintptr]uint32{}
	fillers := [2]filler{{spans: spans{family: v4}}, {spans: spans{family: v6}}}
	for result := range reader.Networks() {
		if err := result.Err(); err != nil {
			return nil, fmt.Errorf("search tree: %w", err)
		}
		prefix := result.Prefix()
		if prefix.Addr().Is4In6() {
			continue // the IPv4 part again; IPv4-mapped addresses are looked up as IPv4
		}
		value, ok := decoded[result.Offset()]
		if !ok {
			r, err := decode(result)
			if err != nil {
				return nil, fmt.Errorf("record of %s: %w", prefix, err)
			}
			value = number(numbers, &db.records, r)
			decoded[result.Offset()] = value
		}
		f, first, last := rangeOf(prefix)
		if !fillers[f].put(first, last, value) {
			return nil, fmt.Errorf("search tree: %s is out of order", prefix)
		}
	}
	if len(db.records) == 1 {
		return nil, errors.New("no network has a place")
	}
	db.info.Has = knowledgeOf(db.records)
	db.v4, db.v6 = fillers[v4].finish(), fillers[v6].finish()
	return db, nil
}
