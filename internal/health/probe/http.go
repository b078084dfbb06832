package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Header is one header field that an HTTP check sends.
type Header struct{ Name, Value string }

// StatusRange is an inclusive range of HTTP status codes.
type StatusRange struct{ From, To int }

// The bounds on what an HTTP check reads, whatever the version.
const (
	maxHeaderBytes = 64 << 10
	maxBodyBytes   = 64 << 10
)

// maxHeaders is how many header fields a check may send, maxJSON how many
// conditions it may put on a JSON body.
const (
	maxHeaders = 64
	maxJSON    = 64
)

// userAgent is what HTTP checks call themselves.
const userAgent = "pharos-check/1"

// response is what a target answered in any version of HTTP.
type response struct {
	code   int
	header http.Header
	body   io.Reader // bounded by whoever reads it
}

// defaultHTTP fills in what HTTP and HTTPS checks leave out.
func (c *Check) defaultHTTP() {
	if c.Method == "" {
		c.Method = "GET"
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.Version == 0 {
		c.Version = 1
	}
	c.defaultNames()
	if len(c.Status) == 0 {
		c.Status = []StatusRange{{200, 399}}
	}
}

// defaultNames fills in Host and SNI.
func (c *Check) defaultNames() {
	if c.SNI == "" {
		c.SNI = hostname(c.Host)
	}
	if c.SNI == "" {
		c.SNI = c.Target.Addr.Addr().WithZone("").String()
	}
	if c.Host == "" {
		c.Host = c.Target.Addr.String()
	}
}

// hostname is a Host header without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// validateHTTP returns what is wrong with the HTTP part.
func (c Check) validateHTTP() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Method != "GET" && c.Method != "HEAD" {
		bad("method %.40q: want GET or HEAD", c.Method)
	}
	if c.Path[0] != '/' || strings.ContainsFunc(c.Path, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) {
		bad("path %.40q: want a path that begins with / and has no spaces or control characters", c.Path)
	} else if _, err := url.ParseRequestURI(c.Path); err != nil && c.Version > 1 {
		bad("path %.40q: HTTP/%d cannot carry it", c.Path, c.Version)
	}
	switch {
	case c.Version < 1 || c.Version > 3:
		bad("version %d: want 1, 2 or 3", c.Version)
	case c.Version == 3 && c.Kind != HTTPS:
		bad("version 3: HTTP/3 is always encrypted; want kind https")
	}
	if len(c.Headers) > maxHeaders {
		bad("%d headers: at most %d", len(c.Headers), maxHeaders)
	}
	for _, h := range c.Headers {
		switch strings.ToLower(h.Name) {
		case "host", "connection", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer",
			"keep-alive", "proxy-connection":
			bad("header %s: cannot be set by a check", h.Name)
			continue
		}
		if !validHeader(h) {
			bad("header %.40q: not a header field", h.Name)
		}
	}
	for _, s := range c.Status {
		if s.From < 100 || s.To > 599 || s.From > s.To {
			bad("status %d-%d: want a range within 100-599", s.From, s.To)
		}
	}
	return slices.Concat(errs, c.validateNames(), c.validateBody(), tooLong(c.Path))
}

// validHeader reports whether h can be sent as it is.
func validHeader(h Header) bool {
	return httpguts.ValidHeaderFieldName(h.Name) && httpguts.ValidHeaderFieldValue(h.Value) && len(h.Name)+len(h.Value) <= maxText
}

// validateNames returns what is wrong with Host, SNI and MinValid.
func (c Check) validateNames() (errs []error) {
	if !httpguts.ValidHostHeader(c.Host) || strings.ContainsAny(c.Host, "/ ") {
		errs = append(errs, fmt.Errorf("host %.40q: not a host", c.Host))
	}
	if c.MinValid < 0 || c.MinValid > maxMinValid {
		errs = append(errs, fmt.Errorf("min_valid %v: want 0s to %v", c.MinValid, maxMinValid))
	}
	return append(errs, tooLong(c.Host, c.SNI)...)
}

// probeHTTP runs an HTTP or HTTPS check once.
func (p *prober) probeHTTP(ctx context.Context, c *Check) Result {
	alpn := "http/1.1"
	switch c.Version {
	case 2:
		alpn = "h2"
	case 3:
		return p.probeHTTP3(ctx, c)
	}
	conn, end, at, err := p.open(ctx, c, alpn)
	if err != nil {
		return explain(err, at, c.Timeout)
	}
	defer end()
	var a response
	if c.Version == 2 {
		a, at, err = ask2(ctx, conn, c)
	} else {
		r := p.reader()
		defer func() {
			r.Reset(nil) // it holds the connection
			p.readers.Put(r)
		}()
		a, at, err = ask1(conn, r, c)
	}
	if err != nil {
		return explain(err, at, c.Timeout)
	}
	return p.judge(a, c)
}

// newRequest returns the request of c for the versions that are spoken through a
// library.
func newRequest(ctx context.Context, c *Check, scheme string) (*http.Request, error) {
	at, err := url.ParseRequestURI(c.Path)
	if err != nil {
		return nil, finding{fmt.Errorf("path %.40q cannot be sent", c.Path)}
	}
	at.Scheme, at.Host = scheme, c.Target.Addr.String()
	r := &http.Request{
		Method: c.Method, URL: at, Host: c.Host, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: http.Header{"User-Agent": {userAgent}},
	}
	for _, h := range c.Headers {
		if http.CanonicalHeaderKey(h.Name) == "User-Agent" {
			r.Header.Set(h.Name, h.Value)
		} else {
			r.Header.Add(h.Name, h.Value)
		}
	}
	return r.WithContext(ctx), nil
}

// judge holds an answer against the check.
func (p *prober) judge(a response, c *Check) Result {
	r := Result{Code: a.code}
	fail := func(err error) Result {
		r := explain(err, reading, c.Timeout)
		r.Code = a.code
		return r
	}
	if !good(a.code, c.Status) {
		return fail(finding{fmt.Errorf("status %d, want %s", a.code, ranges(c.Status))})
	}
	body, err := p.judgeBody(a.body, c)
	if err != nil {
		return fail(err)
	}
	if c.WeightHeader != "" {
		r.Weight, r.HasWeight = percent(a.header.Get(c.WeightHeader))
	}
	if c.WeightJSON != "" && !r.HasWeight {
		r.Weight, r.HasWeight = body.weight(c.WeightJSON)
	}
	return r
}

// good reports whether code is in one of the ranges.
func good(code int, want []StatusRange) bool {
	return slices.ContainsFunc(want, func(r StatusRange) bool { return r.From <= code && code <= r.To })
}

// ranges writes status ranges as "200-299 or 404".
func ranges(want []StatusRange) string {
	var b bytes.Buffer
	for i, r := range want {
		if i > 0 {
			b.WriteString(" or ")
		}
		fmt.Fprint(&b, r.From)
		if r.To != r.From {
			fmt.Fprintf(&b, "-%d", r.To)
		}
	}
	return b.String()
}

// errTooLarge is the finding that the headers of an answer have no end.
var errTooLarge = finding{errors.New("headers larger than 64 KiB")}
