package node

import (
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/internal/config"
)

func TestSignKey(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(filepath.Dir(dir)) // a relative file begins here, not beside the configuration: that one is in it already
	beside := filepath.Base(dir)
	seed := []byte(strings.Repeat("s", ed25519.SeedSize))
	key := ed25519.NewKeyFromSeed(seed)
	mine := []byte(key.Public().(ed25519.PublicKey))
	text := base64.StdEncoding.EncodeToString(seed)
	write(t, filepath.Join(dir, "a1.seed"), text+"\n")
	write(t, filepath.Join(dir, "short.seed"), text[:20])
	write(t, filepath.Join(dir, "long.seed"), strings.Repeat(text, 100))
	write(t, filepath.Join(dir, "rubbish.seed"), "-----BEGIN PRIVATE KEY-----")
	if err := os.Mkdir(filepath.Join(dir, "folder.seed"), 0o700); err != nil {
		t.Fatal(err)
	}
	other := ed25519.NewKeyFromSeed([]byte(strings.Repeat("o", ed25519.SeedSize))).Public().(ed25519.PublicKey)
	for _, tt := range []struct {
		name, file string
		public     []byte
		want       string // of the error, "" for none
		signs      bool
	}{
		{"nobody signs", "", nil, "", false},
		{"its name in the file's", "{node}.seed", mine, "", true},
		{"an absolute name", filepath.Join(dir, "a1.seed"), mine, "", true},
		{"signs before the others know", "a1.seed", nil, "", true},
		{"has a public key but no file", "", mine, "it must sign", false},
		{"no file", "b1.seed", mine, "pharos keys generate --sign", false},
		{"a folder", "folder.seed", mine, "not a key file", false},
		{"too long", "long.seed", mine, "not a key file", false},
		{"too short", "short.seed", mine, "want 32 bytes in base64", false},
		{"rubbish", "rubbish.seed", mine, "want 32 bytes in base64", false},
		{"another's key", "a1.seed", other, "does not belong to the public_key of a1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &Setup{
				Config: &config.Config{File: filepath.Join(beside, "pharos.yaml")},
				Self:   &Self{Node: config.Node{Name: "a1", PublicKey: tt.public}},
			}
			if s.Config.Cluster.SignKeyFile = tt.file; tt.file != "" && !filepath.IsAbs(tt.file) {
				s.Config.Cluster.SignKeyFile = filepath.Join(beside, tt.file) // as config resolves it
			}
			got, err := s.signKey()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if (got != nil) != tt.signs || tt.signs && !got.Equal(key) {
				t.Errorf("got a key of %d bytes, want one: %v", len(got), tt.signs)
			}
			if err != nil && strings.Contains(err.Error(), text[:16]) {
				t.Errorf("the error repeats the secret: %v", err)
			}
		})
	}
}
