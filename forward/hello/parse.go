package hello

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxLength is how many bytes of records are looked at for a hello.
const MaxLength = 16 << 10

// The ways in which bytes are no hello.
var (
	// ErrIncomplete: so far it is the beginning of one.
	ErrIncomplete = errors.New("the TLS hello is not complete")
	// ErrNotTLS: it does not begin like one.
	ErrNotTLS = errors.New("not a TLS hello")
	// ErrInvalid: it begins like one and breaks the rules. Errors wrap it and say which.
	ErrInvalid = errors.New("invalid TLS hello")
)

// A Hello is what a client asks for.
type Hello struct {
	// ServerName is in lower case and without a dot at its end; "" if it names none.
	ServerName string
	// Protocols are the application protocols (ALPN) in the client's order.
	Protocols []string
}

const (
	recordHandshake = 22
	messageHello    = 1
	maxRecord       = 16 << 10
	extServerName   = 0
	extALPN         = 16
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// Parse reads the hello at the beginning of b.
func Parse(b []byte) (Hello, error) {
	message, err := join(b)
	if err != nil {
		return Hello{}, err
	}
	return parseMessage(message)
}

// join takes the first handshake message out of its records. It copies only what
// is spread over several.
func join(b []byte) ([]byte, error) {
	var all []byte
	own := false // all is a copy
	for at := 0; ; {
		record, err := next(b[at:], at == 0)
		if err != nil {
			return nil, err
		}
		at += 5 + len(record)
		switch {
		case all == nil:
			all = record
		case own:
			all = append(all, record...)
		default:
			all, own = append(slices.Clip(all), record...), true
		}
		if len(all) >= 1 && all[0] != messageHello {
			return nil, invalid("message type %d", all[0])
		}
		if len(all) < 4 {
			continue
		}
		size := 4 + (int(all[1])<<16 | int(all[2])<<8 | int(all[3]))
		switch {
		case size > MaxLength:
			return nil, invalid("%d bytes long, at most %d are read", size, MaxLength)
		case len(all) >= size:
			return all[4:size], nil
		}
	}
}

// next returns the content of the record at the beginning of b.
func next(b []byte, first bool) ([]byte, error) {
	if len(b) >= 1 && b[0] != recordHandshake || len(b) >= 2 && b[1] != 3 {
		if first {
			return nil, ErrNotTLS
		}
		return nil, invalid("a record of type %d between", b[0])
	}
	if len(b) < 5 {
		return nil, ErrIncomplete
	}
	size := int(binary.BigEndian.Uint16(b[3:]))
	switch {
	case size == 0:
		return nil, invalid("an empty record")
	case size > maxRecord:
		return nil, invalid("a record of %d bytes", size)
	case len(b) < 5+size:
		return nil, ErrIncomplete
	}
	return b[5 : 5+size], nil
}

// A cursor takes fields off the beginning of bytes.
type cursor []byte

// take returns n bytes; ok is false if there are fewer.
func (c *cursor) take(n int) (v []byte, ok bool) {
	if len(*c) < n {
		return nil, false
	}
	v, *c = (*c)[:n], (*c)[n:]
	return v, true
}

// vector takes a field with its length in front, of so many bytes.
func (c *cursor) vector(prefix int) (v cursor, ok bool) {
	size, ok := c.take(prefix)
	if !ok {
		return nil, false
	}
	n := 0
	for _, b := range size {
		n = n<<8 | int(b)
	}
	return c.take(n)
}

// parseMessage reads the body of a hello (RFC 8446, section 4.1.2).
func parseMessage(b []byte) (Hello, error) {
	c := cursor(b)
	if _, ok := c.take(2 + 32); !ok {
		return Hello{}, invalid("version or random is cut")
	}
	if session, ok := c.vector(1); !ok || len(session) > 32 {
		return Hello{}, invalid("bad session id")
	}
	if suites, ok := c.vector(2); !ok || len(suites)%2 != 0 {
		return Hello{}, invalid("bad cipher suites")
	}
	if compression, ok := c.vector(1); !ok || len(compression) == 0 {
		return Hello{}, invalid("bad compression methods")
	}
	var h Hello
	if len(c) == 0 {
		return h, nil
	}
	extensions, ok := c.vector(2)
	if !ok || len(c) != 0 {
		return Hello{}, invalid("bad length of extensions")
	}
	seen := make(map[uint16]bool)
	for len(extensions) > 0 {
		kind, ok1 := extensions.take(2)
		data, ok2 := extensions.vector(2)
		if !ok1 || !ok2 {
			return Hello{}, invalid("an extension is cut")
		}
		number := binary.BigEndian.Uint16(kind)
		if seen[number] {
			return Hello{}, invalid("extension %d twice", number)
		}
		seen[number] = true
		if err := h.extension(number, data); err != nil {
			return Hello{}, err
		}
	}
	return h, nil
}

func (h *Hello) extension(number uint16, data cursor) error {
	switch number {
	case extServerName:
		list, ok := data.vector(2)
		if !ok || len(data) != 0 || len(list) == 0 {
			return invalid("bad server name")
		}
		for len(list) > 0 {
			kind, ok1 := list.take(1)
			name, ok2 := list.vector(2)
			switch {
			case !ok1 || !ok2 || len(name) == 0:
				return invalid("bad server name")
			case kind[0] != 0:
				continue
			case h.ServerName != "" || !isName(name):
				return invalid("bad server name %q", []byte(name))
			}
			h.ServerName = strings.ToLower(string(name))
		}
	case extALPN:
		list, ok := data.vector(2)
		if !ok || len(data) != 0 || len(list) == 0 {
			return invalid("bad list of protocols")
		}
		for len(list) > 0 {
			name, ok := list.vector(1)
			if !ok || len(name) == 0 {
				return invalid("bad list of protocols")
			}
			h.Protocols = append(h.Protocols, string(name))
		}
	}
	return nil
}

// maxName is the length of the longest DNS name.
const maxName = 253

// isName reports whether b may be the name of a host: nothing that a log or a
// comparison could take for something else.
func isName(b []byte) bool {
	if len(b) > maxName || b[len(b)-1] == '.' {
		return false
	}
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}
