package geo

import (
	_ "embed"
	"fmt"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/geo/internal/ranges"
)

//go:embed data/ranges.bin
var embeddedRanges []byte

// Embedded opens the built-in country data, about 4 MB of memory. The first
// call unpacks it; all calls return the same Database.
func Embedded() (*Database, error) { return embedded() }

var embedded = sync.OnceValues(func() (*Database, error) { return unpack(embeddedRanges) })

func unpack(data []byte) (*Database, error) {
	table, err := ranges.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("open embedded country data: %w", err)
	}
	db := &Database{
		info: Info{
			Name:  "embedded country data",
			Type:  "country",
			Built: time.Unix(table.Built, 0).UTC(),
		},
		v4:      spans{family: v4, short: table.V4, values: column{narrow: table.V4Values}},
		v6:      spans{family: v6, hi: table.V6, values: column{narrow: table.V6Values}},
		records: make([]record, 1, len(table.Codes)+1),
	}
	for _, code := range table.Codes {
		var r record
		r.setCountry(code)
		db.records = append(db.records, r)
	}
	db.info.Has = knowledgeOf(db.records)
	return db, nil
}
