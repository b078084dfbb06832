package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pharos-lb/pharos/internal/config"
)

// TestTransport: every key of how backends are spoken to arrives.
func TestTransport(t *testing.T) {
	want := map[string]config.Transport{
		"plain":  {},
		"word":   {Protocol: "h2c"},
		"secure": {Protocol: "https", MinVersion: "1.2"},
		"all": {
			Protocol: "h2", SNI: "web.example.com", CA: "testdata/tls/ca.pem", Certificate: "/etc/ours.pem", Key: "/etc/ours.pem",
			MinVersion: "1.3", Warm: 4,
		},
		"keyed": {Protocol: "https", Certificate: "/etc/ours.pem", Key: "/etc/ours.key", Insecure: true, MinVersion: "1.2", SendProxy: "v2"},
	}
	for _, s := range good(t, "transport.yaml").Services {
		got := s.Transport
		if diff := cmp.Diff(want[s.Name], got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", s.Name, diff)
		}
	}
}
