package config

import (
	"strings"
	"testing"
)

func TestJSONPath(t *testing.T) {
	for path, want := range map[string]bool{
		"$": true, "$.a": true, "$.a.b_c-d.é": true, `$["a b"]`: true, `$[""]`: true, "$[0]": true, "$.a[65535].b": true, `$["a]"]`: true,
		"$" + strings.Repeat(".a", 16): true,
		"":                             false, "a": false, "$a": false, "$.": false, "$..a": false, "$.a.": false, "$[": false, "$[]": false, "$[-1]": false,
		"$[65536]": false, "$[a]": false, "$[0": false, `$["a]`: false, `$["a\"]`: false, "$['a']": false, "$.a b": false, "$.*": false, "$[0]a": false,
		"$" + strings.Repeat(".a", 17): false, "$." + strings.Repeat("a", 300): false,
	} {
		if _, p := jsonPath().read(path); (p == nil) != want {
			t.Errorf("%q: got %v, want ok %v", path, p, want)
		}
	}
}

func TestPayload(t *testing.T) {
	for text, want := range map[string]string{
		"PING\r\n": "PING\r\n", "hex:00fF": "\x00\xff", "hex: 00 01": "\x00\x01", "HEX:00": "HEX:00",
		"": "", "hex:": "", "hex:0": "", "hex:zz": "", strings.Repeat("x", 1025): "", "hex:" + strings.Repeat("00", 1025): "",
	} {
		got, p := payload("x").read(text)
		if want == "" && p == nil || want != "" && got != want {
			t.Errorf("%.20q: got %q, %v, want %q", text, got, p, want)
		}
	}
}

func TestPlaceholders(t *testing.T) {
	for text, want := range map[string]string{
		"{host}:{port}": "", "{}": "", `{"a": 1}`: "", "{unrelated}": "", "{": "", "a{host": "",
		"{hots}": "{host}", "x {{Address}": "{address}", "{Port}": "{port}", "{host}{sit}": "{site}",
	} {
		p := refusePlaceholder(text, placeholders())
		hint := ""
		if p != nil {
			hint = p.hint
		}
		if hint != didYouMean(want) {
			t.Errorf("%q: got %q, want %q", text, hint, want)
		}
	}
}
