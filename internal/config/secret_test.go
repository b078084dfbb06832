package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/pharos-lb/pharos/internal/config"
)

// TestSecretIsNeverShown prints configurations in every way there is.
func TestSecretIsNeverShown(t *testing.T) {
	cfg := good(t, "everything.yaml")
	if cfg.BGP.Peers[0].Password.Reveal() != "hunter2" {
		t.Fatal("the password was not read")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%10.3s"} {
		for _, value := range []any{cfg.BGP, *cfg, cfg.BGP.Peers[0], cfg.BGP.Peers[0].Password, cfg.Services[2].Check.HTTP.Headers, &cfg.BGP.Peers[0].Password, cfg.Cluster} {
			text := fmt.Sprintf(verb, value)
			for _, hidden := range []string{"hunter2", "68756e74657232", "68756E74657232", "0123456789abcdef", "${PORT}"} {
				if strings.Contains(text, hidden) {
					t.Errorf("%s of %T shows a secret: %s", verb, value, text)
				}
			}
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "peer", cfg.BGP.Peers[0], "password", cfg.BGP.Peers[0].Password)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "peer", cfg.BGP.Peers[0], "password", cfg.BGP.Peers[0].Password)
	encoded, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"log": log.String(), "json": string(encoded)} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "0123456789abcdef") || strings.Contains(text, "${PORT}") {
			t.Errorf("%s shows a secret: %s", name, text)
		}
		if !strings.Contains(text, "(set)") {
			t.Errorf("%s does not say that there is one: %s", name, text)
		}
	}
}

func TestSecretText(t *testing.T) {
	for _, c := range []struct {
		secret config.Secret
		want   string
	}{
		{config.Secret{}, "(none)"},
		{config.NewSecret("x"), "(set)"},
	} {
		text, _ := c.secret.MarshalText()
		if got := fmt.Sprint(c.secret); got != c.want || string(text) != c.want || c.secret.IsSet() != (c.want == "(set)") {
			t.Errorf("got %q, %q, %v, want %q", got, text, c.secret.IsSet(), c.want)
		}
	}
}
