package probe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// validateBody returns what is wrong with what c wants of bodies, and with where
// it looks for a weight.
func (c Check) validateBody() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Method == "HEAD" {
		for _, part := range []struct {
			what string
			set  bool
		}{
			{fmt.Sprintf("body %.40q", c.Body), c.Body != ""},
			{fmt.Sprintf("body regexp %.40q", c.BodyRegexp), c.BodyRegexp != ""},
			{"json", len(c.JSON) > 0},
			{fmt.Sprintf("weight from JSON %.40q", c.WeightJSON), c.WeightJSON != ""},
		} {
			if part.set {
				bad("%s: an answer to HEAD has no body", part.what)
			}
		}
	}
	if _, err := regexp.Compile(c.BodyRegexp); err != nil {
		bad("body regexp %.40q: %w", c.BodyRegexp, err)
	}
	if len(c.JSON) > maxJSON {
		bad("%d json conditions: at most %d", len(c.JSON), maxJSON)
	}
	texts := []string{c.Body, c.BodyRegexp, c.WeightJSON}
	for _, m := range c.JSON {
		texts = append(texts, m.Path, m.Value)
		if _, err := parsePath(m.Path); err != nil {
			bad("json %w", err)
		}
	}
	if c.WeightJSON != "" {
		if _, err := parsePath(c.WeightJSON); err != nil {
			bad("weight from JSON: %w", err)
		}
	}
	if c.WeightHeader != "" && !validHeader(Header{c.WeightHeader, ""}) {
		bad("weight from header %.40q: not the name of a header field", c.WeightHeader)
	}
	return append(errs, tooLong(texts...)...)
}

// body is what was read of a body, decoded if anybody asks.
type body struct {
	data    []byte
	decoded bool
	valid   bool // data is JSON; then value is what it says
	value   any
}

// judgeBody holds a body against the check, and returns as much of it as was
// needed for that.
func (p *prober) judgeBody(r io.Reader, c *Check) (b body, err error) {
	r = io.LimitReader(r, maxBodyBytes)
	if c.BodyRegexp == "" && len(c.JSON) == 0 && c.WeightJSON == "" {
		if c.Body == "" {
			return b, nil
		}
		return b, find(r, []byte(c.Body))
	}
	if b.data, err = io.ReadAll(r); err != nil {
		return b, err
	}
	if !bytes.Contains(b.data, []byte(c.Body)) {
		return b, lacks(b.data, "contain", c.Body)
	}
	if c.BodyRegexp != "" {
		pattern, err := p.patterns.get(c.BodyRegexp)
		if err != nil {
			return b, finding{fmt.Errorf("body regexp: %w", err)}
		}
		if !pattern.Match(b.data) {
			return b, lacks(b.data, "match", c.BodyRegexp)
		}
	}
	for _, m := range c.JSON {
		if err := b.match(m); err != nil {
			return b, err
		}
	}
	return b, nil
}

// find reads until want has occurred.
func find(r io.Reader, want []byte) error {
	var seen []byte
	for chunk := make([]byte, 4<<10); ; {
		n, err := r.Read(chunk)
		from := max(len(seen)-len(want)+1, 0)
		seen = append(seen, chunk[:n]...)
		if bytes.Contains(seen[from:], want) {
			return nil
		}
		switch {
		case errors.Is(err, io.EOF):
			return lacks(seen, "contain", string(want))
		case err != nil:
			return err
		}
	}
}

// lacks is the finding that a body, read as far as data, does not do something to
// want.
func lacks(data []byte, do, want string) error {
	return finding{fmt.Errorf("body does not %s %.60q%s", do, want, upTo(data))}
}

// upTo says how far a body was read, if not to its end.
func upTo(data []byte) string {
	if len(data) < maxBodyBytes {
		return ""
	}
	return fmt.Sprintf(" in its first %d KiB", maxBodyBytes>>10)
}

// decode makes value of data, once.
func (b *body) decode() bool {
	if !b.decoded {
		d := json.NewDecoder(bytes.NewReader(b.data))
		d.UseNumber()
		b.decoded = true
		b.valid = d.Decode(&b.value) == nil
		if b.valid {
			_, err := d.Token() // nothing may follow
			b.valid = errors.Is(err, io.EOF)
		}
	}
	return b.valid
}

// match returns a finding unless the condition holds.
func (b *body) match(m JSONMatch) error {
	if !b.decode() {
		return finding{fmt.Errorf("body is not JSON%s", upTo(b.data))}
	}
	path, err := parsePath(m.Path)
	if err != nil {
		return finding{fmt.Errorf("json %w", err)}
	}
	is := "missing"
	if v, ok := path.find(b.value); ok {
		text, simple := plain(v)
		if simple && text == m.Value {
			return nil
		}
		is = text
		if simple {
			is = fmt.Sprintf("%.40q", text)
		}
	}
	return finding{fmt.Errorf("JSON %.60s is %s, want %.40q", path, is, m.Value)}
}

// plain returns a JSON value as text, or what it is if it is not a simple one.
func plain(v any) (text string, simple bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	case nil:
		return "null", true
	case []any:
		return "an array", false
	default:
		return "an object", false
	}
}

// weight returns the weight at path.
func (b *body) weight(at string) (uint8, bool) {
	path, err := parsePath(at)
	if err != nil || !b.decode() {
		return 0, false
	}
	v, _ := path.find(b.value)
	text, _ := plain(v)
	return percent(text)
}

// percent parses a weight: a decimal number of 0 to 100, which may end in "%",
// rounded to the nearest whole one.
func percent(s string) (weight uint8, ok bool) {
	s = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "%"))
	if len(s) > 20 || strings.Trim(s, "0123456789.") != "" {
		return 0, false // nor any of the other notations of numbers
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f > 100 {
		return 0, false
	}
	return uint8(math.Round(f)), true
}

// maxPatterns is how many compiled regular expressions are kept. Above it all are
// dropped and made again, which costs time and nothing else.
const maxPatterns = 4096

// patterns keeps regular expressions compiled. Its zero value is ready.
type patterns struct {
	mu   sync.Mutex
	kept map[string]*regexp.Regexp // mu guards it
}

// get returns s compiled.
func (p *patterns) get(s string) (*regexp.Regexp, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.kept[s]; r != nil {
		return r, nil
	}
	r, err := regexp.Compile(s)
	if err != nil {
		return nil, err
	}
	if p.kept == nil || len(p.kept) >= maxPatterns {
		p.kept = make(map[string]*regexp.Regexp)
	}
	p.kept[s] = r
	return r, nil
}
