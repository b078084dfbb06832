package zone

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// explain turns the parser's error into a sentence for the writer of the file,
// without a position.
func (s *statements) explain(err error) string {
	message, token := split(err)
	if strings.Contains(message, "$INCLUDE") {
		return "$INCLUDE is not allowed: put all records of the zone in one file"
	}
	if message == "extra closing brace" || token == "extra closing brace" {
		return "parenthesis closed that was not opened"
	}
	missing := strings.TrimSpace(token) == ""
	if words := strings.Fields(message); len(words) == 3 && words[0] == "bad" && dns.StringToType[words[1]] != 0 {
		return s.subject(words[1]) + ": " + badData(words[1], words[2], token, missing)
	}
	switch message {
	case "not a TTL", "expecting RR type, TTL or class, not this...", "expecting RR type or class, not this...",
		"expecting RR type or TTL, not this...", "unknown RR type", "syntax error at beginning":
		return s.unknownType(token, missing)
	case "unknown class":
		return "unknown class: only IN is served"
	case "bad owner name", "bad origin name":
		return fmt.Sprintf("%q is not a domain name", token)
	case "expecting $TTL value, not this...":
		return fmt.Sprintf("$TTL: %q is not a TTL: write seconds, or numbers with s, m, h, d or w", token)
	case "expecting $ORIGIN value, not this...":
		return fmt.Sprintf("$ORIGIN: %q is not a domain name", token)
	case "garbage after rdata":
		return fmt.Sprintf("unexpected %q after the end of the record", token)
	case "unexpected newline":
		return "record is incomplete"
	}
	if missing {
		return message
	}
	return fmt.Sprintf("%s: %q", message, token)
}

// split takes the parser's error apart into what is wrong and with what.
func split(err error) (message, token string) {
	message = err.Error()
	parseErr := new(dns.ParseError)
	if !errors.As(err, &parseErr) {
		return message, ""
	}
	if at := strings.LastIndex(message, " at line: "); at > 0 {
		message = message[:at]
	}
	message = strings.TrimPrefix(message, "dns: ")
	if at := strings.LastIndex(message, ": \""); at >= 0 {
		if text, err := strconv.Unquote(message[at+2:]); err == nil {
			return message[:at], clip(text)
		}
	}
	return message, ""
}

// mostQuoted is how much of a word is repeated: a file that is no zone file may be one word of megabytes.
const mostQuoted = 80

func clip(word string) string {
	if len(word) <= mostQuoted {
		return word
	}
	return word[:mostQuoted] + "…"
}

// badData says what is wrong with a field of a record.
func badData(rtype, field, token string, missing bool) string {
	switch {
	case missing:
		return "data is missing"
	case rtype == "A":
		return fmt.Sprintf("%q is not an IPv4 address", token)
	case rtype == "AAAA":
		return fmt.Sprintf("%q is not an IPv6 address", token)
	}
	switch field {
	case "Target", "Mx", "Ns", "Mbox", "Ptr", "Host":
		return fmt.Sprintf("%q is not a domain name", token)
	}
	return fmt.Sprintf("%q cannot be its %s", token, strings.ToLower(field))
}

// unknownType speaks of what stands where a type should.
func (s *statements) unknownType(token string, missing bool) string {
	if token == "unknown RR type" { // the parser does not say which
		for _, field := range strings.Fields(s.text[s.begin:min(s.pos, len(s.text), s.begin+1024)]) {
			if strings.HasPrefix(strings.ToUpper(field), "TYPE") {
				token = field
			}
		}
	}
	switch {
	case missing:
		return "record type is missing"
	case token[0] == '$' && (s.begin == 0 || s.text[s.begin-1] == '\n'):
		return token + ": its value is missing"
	case token[0] == '$':
		return fmt.Sprintf("directive %q has to stand at the beginning of its line", token)
	case '0' <= token[0] && token[0] <= '9':
		return fmt.Sprintf("%q is not a TTL: write seconds, or numbers with s, m, h, d or w", token)
	}
	return fmt.Sprintf("unknown record type %q", token)
}

// subject names the current record: its owner as written, and its type.
func (s *statements) subject(rtype string) string {
	owner := strings.TrimSuffix(s.owner, ".")
	switch {
	case s.begun == 0:
		owner = "$GENERATE"
	case s.first == 0 || s.text[s.first-1] == '\n':
		if fields := strings.Fields(s.text[s.first:min(len(s.text), s.first+1024)]); len(fields) > 0 {
			owner = fields[0]
		}
	}
	return strings.TrimSpace(owner + " " + rtype)
}

// longString returns the length of the longest string of a TXT record if that is
// over 255 octets, else 0. The parser has cut it in pieces already.
func (s *statements) longString(rr dns.RR) int {
	txt, ok := rr.(*dns.TXT)
	if !ok || s.begun != 1 {
		return 0
	}
	full := false
	for _, piece := range txt.Txt {
		full = full || len(piece) >= 255
	}
	if !full {
		return 0
	}
	end := s.firstEnd
	if end == 0 {
		end = s.pos
	}
	longest, length, quoted := 0, 0, false
	statement := s.text[s.first:end]
	for i := 0; i < len(statement); i++ {
		switch c := statement[i]; {
		case c == '\\':
			length++
			if i+3 < len(statement) && '0' <= statement[i+1] && statement[i+1] <= '9' {
				i += 2
			}
			i++
		case c == '"':
			quoted, length = !quoted, 0
		case quoted:
			length++
		case c == ';':
			if newline := strings.IndexByte(statement[i:], '\n'); newline >= 0 {
				i += newline
			} else {
				i = len(statement)
			}
			length = 0
		case strings.IndexByte(" \t\r\n()", c) >= 0:
			length = 0
		default:
			length++
		}
		longest = max(longest, length)
	}
	if longest <= 255 {
		return 0
	}
	return longest
}
