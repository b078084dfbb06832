package zone

import (
	"errors"
	"io"
	"strings"

	"github.com/miekg/dns"
)

// defaultTTL is what records get before the file has named any TTL.
const defaultTTL = 3600

// parse reads the master file and calls each for every record with the line
// that it starts on. It goes on after a mistake, so that all are reported.
func parse(text, origin string, rep *report, each func(rr dns.RR, line int)) {
	src := &statements{text: text, line: 1, origin: origin, ttl: defaultTTL}
	for !rep.full() {
		parser := dns.NewZoneParser(src, src.origin, "")
		parser.SetDefaultTTL(src.ttl)
		for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
			src.owner, src.ttl = rr.Header().Name, rr.Header().Ttl
			each(rr, src.lastLine())
		}
		err := parser.Err()
		if err == nil {
			return
		}
		line := src.lastLine()
		src.finish()
		rep.errorf(line, "%s", explain(err))
		if !src.restart() {
			return
		}
	}
}

// explain turns the parser's error into a sentence without its own position.
func explain(err error) string {
	message := err.Error()
	if parseErr := new(dns.ParseError); errors.As(err, &parseErr) {
		if at := strings.LastIndex(message, " at line: "); at > 0 {
			message = message[:at]
		}
	}
	message = strings.TrimPrefix(message, "dns: ")
	if strings.Contains(message, "$INCLUDE") {
		return "$INCLUDE is not allowed: put all records of the zone in one file"
	}
	return message
}

// statements feeds the parser octet by octet and keeps track of where each
// statement (a record or directive, over several lines in parentheses) begins,
// because the parser does not say which line a record came from, and gives up
// at the first mistake.
type statements struct {
	text   string
	inject string // read before text goes on
	pos    int
	line   int

	depth                    int
	quoted, comment, escaped bool
	content                  bool // the current statement has begun
	begin, beginLine         int  // of the current statement
	last                     int  // line of the last whole statement

	// What a parser that takes over after a mistake has to know.
	origin string
	owner  string
	ttl    uint32
}

// ReadByte makes the parser's lexer read without a buffer, in step with us.
func (s *statements) ReadByte() (byte, error) {
	if s.inject != "" {
		c := s.inject[0]
		s.inject = s.inject[1:]
		return c, nil
	}
	if s.pos >= len(s.text) {
		s.end()
		return 0, io.EOF
	}
	c := s.text[s.pos]
	s.track(c)
	s.pos++
	return c, nil
}

// Read is there because the parser asks for an io.Reader; it prefers ReadByte.
func (s *statements) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c, err := s.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = c
	return 1, nil
}

func (s *statements) track(c byte) {
	if c == '\n' {
		s.line++
		s.comment, s.escaped = false, false
		if s.depth == 0 && !s.quoted {
			s.end()
		}
		return
	}
	if s.comment {
		return
	}
	switch {
	case s.escaped:
		s.escaped = false
	case c == '\\':
		s.escaped = true
	case c == '"':
		s.quoted = !s.quoted
	case s.quoted:
	case c == ';':
		s.comment = true
		return
	case c == '(':
		s.depth++
	case c == ')':
		s.depth = max(0, s.depth-1)
	case c == ' ' || c == '\t' || c == '\r':
		return
	}
	if !s.content {
		s.content, s.begin, s.beginLine = true, s.pos, s.line
	}
}

// end closes the current statement.
func (s *statements) end() {
	if !s.content {
		return
	}
	s.content = false
	s.last = s.beginLine
	if s.text[s.begin] != '$' {
		return
	}
	fields := strings.Fields(s.text[s.begin:min(s.pos, s.begin+1024)])
	if len(fields) >= 2 && strings.EqualFold(fields[0], "$ORIGIN") {
		if origin := absolute(fields[1], s.origin); origin != "" {
			s.origin = origin
		}
	}
}

// lastLine is the line of the statement that the parser just read or stopped in.
func (s *statements) lastLine() int {
	if s.content {
		return s.beginLine
	}
	return s.last
}

// finish reads to the end of the statement that the parser stopped in.
func (s *statements) finish() {
	s.inject = ""
	if !s.content && s.depth == 0 && !s.quoted {
		return
	}
	// The owner of the broken record goes for the lines after it that name none.
	if first := s.text[s.begin]; s.begin == 0 || s.text[s.begin-1] == '\n' {
		if fields := strings.Fields(s.text[s.begin:min(len(s.text), s.begin+1024)]); first != '$' && len(fields) > 0 {
			if owner := absolute(fields[0], s.origin); owner != "" {
				s.owner = owner
			}
		}
	}
	for s.content || s.depth > 0 || s.quoted {
		if _, err := s.ReadByte(); err != nil {
			return
		}
	}
}

// restart moves to the next statement and readies the state that its parser
// needs. It reports whether there is one.
func (s *statements) restart() bool {
	s.depth, s.quoted, s.comment, s.escaped = 0, false, false, false
	for s.pos < len(s.text) {
		end := strings.IndexByte(s.text[s.pos:], '\n')
		line := s.text[s.pos:]
		if end >= 0 {
			line = line[:end]
		}
		if trimmed := strings.TrimLeft(line, " \t\r"); trimmed != "" && trimmed[0] != ';' {
			if (line[0] == ' ' || line[0] == '\t') && s.owner != "" {
				s.inject = s.owner
			}
			return true
		}
		s.pos += len(line) + 1
		s.line++
	}
	return false
}

// absolute returns the fully qualified form of a name in a file, "" if bad.
func absolute(name, origin string) string {
	if name == "@" {
		return origin
	}
	if !dns.IsFqdn(name) {
		name += "." + strings.TrimPrefix(origin, ".")
	}
	if _, ok := dns.IsDomainName(name); !ok {
		return ""
	}
	return name
}
