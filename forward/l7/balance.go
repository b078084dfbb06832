package l7

import (
	"bytes"

	"github.com/pharos-lb/pharos/forward"
)

// hash is the number that a key makes of the request as it came; 0 for no key.
func (w *work) hash(key forward.Key) uint64 {
	r := &w.req
	var value []byte
	switch key.Kind {
	case forward.KeyNone:
		return 0
	case forward.KeyHeader:
		value = headerValue(r, key.Name)
	case forward.KeyCookie:
		value = cookieValue(r, key.Name)
	case forward.KeyPath:
		value = r.path
	case forward.KeyHost:
		if len(r.hostname) <= maxHost {
			var space [maxHost]byte
			for i, c := range r.hostname {
				space[i] = lowered(c)
			}
			return key.Bytes(space[:len(r.hostname)])
		}
	case forward.KeyFlow:
		if w.ends.peer.IsValid() && w.ends.local.IsValid() {
			return key.Flow(w.ends.peer, w.ends.local)
		}
	}
	if len(value) > 0 {
		return key.Bytes(value)
	}
	if w.who.IsValid() {
		return key.Addr(w.who)
	}
	return 0
}

// headerValue returns the first value of a field; nil without one.
func headerValue(r *request, name string) []byte {
	for i := range r.fields {
		if f := &r.fields[i]; len(f.name) == len(name) && equalFold(f.name, []byte(name)) {
			return f.value
		}
	}
	return nil
}

// cookieValue returns the first value of a cookie (RFC 6265, 5.4); nil without one.
func cookieValue(r *request, name string) []byte {
	for i := range r.fields {
		f := &r.fields[i]
		if !equalFold(f.name, []byte("cookie")) {
			continue
		}
		for rest := f.value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte(";"))
			pair = bytes.TrimLeft(pair, " \t")
			if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
				return pair[len(name)+1:]
			}
		}
	}
	return nil
}
