package dnslb

import "github.com/pharos-lb/pharos/dnslb/wire"

// chaos answers the few names in class CH that tell about a server (RFC 4892):
// what is hidden, and every other name, is refused.
func (r *responder) chaos() {
	text := ""
	if r.q.Type == wire.TypeTXT || r.q.Type == wire.TypeANY {
		switch string(r.q.Name.From(0)) {
		case "\x07version\x04bind\x00", "\x07version\x06server\x00":
			text = r.set.Version
		case "\x02id\x06server\x00", "\x08hostname\x04bind\x00":
			text = r.set.ServerID
		}
	}
	if text == "" {
		r.reply.Rcode, r.extended = wire.Refused, wire.ExtendedNotSupported
		return
	}
	r.reply.Authoritative = true
	if !r.b.Text(text) {
		r.b.Truncate()
	}
}
