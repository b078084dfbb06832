package zone

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/miekg/dns"
)

// defaultTTL is what records get before the file has named any TTL.
const defaultTTL = 3600

// parse reads the master file and calls each for every record with the line
// that it starts on. It goes on after a mistake, so that all are reported.
func parse(text, origin string, rep *report, left *budget, each func(rr dns.RR, line int)) {
	text = strings.TrimPrefix(text, "\ufeff") // editors of other systems begin a file with it
	src := &statements{text: text, line: 1, origin: origin, ttl: defaultTTL, budget: left}
	for !rep.full() {
		parser := dns.NewZoneParser(src, src.origin, "")
		parser.SetDefaultTTL(src.ttl)
		src.begun = 0
		for rr, ok := parser.Next(); ok && src.begun <= 1 && src.fault == "" && !rep.full(); rr, ok = parser.Next() {
			src.owner, src.ttl = rr.Header().Name, rr.Header().Ttl
			if n := src.longString(rr); n > 0 {
				rep.warnf(src.lastLine(), "%s: a string of %d octets is served in pieces of 255, the most that a string may have", src.subject("TXT"), n)
			}
			each(rr, src.lastLine())
			src.begun = 0
		}
		err, line, incomplete := parser.Err(), src.lastLine(), src.incomplete()
		message := ""
		if err != nil && !incomplete {
			message = src.explain(err)
		}
		done := message == "" && !incomplete && src.fault == ""
		if !done {
			src.finish()
		}
		switch {
		case incomplete: // the parser looked for the rest of a record in the next one
			rep.errorf(src.firstLine, "record is incomplete")
		case src.fault != "":
			rep.errorf(src.faultLine, "%s", src.fault)
		case src.depth > 0:
			rep.errorf(src.opened, "parenthesis not closed, opened at line %d", src.opened)
		case !done:
			rep.errorf(line, "%s", message)
		}
		if done || !src.restart() {
			return
		}
	}
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
	opened                   int // line of the outermost parenthesis, while depth > 0
	quoted, comment, escaped bool
	content                  bool // the current statement has begun
	begin, beginLine         int  // of the current statement
	last                     int  // line of the last whole statement

	// Since the parser was last asked for a record: how many have begun, and
	// where the first of them is. It should be one.
	begun, first, firstLine int
	firstEnd, firstEndLine  int // 0 while it goes on

	// A mistake that the parser would not see, or see too late: it is stopped.
	fault     string
	faultLine int
	budget    *budget // for $GENERATE

	// What a parser that takes over after a mistake has to know.
	origin string
	owner  string
	ttl    uint32
}

// errFault stops the parser after a fault of its statements.
var errFault = errors.New("stopped")

// ReadByte makes the parser's lexer read without a buffer, in step with us.
func (s *statements) ReadByte() (byte, error) {
	if s.inject != "" {
		c := s.inject[0]
		s.inject = s.inject[1:]
		return c, nil
	}
	if s.fault != "" {
		return 0, errFault
	}
	if s.pos >= len(s.text) {
		s.unquote()
		s.end()
		return 0, io.EOF
	}
	c := s.text[s.pos]
	s.track(c)
	s.pos++
	if s.fault != "" {
		return 0, errFault
	}
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
		s.unquote()
		s.line++
		s.comment, s.escaped = false, false
		if s.depth == 0 {
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
		if s.depth++; s.depth == 1 {
			s.opened = s.line
		}
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

// unquote ends a quoted string at the end of its line. The parser would go on
// to the next quote, over records that would be lost in the string.
func (s *statements) unquote() {
	if !s.quoted {
		return
	}
	s.fail(s.line, fmt.Sprintf("quote not closed, begun at line %d", s.line))
	s.quoted, s.depth = false, 0
}

// fail stops the parser. The first fault counts.
func (s *statements) fail(line int, fault string) {
	if s.fault == "" && fault != "" {
		s.fault, s.faultLine = fault, line
	}
}

// incomplete reports whether the parser, in search of a record's end, has read
// into the next statement.
func (s *statements) incomplete() bool {
	return s.begun > 1 || s.begun == 1 && s.firstEnd > 0 && s.begin >= s.firstEnd
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
	if s.begin > 0 && s.text[s.begin-1] != '\n' || len(fields) == 0 {
		return
	}
	switch name := strings.ToUpper(fields[0]); name {
	case "$ORIGIN":
		if len(fields) >= 2 {
			if origin := absolute(fields[1], s.origin); origin != "" {
				s.origin = origin
			}
		}
	case "$GENERATE":
		s.fail(s.beginLine, s.budget.take(s.text[s.begin:s.pos]))
	case "$TTL", "$INCLUDE":
	default:
		s.fail(s.beginLine, fmt.Sprintf("unknown directive %q: there are $ORIGIN, $TTL and $GENERATE", clip(fields[0])))
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
	s.depth, s.quoted, s.comment, s.escaped, s.fault = 0, false, false, false, ""
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
