package node

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
)

// maxSignKeyFile is the longest key file that is read, in bytes.
const maxSignKeyFile = 4096

// signKey reads this node's signing key: an Ed25519 seed of 32 bytes in base64.
// nil without a file. It must be the private half of the node's public_key.
func (s *Setup) signKey() (ed25519.PrivateKey, error) {
	file := strings.ReplaceAll(s.Config.Cluster.SignKeyFile, "{node}", s.Self.Node.Name)
	if file == "" {
		if s.Self.Node.PublicKey != nil {
			return nil, fmt.Errorf("cluster.sign_key_file: node %s has a public_key, so it must sign: name the file with its key", s.Self.Node.Name)
		}
		return nil, nil
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cluster.sign_key_file: %w (make one with `pharos keys generate --sign`)", err)
	case !info.Mode().IsRegular() || info.Size() > maxSignKeyFile:
		return nil, fmt.Errorf("cluster.sign_key_file: %s is not a key file", file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cluster.sign_key_file: %w", err)
	}
	seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("cluster.sign_key_file: %s: want %d bytes in base64", file, ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)
	if public := s.Self.Node.PublicKey; public != nil && !key.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(public)) {
		return nil, fmt.Errorf("cluster.sign_key_file: %s does not belong to the public_key of %s", file, s.Self.Node.Name)
	}
	return key, nil
}

// allSign reports whether every node of the fleet has a public key.
func (s *Setup) allSign() bool {
	for _, site := range s.Config.Sites {
		for _, node := range site.Nodes {
			if node.PublicKey == nil {
				return false
			}
		}
	}
	return true
}

// publicKeys are those of the nodes that sign.
func (s *Setup) publicKeys() map[string]ed25519.PublicKey {
	out := map[string]ed25519.PublicKey{}
	for _, site := range s.Config.Sites {
		for _, node := range site.Nodes {
			if node.PublicKey != nil {
				out[node.Name] = node.PublicKey
			}
		}
	}
	return out
}
