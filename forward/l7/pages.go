package l7

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxPage is the largest file of an error page, in bytes.
const maxPage = 256 << 10

// A Page is what clients are shown instead of an error of our own. In its files
// {status}, {reason}, {detail} and {request_id} stand for what happened, escaped.
type Page struct {
	// Statuses it is for; empty = all.
	Statuses []int
	// HTML and JSON are files, for clients that accept them; "" = ours.
	HTML, JSON string
}

// A page is one that has been read.
type page struct{ html, json []byte }

// pages are those of a listener or a route, by status; 0 is for all others.
type pages map[int]*page

// readPages reads the files. All mistakes are returned at once.
func readPages(list []Page) (pages, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make(pages)
	var errs []error
	for _, p := range list {
		read := &page{}
		for _, file := range []struct {
			name string
			to   *[]byte
		}{{p.HTML, &read.html}, {p.JSON, &read.json}} {
			if file.name == "" {
				continue
			}
			body, err := readPage(file.name)
			if err != nil {
				errs = append(errs, fmt.Errorf("error page: %w", err))
			}
			*file.to = body
		}
		statuses := p.Statuses
		if len(statuses) == 0 {
			statuses = []int{0}
		}
		for _, status := range statuses {
			if out[status] != nil {
				errs = append(errs, fmt.Errorf("error page: status %d has one already", status))
			}
			out[status] = read
		}
	}
	return out, errors.Join(errs...)
}

func readPage(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxPage+1))
	if err == nil && len(body) > maxPage {
		err = fmt.Errorf("%s: has more than %d bytes", name, maxPage)
	}
	return body, err
}

// find returns the page for a status, nil if there is none.
func (p pages) find(status int) *page {
	if found := p[status]; found != nil {
		return found
	}
	return p[0]
}

// fill makes the body of an error, as the client accepts it.
func (w *work) fill(n *notice, f fault) {
	var custom *page
	if w.rule != nil {
		custom = w.set.extras[w.rule.Index].pages.find(f.status)
	}
	if custom == nil {
		custom = w.set.pages.find(f.status)
	}
	switch w.accepts() {
	case acceptJSON:
		n.contentType = "application/json"
		if custom != nil && custom.json != nil {
			n.body = w.expand(custom.json, f, jsonText)
			return
		}
		n.body = w.expand([]byte(builtinJSON), f, jsonText)
		if len(w.requestID) == 0 {
			n.body = bytes.Replace(n.body, []byte(`,"request_id":""`), nil, 1)
		}
	case acceptHTML:
		n.contentType = "text/html; charset=utf-8"
		if custom != nil && custom.html != nil {
			n.body = w.expand(custom.html, f, html.EscapeString)
			return
		}
		n.body = w.expand([]byte(builtinHTML), f, html.EscapeString)
	default:
		n.contentType = plainText
		n.body = append(append(make([]byte, 0, len(f.text)+1), f.text...), '\n')
	}
}

const (
	builtinJSON = `{"status":{status},"reason":"{reason}","detail":"{detail}","request_id":"{request_id}"}` + "\n"
	builtinHTML = "<!doctype html>\n<title>{status} {reason}</title>\n<h1>{status} {reason}</h1>\n<p>{detail}</p>\n"
)

// expand replaces what stands in braces.
func (w *work) expand(page []byte, f fault, escape func(string) string) []byte {
	return []byte(strings.NewReplacer(
		"{status}", strconv.Itoa(f.status),
		"{reason}", escape(statusText(f.status)),
		"{detail}", escape(f.text),
		"{request_id}", escape(string(w.requestID)),
	).Replace(string(page)))
}

// jsonText is s as it stands inside a JSON string.
func jsonText(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil || len(quoted) < 2 {
		return ""
	}
	return string(quoted[1 : len(quoted)-1])
}

// What a client wants to read.
const (
	acceptText = 1 + iota
	acceptHTML
	acceptJSON
)

// accepts is what the client prefers of what errors can be: HTML or JSON if it names
// them (RFC 9110, 12.5.1), plain text otherwise.
func (w *work) accepts() int {
	if w.prefers != 0 {
		return w.prefers
	}
	best, quality := acceptText, 0
	for i := range w.req.fields {
		f := &w.req.fields[i]
		if !is(f.name, "accept") {
			continue
		}
		for list := f.value; len(list) > 0; {
			var item []byte
			item, list = listItem(list)
			media, params, _ := bytes.Cut(item, []byte(";"))
			kind := acceptText
			switch media = trim(media); {
			case is(media, "text/html"), is(media, "application/xhtml+xml"):
				kind = acceptHTML
			case is(media, "application/json"), is(media, "application/problem+json"):
				kind = acceptJSON
			case is(media, "text/plain"):
			default:
				continue
			}
			if q := qualityOf(params); q > quality {
				best, quality = kind, q
			}
		}
	}
	return best
}

// qualityOf reads the weight of an element in thousandths; 1000 without one.
func qualityOf(params []byte) int {
	for len(params) > 0 {
		var p []byte
		p, params, _ = bytes.Cut(params, []byte(";"))
		if p = trim(p); len(p) > 2 && lowered(p[0]) == 'q' && p[1] == '=' {
			q, err := strconv.ParseFloat(string(p[2:]), 64)
			if err != nil || q < 0 || q > 1 {
				return 0
			}
			return int(q * 1000)
		}
	}
	return 1000
}
