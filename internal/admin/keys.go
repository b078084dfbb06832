package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// KeyStatus is which gossip keys the cluster holds. Keys are named by their
// fingerprints: 8 hex digits of the SHA-256.
type KeyStatus struct {
	// File is where this node's keys come from; "" = not from a file, so that they
	// cannot be changed while it runs.
	File string `json:"file,omitempty"`
	// Keys are this node's, the one that it sends with first.
	Keys []string `json:"keys"`
	// Members are the nodes of the cluster, itself too, as they say of themselves.
	Members []MemberKeys `json:"members"`
}

// MemberKeys is which keys one node says it holds, the one it sends with first.
type MemberKeys struct {
	Name  string   `json:"name"`
	Self  bool     `json:"self,omitempty"`
	State string   `json:"state"`
	Keys  []string `json:"keys"`
}

// KeyChange changes this node's keys: exactly one of Add, Use and Remove is set.
type KeyChange struct {
	// Add is a new key, base64 of 16, 24 or 32 bytes; it is a secret.
	Add string `json:"add,omitempty"`
	// Use is the fingerprint of the key to send with from now on.
	Use string `json:"use,omitempty"`
	// Remove is the fingerprint of the key to forget.
	Remove string `json:"remove,omitempty"`
	// Force does it although other nodes are not ready for it.
	Force bool `json:"force,omitempty"`
}

// check returns what is wrong with a change, without repeating a key.
func (c KeyChange) check() error {
	given := 0
	for _, s := range [...]string{c.Add, c.Use, c.Remove} {
		if s != "" {
			given++
		}
	}
	if given != 1 {
		return errors.New("want exactly one of add, use and remove")
	}
	for _, name := range [...]string{c.Use, c.Remove} {
		if name != "" && (len(name) != 8 || strings.Trim(name, "0123456789abcdef") != "") {
			return fmt.Errorf("%.20q is not a fingerprint: want 8 lower-case hex digits", name)
		}
	}
	return nil
}

func (s *Server) keys(w http.ResponseWriter, _ *http.Request) {
	if s.opts.Keys == nil {
		absent(w, "gossip keys to show")
		return
	}
	reply(w, s.opts.Keys())
}

func (s *Server) changeKeys(w http.ResponseWriter, r *http.Request) {
	if s.opts.ChangeKeys == nil {
		absent(w, "gossip keys to change")
		return
	}
	var change KeyChange
	if err := decode(w, r, &change); err != nil {
		badRequest(w, err)
		return
	}
	if err := change.check(); err != nil {
		badRequest(w, err)
		return
	}
	status, err := s.opts.ChangeKeys(change)
	answer(w, status, err)
}
