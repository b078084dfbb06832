package config

import (
	"encoding/hex"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// The words of a Vantage, and of flap.
const (
	fromOwn    = "own"
	fromAll    = "all"
	fromOthers = "others"
	flapOff    = "off"
)

// vantage is which sites probe: a number of them, or one of the words.
func vantage(words ...string) *scalar {
	forms := strings.Join(words, ", ") + " or a number of sites"
	return &scalar{
		noun: "which sites probe", kind: kindAny, least: 1, most: maxSites, example: words[0],
		pattern: "^(" + strings.Join(words, "|") + "|[1-9][0-9]{0,2}|1000)$",
		read: func(s string) (any, *problem) {
			switch n, err := strconv.ParseUint(s, 10, 16); {
			case s == fromAll && slices.Contains(words, s):
				return VantageAll, nil
			case slices.Contains(words, s):
				return Vantage(0), nil
			case err != nil || strconv.FormatUint(n, 10) != s:
				return nil, refuse("%q is not %s", clip(s), forms).try(nearest(s, slices.Values(words)))
			case n == 0 || n > maxSites:
				return nil, refuse("%d is out of range: a number of sites is from 1 to %d", n, maxSites)
			default:
				return Vantage(n), nil
			}
		},
	}
}

// httpVersion is 1 or 2, or 3 over TLS.
func httpVersion(secure bool) *scalar {
	if secure {
		return integer("version", 1, 3)
	}
	s := integer("version", 1, 2)
	read := s.read
	s.read = func(text string) (any, *problem) {
		if text == "3" {
			return nil, refuse("HTTP/3 is always encrypted: write https")
		}
		return read(text)
	}
	return s
}

// expression is a regular expression in Go's syntax.
func expression() *scalar {
	s := text("a regular expression", maxRegexp)
	read := s.read
	s.read = func(text string) (any, *problem) {
		if _, p := read(text); p != nil {
			return nil, p
		}
		if _, err := syntax.Parse(text, syntax.Perl); err != nil {
			return nil, refuse("is not a regular expression (RE2): %s", clip(oneLine(strings.TrimPrefix(err.Error(), "error parsing regexp: "))))
		}
		return text, nil
	}
	return s
}

// jsonPath is a path in a JSON body: $, then .name, ["name"] or [index].
func jsonPath() *scalar {
	return &scalar{noun: "a JSON path", kind: kindString, pattern: `^\$`, example: "$.status", read: func(s string) (any, *problem) {
		rest, ok := strings.CutPrefix(s, "$")
		if !ok {
			p := refuse(`%q is not a JSON path: write one like "$.load.free" or "$.nodes[0].up"`, clip(s))
			if plain := strings.TrimPrefix(s, "."); jsonSteps("."+plain) > 0 {
				p.try("$." + plain)
			}
			return nil, p
		}
		if len(s) > maxJSONPath {
			return nil, refuse("is %d bytes long: a JSON path has at most %d", len(s), maxJSONPath)
		}
		switch n := jsonSteps(rest); {
		case n < 0:
			return nil, refuse(`%q is not a JSON path: after $ come .name, ["name"] and [index]`, clip(s))
		case n > maxSteps:
			return nil, refuse("%q has %d steps: a JSON path has at most %d", clip(s), n, maxSteps)
		}
		return s, nil
	}}
}

// jsonSteps counts the steps of a path after its $; −1 if it is none.
func jsonSteps(rest string) int {
	n := 0
	for ; rest != ""; n++ {
		var ok bool
		if rest, ok = jsonStep(rest); !ok {
			return -1
		}
	}
	return n
}

// jsonStep cuts one step off.
func jsonStep(s string) (rest string, ok bool) {
	if name, isName := strings.CutPrefix(s, "."); isName {
		end := strings.IndexAny(name, ".[")
		if end < 0 {
			end = len(name)
		}
		return name[end:], end > 0 && !strings.ContainsFunc(name[:end], func(r rune) bool {
			return r < 0x80 && !isNameByte(byte(r)) || isControl(r)
		})
	}
	if key, isKey := strings.CutPrefix(s, `["`); isKey {
		key, rest, ok = strings.Cut(key, `"]`)
		return rest, ok && !strings.ContainsFunc(key, func(r rune) bool { return r == '"' || r == '\\' || isControl(r) })
	}
	index, isIndex := strings.CutPrefix(s, "[")
	index, rest, ok = strings.Cut(index, "]")
	_, err := strconv.ParseUint(index, 10, 16)
	return rest, isIndex && ok && err == nil
}

// payload is what a datagram has in it: text, or "hex:" and bytes.
func payload(noun string) *scalar {
	return &scalar{noun: noun, kind: kindString, example: "hex:ffffffff54", read: func(s string) (any, *problem) {
		data := s
		if digits, ok := strings.CutPrefix(s, "hex:"); ok {
			raw, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
			if err != nil {
				return nil, refuse(`%q is not bytes: after "hex:" come two hexadecimal digits for each`, clip(s))
			}
			data = string(raw)
		}
		switch {
		case data == "":
			return nil, refuse("is empty: write %s", noun)
		case len(data) > maxPayload:
			return nil, refuse("is %d bytes long: %s has at most %d", len(data), noun, maxPayload)
		}
		return data, nil
	}}
}

// placeholders are what a check's command and file may name of its target.
func placeholders() []string { return []string{"address", "host", "port", "service", "site"} }

// refusePlaceholder refuses a {word} that was probably meant as one of the known
// ones. Other braces are text.
func refusePlaceholder(s string, known []string) *problem {
	for {
		_, after, ok := strings.Cut(s, "{")
		if !ok {
			return nil
		}
		word, _, closed := strings.Cut(after, "}")
		if closed && !slices.Contains(known, word) {
			if near := nearest(strings.ToLower(word), slices.Values(known)); near != "" {
				return refuse("{%s} stands for nothing here", clip(word)).try("{" + near + "}")
			}
		}
		s = after
	}
}

// argument is one word of a command, given to the program as it is: no shell.
func argument() *scalar {
	s := text("an argument", maxArgument)
	read := s.read
	s.read = func(text string) (any, *problem) {
		if text == "" {
			return text, nil
		}
		if _, p := read(text); p != nil {
			return nil, p
		}
		if p := refusePlaceholder(text, placeholders()); p != nil {
			return nil, p
		}
		return text, nil
	}
	return s
}

// userName is a user of the system.
func userName() *scalar {
	return &scalar{noun: "a user", kind: kindString, pattern: `^[a-z_][a-z0-9_-]{0,31}$`, example: "nobody", read: func(s string) (any, *problem) {
		ok := s != "" && len(s) <= 32
		for i, c := range []byte(s) {
			ok = ok && (c == '_' || 'a' <= c && c <= 'z' || i > 0 && (c == '-' || isDigit(c)))
		}
		if !ok {
			return nil, refuse("%q is not a user: 1 to 32 lower-case letters, digits, _ and -, beginning with a letter or _", clip(s))
		}
		return s, nil
	}}
}

// placeholderFile is a file name in which the target's placeholders stand. Other
// programs write that file, so its place does not depend on ours.
func placeholderFile() *scalar {
	s := fileWith(placeholders())
	read := s.read
	s.read = func(text string) (any, *problem) {
		if !strings.HasPrefix(text, "/") {
			return nil, refuse("%q is not an absolute path", clip(text))
		}
		return read(text)
	}
	s.pattern = "^/"
	return s
}

// nodeFile is a file name in which {node} stands for the node's name.
func nodeFile() *scalar { return fileWith([]string{"node"}) }

func fileWith(known []string) *scalar {
	s := fileName("a file", maxPath)
	read := s.read
	s.read = func(text string) (any, *problem) {
		if _, p := read(text); p != nil {
			return nil, p
		}
		if p := refusePlaceholder(text, known); p != nil {
			return nil, p
		}
		return text, nil
	}
	return s
}

// recordTypes are the types that a DNS check may ask for.
func recordTypes() []string {
	return []string{
		"A", "AAAA", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "LOC", "MX", "NAPTR", "NS", "NSEC", "NSEC3PARAM", "PTR",
		"SOA", "SRV", "SSHFP", "SVCB", "TLSA", "TXT", "URI",
	}
}

// responseCodes are those of a DNS answer (RFC 6895).
func responseCodes() []string {
	return []string{
		"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
	}
}
