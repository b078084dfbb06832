package config_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
)

// TestDatabasesMustExist: a geo database that is not there is a mistake at its
// place in the file, wherever the caller can look.
func TestDatabasesMustExist(t *testing.T) {
	const text = "sites: {fra: {location: FRA, nodes: {fra1: 127.0.0.1}}}\n" +
		"geo:\n  databases:\n    - city.mmdb\n    - missing.mmdb\n    - folder\n    - /city.mmdb\n"
	src := config.Sources{Stat: func(name string) error {
		switch filepath.ToSlash(name) {
		case "/etc/pharos/city.mmdb":
			return nil
		case "/etc/pharos/folder":
			return errors.New("is a directory")
		}
		return &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}}
	_, err := config.Parse("/etc/pharos/pharos.yaml", []byte(text), src)
	var errs config.Errors
	if !errors.As(err, &errs) {
		t.Fatalf("got %v, want Errors", err)
	}
	var got []string
	for _, e := range errs {
		got = append(got, e.Error())
	}
	want := []string{
		"/etc/pharos/pharos.yaml:5:7: geo.databases[1]: cannot read /etc/pharos/missing.mmdb: file does not exist",
		"/etc/pharos/pharos.yaml:6:7: geo.databases[2]: cannot read /etc/pharos/folder: is a directory",
		"/etc/pharos/pharos.yaml:7:7: geo.databases[3]: cannot read /city.mmdb: file does not exist",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := config.Parse("/etc/pharos/pharos.yaml", []byte(text), config.Sources{}); err != nil {
		t.Errorf("without Stat: %v", err)
	}
}
