package config

import "strings"

// envPattern is how the JSON Schema recognises a value that ${ENV} completes.
const envPattern = `\$\{[A-Za-z_][A-Za-z0-9_]*\}`

// expand replaces every ${NAME} in a value with the environment variable, and
// $${ with a plain ${. It works on values that YAML has already parsed, so what a
// variable holds can never become a key, a list or another value. expanded
// reports whether any variable was used.
func expand(text string, getenv func(string) (string, bool)) (result string, expanded bool, p *problem) {
	if !strings.Contains(text, "${") {
		return text, false, nil
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "${")
		if !found {
			b.WriteString(text)
			break
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			b.WriteString(escaped + "${")
			text = after
			continue
		}
		b.WriteString(before)
		name, rest, closed := strings.Cut(after, "}")
		if !closed {
			return "", false, refuse("${ is not closed with }: write ${NAME}, or $${ for a plain ${")
		}
		if !isEnvName(name) {
			return "", false, refuse("${…} does not name a variable: a name is letters, digits and _, with no default or operator")
		}
		value, ok := "", false
		if getenv != nil {
			value, ok = getenv(name)
		}
		if !ok {
			return "", false, refuse("the environment variable %s is not set", name)
		}
		if b.Len()+len(value) > maxValue {
			return "", false, refuse("the value is longer than %d bytes with %s expanded", maxValue, name)
		}
		b.WriteString(value)
		expanded = true
		text = rest
	}
	return b.String(), expanded, nil
}

func isEnvName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// isVariable reports whether a text is one ${NAME} and nothing else.
func isVariable(text string) bool {
	name, ok := strings.CutPrefix(text, "${")
	name, closed := strings.CutSuffix(name, "}")
	return ok && closed && isEnvName(name)
}
