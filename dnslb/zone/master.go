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
		src.begun = 0
		for rr, ok := parser.Next(); ok && src.begun <= 1; rr, ok = parser.Next() {
			src.owner, src.ttl = rr.Header().Name, rr.Header().Ttl
			each(rr, src.lastLine())
			src.begun = 0
		}
		switch err := parser.Err(); {
		case err == nil && src.begun <= 1:
			return
		case src.begun > 1: // the parser looked for the rest of a record in the next one
			rep.errorf(src.firstLine, "record is incomplete")
		default:
			rep.errorf(src.lastLine(), "%s", explain(err))
		}
		src.finish()
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

	// Since the parser was last asked for a record: how many have begun, and
	// where the first of them is. It should be one.
	begun, first, firstLine int
	firstEnd, firstEndLine  int // 0 while it goes on

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
		if c != '$' {
			if s.begun++; s.begun == 1 {
				s.first, s.firstLine, s.firstEnd = s.pos, s.line, 0
			}
		}
	}
}

// end closes the current statement.
func (s *statements) end() {
	if !s.content {
		return
	}
	s.content = false
	s.last = s.beginLine
	if s.begun == 1 && s.firstEnd == 0 {
		s.firstEnd, s.firstEndLine = min(s.pos+1, len(s.text)), s.line
	}
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

// finish moves to the end of the statement that is wrong, forward or back.
func (s *statements) finish() {
	s.inject = ""
	for s.content || s.depth > 0 || s.quoted {
		if _, err := s.ReadByte(); err != nil {
			break
		}
	}
	if s.begun == 0 {
		return // a directive
	}
	if s.firstEnd > 0 {
		s.pos, s.line = s.firstEnd, s.firstEndLine
	}
	// Its owner goes for the lines after it that name none.
	if s.first == 0 || s.text[s.first-1] == '\n' {
		if fields := strings.Fields(s.text[s.first:min(len(s.text), s.first+1024)]); len(fields) > 0 {
			if owner := absolute(fields[0], s.origin); owner != "" {
				s.owner = owner
			}
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
