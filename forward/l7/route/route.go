package route

import "net/netip"

// Limits of a table.
const (
	// MaxHost and MaxPath are the longest host and path that are asked about, in bytes.
	MaxHost = 255
	MaxPath = 8 << 10
	// MaxPatterns is how many routes of a table may have a pattern, for its path or in
	// its conditions, MaxPattern how long one may be.
	MaxPatterns = 256
	MaxPattern  = 1024
	// MaxPatternPath is the longest path, and the longest value, that patterns are tried on.
	MaxPatternPath = 2 << 10
	// MaxConditions is how many conditions on headers, and on the query, a route may have.
	MaxConditions = 16
	// MaxShares is how many services a Split may have.
	MaxShares = 16
)

// A Route says which requests it takes and what becomes of them. Without conditions it
// takes every request. Exactly one of Service, Split, Redirect and Respond is set.
type Route struct {
	// Name is what the route is called in metrics and logs; "" = by its host and path.
	Name string

	// Host is exact ("www.example.com"), "*.example.com" for every name below
	// example.com at any depth, or "" for any. Case and a port do not matter.
	Host string
	// Path is a prefix on whole segments: "/api" covers "/api" and "/api/x" but
	// not "/apis". "" means "/". With Exact it is the whole path.
	Path  string
	Exact bool
	// Pattern is an RE2 expression that the whole path has to match, instead of Path.
	Pattern string
	// Methods are those that are taken; empty = all.
	Methods []string
	// Headers and Query are conditions that have to be met all.
	Headers, Query []Condition
	// Clients are where the client may be; empty = anywhere.
	Clients []netip.Prefix

	// Service names the pool. A service that no plan knows is not an error:
	// requests for it get 503.
	Service string
	// Split shares requests out between services.
	Split *Split
	// Redirect sends the client elsewhere.
	Redirect *Redirect
	// Respond answers without a backend.
	Respond *Response

	// Rewrite changes what the backend is asked for.
	Rewrite Rewrite
	// Request and Response change header fields on the way there and back.
	Request, Response Edit

	// Extra is the caller's own; it is kept and not looked at.
	Extra any
}

// Services returns the services that the route sends requests to.
func (r *Route) Services() []string {
	switch {
	case r.Split != nil:
		out := make([]string, len(r.Split.Shares))
		for i, s := range r.Split.Shares {
			out[i] = s.Service
		}
		return out
	case r.Service != "":
		return []string{r.Service}
	}
	return nil
}

// A Test is how a Condition compares.
type Test uint8

// The tests. A field or parameter that is there several times passes if one of its values does.
const (
	Present Test = iota // whatever its value
	Absent
	Equals
	Prefix
	Matches // an RE2 expression, the whole value
)

// A Condition is about one header field, or one parameter of the query.
type Condition struct {
	// Name of the field, in any case, or of the parameter, exactly.
	Name  string
	Test  Test
	Value string // not for Present and Absent
}

// A Rewrite changes what the backend is asked for. The zero value changes nothing.
type Rewrite struct {
	// Host replaces the Host field.
	Host string
	// Path replaces the whole path; on a route with a Pattern $1 or ${name} stand for
	// what its groups matched.
	Path string
	// Prefix replaces the route's Path at the beginning of the path.
	Prefix string
}

// A Redirect is where the client is sent. What is not said stays as it was asked for.
type Redirect struct {
	// Status is 301, 302, 303, 307 or 308; 0 means 302.
	Status int
	// Scheme is "http" or "https".
	Scheme string
	Host   string
	// Port; 0 = the scheme's own if there is a Scheme or a Host, else as asked.
	Port uint16
	// Path and Prefix are as in Rewrite.
	Path, Prefix string
	// DropQuery leaves the query out.
	DropQuery bool
}

// A Response is a fixed answer.
type Response struct {
	Status int // 200 … 599
	// ContentType; "" means plain text.
	ContentType string
	Body        string
}

// An Edit changes header fields: first it removes, then it sets, then it adds.
type Edit struct {
	Set, Add []Header
	Remove   []string

	gone []string // what Set and Remove take away, lower case
}

// A Header is a field that is written.
type Header struct{ Name, Value string }

// Empty reports whether the edit changes nothing.
func (e *Edit) Empty() bool { return len(e.Set)+len(e.Add)+len(e.Remove) == 0 }

// Takes reports whether a field of the message is to be left out.
func (e *Edit) Takes(name []byte) bool {
	for _, g := range e.gone {
		if sameName(name, g) {
			return true
		}
	}
	return false
}

// A Request is what is asked about. Its slices are not kept.
type Request struct {
	Method []byte
	// Host is the name without a port, as the client wrote it.
	Host []byte
	// Path has passed CheckPath, or is "*". Query is without its question mark.
	Path, Query []byte
	Client      netip.Addr
	Fields      Fields
}

// Fields are the header fields of a request.
type Fields interface {
	// Field returns the value of the first field called name (in lower case) at or
	// after index from, and the index to go on at; −1 if there is none.
	Field(name string, from int) (value []byte, next int)
}

// A Space is what Match works in. Its Path is the path as it was compared, valid until
// the next use of the Space.
type Space struct {
	Path []byte

	host  [MaxHost]byte
	path  [MaxPath]byte
	value [MaxPath]byte
}

// A Rule is a compiled Route.
type Rule struct {
	Route
	// Index is the place of the route among those that the table was made of.
	Index int

	compiled
}
