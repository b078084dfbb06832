package node

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/internal/admin"
)

// A keyLine is one line of the secret file: a key, or what is to be kept as it is.
type keyLine struct {
	text string
	key  []byte // nil: a comment or an empty line
}

// fingerprint names a key without giving it away: 8 hex digits of its SHA-256.
func fingerprint(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}

// parseKey reads one key.
func parseKey(text string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(key) != 16 && len(key) != 24 && len(key) != 32 {
		return nil, errors.New("want 16, 24 or 32 bytes in base64; `pharos keys generate` makes one")
	}
	return key, nil
}

// readKeyFile returns the lines of a secret file.
func readKeyFile(file string) ([]keyLine, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("secret file: %w", err)
	}
	var lines []keyLine
	for text := range strings.Lines(string(data)) {
		text = strings.TrimRight(text, "\r\n")
		word, _, _ := strings.Cut(text, "#")
		l := keyLine{text: text}
		if strings.TrimSpace(word) != "" {
			if l.key, err = parseKey(word); err != nil {
				return nil, fmt.Errorf("secret file %s: %w", file, err)
			}
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// keysOf returns the keys among the lines, in order.
func keysOf(lines []keyLine) [][]byte {
	var keys [][]byte
	for _, l := range lines {
		if l.key != nil {
			keys = append(keys, l.key)
		}
	}
	return keys
}

// writeKeyFile replaces a secret file, keeping its mode, so that a crash leaves
// either the old or the new one.
func writeKeyFile(file string, lines []keyLine) error {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("secret file: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".keys-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("secret file: %w", err)
	}
	for _, l := range lines {
		_, e := fmt.Fprintln(tmp, l.text)
		err = errors.Join(err, e)
	}
	err = errors.Join(err, tmp.Chmod(info.Mode().Perm()), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("secret file: %w", err)
	}
	return nil
}

// Keys returns which gossip keys this node and the others hold.
func (n *Node) Keys() *admin.KeyStatus {
	return &admin.KeyStatus{File: n.setup.Load().Config.Cluster.KeyFile, Keys: n.gossip.KeyFingerprints(), Members: n.keyHolders()}
}

// keyHolders are the nodes whose keys matter: those of the configuration, of which one that was never
// met is known to hold none, and whoever else is there. One that left both is not waited for.
func (n *Node) keyHolders() (out []admin.MemberKeys) {
	for _, m := range n.members() {
		out = append(out, admin.MemberKeys{Name: m.Name, Self: m.Self, State: m.State, Keys: m.Keys})
	}
	return out
}

// ChangeKeys adds a key to this node's ring, sends with it, or removes it, and
// writes the secret file; nothing is restarted. Unless forced, a key is used
// only when every node holds it, and removed only when none sends with it.
func (n *Node) ChangeKeys(r admin.KeyChange) (*admin.KeyStatus, error) {
	n.reloading.Lock() // a reload reads the same file
	defer n.reloading.Unlock()
	file := n.setup.Load().Config.Cluster.KeyFile
	if file == "" {
		return nil, errors.New("the gossip key does not come from cluster.secret_file, so there is no file to change")
	}
	lines, err := readKeyFile(file)
	if err != nil {
		return nil, err
	}
	if lines, err = n.changeLines(lines, r); err != nil {
		return nil, err
	}
	if err := writeKeyFile(file, lines); err != nil {
		return nil, err
	}
	if err := n.gossip.SetKeys(keysOf(lines)); err != nil {
		return nil, err
	}
	n.log.Info("gossip keys changed", "keys", n.gossip.KeyFingerprints())
	return n.Keys(), nil
}

func (n *Node) changeLines(lines []keyLine, r admin.KeyChange) ([]keyLine, error) {
	if r.Add != "" {
		key, err := parseKey(r.Add)
		if err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		if slices.ContainsFunc(lines, func(l keyLine) bool { return slices.Equal(l.key, key) }) {
			return lines, nil
		}
		return append(lines, keyLine{base64.StdEncoding.EncodeToString(key), key}), nil
	}
	name := r.Use + r.Remove
	at := slices.IndexFunc(lines, func(l keyLine) bool { return l.key != nil && fingerprint(l.key) == name })
	if at < 0 {
		return nil, fmt.Errorf("no key %q in the ring; `pharos keys list` shows them", name)
	}
	chosen := lines[at]
	first := slices.IndexFunc(lines, func(l keyLine) bool { return l.key != nil })
	rest := slices.Delete(slices.Clone(lines), at, at+1)
	if r.Remove != "" {
		if at == first {
			return nil, errors.New("this key is the one that is sent with; `pharos keys use` another one first")
		}
		if who := n.membersWhere(func(keys []string) bool { return len(keys) > 0 && keys[0] == name }); len(who) > 0 && !r.Force {
			return nil, fmt.Errorf("still sent with by %s; use another key there first, or add --force", strings.Join(who, ", "))
		}
		return rest, nil
	}
	if who := n.membersWhere(func(keys []string) bool { return !slices.Contains(keys, name) }); len(who) > 0 && !r.Force {
		return nil, fmt.Errorf("not held by %s, who could not read what this node sends; add it there first, or add --force", strings.Join(who, ", "))
	}
	return slices.Insert(rest, first, chosen), nil
}

// membersWhere names the other nodes whose keys are so, sorted.
func (n *Node) membersWhere(so func(keys []string) bool) (names []string) {
	for _, m := range n.keyHolders() {
		if !m.Self && so(m.Keys) {
			names = append(names, m.Name)
		}
	}
	return names
}
