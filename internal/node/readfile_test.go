package node

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A longest notes the largest piece that was asked for.
type longest struct {
	bytes.Reader
	most int
}

func (l *longest) Read(p []byte) (int, error) {
	l.most = max(l.most, len(p))
	return l.Reader.Read(p)
}

// TestReadFile: what a file has, whatever its size says, in parts.
func TestReadFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	for _, size := range []int{0, 1, readPart - 1, readPart, readPart + 1, 5*readPart + 7} {
		want := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		if err := os.WriteFile(name, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
		if got, err := readFileOf(name, int64(size)); err != nil || len(got) != size {
			t.Errorf("%d bytes, at most as many: got %d, %v", size, len(got), err)
		}
		if _, err := readFileOf(name, int64(size)-1); err == nil || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("%d bytes, at most one less: %v", size, err)
		}
		for _, room := range []int{0, size / 2, size, size + 1} { // it has grown since, or not
			l := &longest{Reader: *bytes.NewReader(want)}
			got, err := readParts(l, make([]byte, 0, room), int64(size))
			if err != nil || !bytes.Equal(got, want) || l.most > readPart {
				t.Errorf("%d bytes with room for %d: got %d, %v, in parts of %d", size, room, len(got), err, l.most)
			}
		}
	}
	if _, err := readFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if got, err := readFile("/proc/self/stat"); err != nil || len(got) == 0 { // of which its size says nothing
		t.Errorf("/proc/self/stat: %d bytes, %v", len(got), err)
	}
}
