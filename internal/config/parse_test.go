package config_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// manyKeys is a secret file with n keys.
func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{byte(i)}, 16)) + "\n")
	}
	return b.String()
}

// sources serves the files and variables that the examples in testdata name.
func sources() config.Sources {
	files := map[string]string{
		"gossip.key":        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n",
		"short.key":         "c2hvcnQ=\n",
		"empty.key":         " \n",
		"two-lines.key":     "a\nb\n",
		"ring.key":          "# until Friday\r\nMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY= # new\r\n\n  MDEyMzQ1Njc4OWFiY2RlZg==\n",
		"other-ring.key":    "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n",
		"twice.key":         "MDEyMzQ1Njc4OWFiY2RlZg==\n# again\nMDEyMzQ1Njc4OWFiY2RlZg==\n",
		"no-key.key":        "# nothing yet\n",
		"many.key":          manyKeys(17),
		"token":             "0123456789abcdef\n",
		"short.token":       "abc\n",
		"password":          "hunter2hunter2\n",
		"long.password":     strings.Repeat("x", 81),
		"huge.key":          strings.Repeat("x", 5000),
		"example.com.zone":  "@ 3600 SOA ns1 hostmaster 1 7200 900 1209600 300\n@ NS ns1\nns1 A 198.51.100.11\n",
		"blank.zone":        "\n\n",
		"sub/internal.zone": "@ SOA . . 1 2 3 4 5\n",
	}
	env := map[string]string{
		"GOSSIP_KEY": "MDEyMzQ1Njc4OWFiY2RlZg==",
		"MD5":        "hunter2",
		"EMPTY":      "",
		"PORT":       "7947",
		"SITE":       "fra",
		"INJECT":     "fra]\nadmin: {listen: \":1\"}",
		"BAD_ADDR":   "no-address",
	}
	return config.Sources{
		ReadFile: func(name string) ([]byte, error) {
			rel := strings.TrimPrefix(filepath.ToSlash(name), "testdata/")
			if text, ok := files[rel]; ok {
				return []byte(text), nil
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		},
		Getenv: func(name string) (string, bool) {
			text, ok := env[name]
			return text, ok
		},
	}
}

// TestBadFiles is the table of mistakes: every testdata/*.yaml is refused with
// exactly the text of its .golden file. Run with -update to rewrite them, and read the diff.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("testdata has %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = config.Parse("pharos.yaml", data, sources())
			var errs config.Errors
			if !errors.As(err, &errs) {
				t.Fatalf("got error %v, want Errors", err)
			}
			got := errs.Pretty()
			if strings.Contains(got, "hunter2") {
				t.Errorf("a secret is shown:\n%s", got)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
