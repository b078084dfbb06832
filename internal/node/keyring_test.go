package node

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/internal/admin"
)

// keyOf is a key of 32 times the same byte, as text.
func keyOf(b byte) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(b)), 32)))
}

// What the operator wrote around the keys stays, so does the mode, and a link
// stays a link.
func TestKeyFileIsKeptAsItIs(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "real.key"), filepath.Join(dir, "gossip.key")
	text := "# ours since 2025\n" + keyOf('a') + "   # in use\r\n\n  " + keyOf('b') + "\n# the end"
	write(t, file, text)
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.key", link); err != nil {
		t.Fatal(err)
	}
	lines, err := readKeyFile(link)
	if err != nil || len(keysOf(lines)) != 2 {
		t.Fatalf("%d keys, %v", len(keysOf(lines)), err)
	}
	if err := writeKeyFile(link, append(lines, keyLine{text: keyOf('c')})); err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(text, "\r", "") + "\n" + keyOf('c') + "\n"
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is a %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%d files are left, %v", len(entries), err)
	}
}

func TestReadKeyFileRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gossip.key")
	if _, err := readKeyFile(file); err == nil {
		t.Error("a file that is not there was read")
	}
	for _, text := range []string{"rubbish", keyOf('a') + "\n" + keyOf('b')[:20], base64.StdEncoding.EncodeToString(make([]byte, 15)), keyOf('a') + " " + keyOf('b')} {
		write(t, file, text)
		_, err := readKeyFile(file)
		if err == nil || !strings.Contains(err.Error(), "pharos keys generate") {
			t.Errorf("%q: got %v", text, err)
		} else if strings.Contains(err.Error(), strings.Fields(text)[0]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}

// A ring of one node: what must be refused changes neither the file nor the ring.
func TestChangeKeysAlone(t *testing.T) {
	t.Parallel()
	newBackend(t, "127.9.39.11:9000", "one", released())
	newBackend(t, "127.9.39.12:9000", "two", released())
	dir := t.TempDir()
	file := filepath.Join(dir, "gossip.key")
	write(t, file, keyOf('a')+"\n")
	config := edit(t, at("127.9.39.", strings.ReplaceAll(oneSite, "WAIT", "1s")), "wait: 1s}", "wait: 1s, secret_file: gossip.key}")
	n := nodeIn(t, dir, config)
	a, b := fingerprint([]byte(strings.Repeat("a", 32))), fingerprint([]byte(strings.Repeat("b", 32)))
	for _, tt := range []struct {
		change admin.KeyChange
		want   string // of the error, "" for none
		ring   string
	}{
		{admin.KeyChange{Add: "rubbish"}, "want 16, 24 or 32 bytes", a},
		{admin.KeyChange{Use: b}, `no key "` + b, a},
		{admin.KeyChange{Remove: a}, "`pharos keys use` another one first", a},
		{admin.KeyChange{Remove: a, Force: true}, "`pharos keys use` another one first", a},
		{admin.KeyChange{Add: keyOf('b')}, "", a + " " + b},
		{admin.KeyChange{Add: keyOf('b')}, "", a + " " + b},
		{admin.KeyChange{Use: b}, "", b + " " + a},
		{admin.KeyChange{Use: b}, "", b + " " + a},
		{admin.KeyChange{Remove: b}, "another one first", b + " " + a},
		{admin.KeyChange{Remove: a}, "", b},
	} {
		_, err := n.ChangeKeys(tt.change)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.change, err, tt.want)
		}
		if got := strings.Join(n.Keys().Keys, " "); got != tt.ring {
			t.Errorf("%+v: the ring is %s, want %s", tt.change, got, tt.ring)
		}
		lines, err := readKeyFile(file)
		var inFile []string
		for _, key := range keysOf(lines) {
			inFile = append(inFile, fingerprint(key))
		}
		if got := strings.Join(inFile, " "); err != nil || got != tt.ring {
			t.Errorf("%+v: the file has %s, %v, want %s", tt.change, got, err, tt.ring)
		}
	}
}

// A configured node that is down and was never met holds no key that is known, so nothing is sent with a new one
// before somebody says that it is meant; one that has left the configuration and the cluster is not asked for.
func TestChangeKeysWaitsForTheConfigured(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "gossip.key"), keyOf('a')+"\n")
	n := nodeIn(t, dir, at("127.9.58.", bothSites))
	b := fingerprint([]byte(strings.Repeat("b", 32)))
	if _, err := n.ChangeKeys(admin.KeyChange{Add: keyOf('b')}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ChangeKeys(admin.KeyChange{Use: b}); err == nil || !strings.Contains(err.Error(), "not held by b1,") {
		t.Errorf("b1 was never met: got %v", err)
	}
	st, err := n.ChangeKeys(admin.KeyChange{Use: b, Force: true})
	if err != nil || len(st.Members) != 2 || st.Members[1].Name != "b1" || st.Members[1].State != admin.MemberAbsent {
		t.Errorf("got %+v, %v", st, err)
	}
}

// Keys that come from elsewhere have no file to change.
func TestChangeKeysWithoutAFile(t *testing.T) {
	t.Parallel()
	n := nodeIn(t, t.TempDir(), at("127.9.42.", strings.ReplaceAll(oneSite, "WAIT", "1s")))
	if _, err := n.ChangeKeys(admin.KeyChange{Add: keyOf('a')}); err == nil || !strings.Contains(err.Error(), "cluster.secret_file") {
		t.Errorf("got %v", err)
	}
}
