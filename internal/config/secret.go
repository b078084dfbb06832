package config

import (
	"encoding/json"
	"fmt"
	"io"
)

// A Secret never shows its value: not through String, any fmt verb, a text or
// JSON encoder, or (which uses those) slog. The zero Secret is "none". Secrets are comparable, so a
// reload can tell whether one changed.
type Secret struct{ value string }

// NewSecret returns a Secret with the value; "" is none.
func NewSecret(value string) Secret { return Secret{value: value} }

// Reveal returns the secret value.
func (s Secret) Reveal() string { return s.value }

// IsSet reports whether there is a value.
func (s Secret) IsSet() bool { return s.value != "" }

// String returns "(set)" or "(none)".
func (s Secret) String() string {
	if s.value == "" {
		return "(none)"
	}
	return "(set)"
}

// GoString is String: %#v shows no more.
func (s Secret) GoString() string { return "config.Secret" + s.String() }

// Format writes String for every verb and flag, so that not even %x shows the value.
func (s Secret) Format(state fmt.State, verb rune) {
	if verb == 'v' && state.Flag('#') {
		io.WriteString(state, s.GoString())
		return
	}
	io.WriteString(state, s.String())
}

// MarshalText returns String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON returns String, quoted.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// String returns "Name: (set)".
func (h Header) String() string { return h.Name + ": " + NewSecret(h.Value).String() }

// Format writes String for every verb and flag.
func (h Header) Format(state fmt.State, _ rune) { io.WriteString(state, h.String()) }

// MarshalJSON writes the name, and "(set)" for the value.
func (h Header) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"Name": h.Name, "Value": NewSecret(h.Value).String()})
}
