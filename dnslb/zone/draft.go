package zone

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/pharos-lb/pharos/dnslb/wire"
)

// A draft is one zone while it is being compiled: names in lower-case wire
// form, as map keys.
type draft struct {
	spec    *Spec
	rep     *report
	apex    string // key
	entries map[string]*entry
	order   []named // set by check: all of entries, sorted
	covers  bool    // set by check: some entry may be the cover of others
	records int
	buf     []byte    // scratch for packing
	name    wire.Name // scratch
}

// An entry is one name of a draft.
type entry struct {
	sets    []rawSet
	steered *Steered
	// implied: the name is the apex of another zone of ours, so that this zone
	// ends here whether or not it says so with NS records.
	implied bool
}

// A rawSet is a record set in the making.
type rawSet struct {
	RRset
	ttl  uint32
	line int
}

func (e *entry) set(rtype uint16) *rawSet {
	for i := range e.sets {
		if e.sets[i].Type == rtype {
			return &e.sets[i]
		}
	}
	return nil
}

func (e *entry) line() int {
	if len(e.sets) > 0 {
		return e.sets[0].line
	}
	return 0
}

// newDraft reads a spec. What is wrong goes to rep; $GENERATE uses up what is left.
func newDraft(spec *Spec, rep *report, left *budget) *draft {
	d := &draft{spec: spec, rep: rep, entries: make(map[string]*entry), buf: make([]byte, wire.MaxMessage)}
	apex, ok := d.key(spec.Name)
	if !ok {
		rep.errorf(0, "zone name %q is not a domain name", spec.Name)
		return d
	}
	d.apex = apex
	// The parser takes a record without data for an RFC 2136 update, but only at
	// the end of the text, so the end is made a line of its own.
	parse(strings.TrimRight(spec.Master, " \t\r\n")+"\n$TTL 0\n", dns.Fqdn(spec.Name), rep, left, d.add)
	d.steer()
	d.sign()
	return d
}

// key returns the lower-case wire form of a name in text.
func (d *draft) key(name string) (string, bool) {
	if _, ok := dns.IsDomainName(name); !ok {
		return "", false
	}
	if _, err := dns.PackDomainName(dns.Fqdn(name), d.buf, 0, nil, false); err != nil {
		return "", false
	}
	if _, ok := d.name.Set(d.buf); !ok {
		return "", false
	}
	return string(d.name.From(0)), true
}

// add takes one record of the master file.
func (d *draft) add(rr dns.RR, line int) {
	h := rr.Header()
	if d.records >= MaxRecords {
		if d.records == MaxRecords {
			d.rep.errorf(line, "more than %d records", MaxRecords)
		}
		d.records++
		return
	}
	if h.Class != dns.ClassINET {
		d.rep.errorf(line, "class of %s is %s: only IN is served", h.Name, dns.ClassToString[h.Class])
		return
	}
	if h.Rrtype == 0 || h.Rrtype == wire.TypeOPT || h.Rrtype >= 128 && h.Rrtype <= 255 {
		d.rep.errorf(line, "%s %s: a type for queries, not for zones", h.Name, dns.Type(h.Rrtype))
		return
	}
	if h.Ttl > maxTTL {
		d.rep.warnf(line, "TTL %d of %s is over %d and counts as 0 (RFC 2181)", h.Ttl, h.Name, maxTTL)
		h.Ttl = 0
	}
	end, err := dns.PackRR(rr, d.buf, 0, nil, false)
	if err != nil {
		d.rep.errorf(line, "%s %s: %v", h.Name, dns.Type(h.Rrtype), err)
		return
	}
	size, ok := d.name.Set(d.buf[:end])
	if !ok {
		d.rep.errorf(line, "%s: not a domain name", h.Name)
		return
	}
	key := string(d.name.From(0))
	if !under(key, d.apex) {
		d.rep.errorf(line, "%s is outside of the zone %s", h.Name, d.spec.Name)
		return
	}
	d.put(key, h.Rrtype, h.Ttl, d.buf[size:end], line)
}

// put adds a record, given from its type on, to its set.
func (d *draft) put(key string, rtype uint16, ttl uint32, record []byte, line int) {
	e := d.entries[key]
	if e == nil {
		e = new(entry)
		d.entries[key] = e
	}
	s := e.set(rtype)
	if s == nil {
		e.sets = append(e.sets, rawSet{RRset: RRset{Type: rtype}, ttl: ttl, line: line})
		s = &e.sets[len(e.sets)-1]
	}
	for r := range s.each {
		if bytes.Equal(r[10:], record[8:]) {
			d.rep.warnf(line, "%s %s: the same record twice; once is enough", text(key), dns.Type(rtype))
			return
		}
	}
	if len(s.Records)+2+len(record) > maxSetSize {
		d.rep.errorf(line, "%s %s: the record set does not fit in a DNS message", text(key), dns.Type(rtype))
		return
	}
	s.Records = append(s.Records, 0xc0, byte(wire.QuestionOwner))
	s.Records = append(s.Records, record...)
	s.Count++
	d.records++
	if ttl != s.ttl {
		s.ttl = min(ttl, s.ttl)
		d.rep.warnf(line, "%s %s: TTLs differ within the set; %d counts for all (RFC 2181)", text(key), dns.Type(rtype), s.ttl)
		s.setTTL(s.ttl)
	}
}

// steer adds the steered names.
func (d *draft) steer() {
	for i := range d.spec.Steered {
		st := &d.spec.Steered[i]
		key, ok := d.key(st.FQDN)
		if !ok || !under(key, d.apex) {
			d.rep.errorf(0, "steered name %q is not a name in the zone %s", st.FQDN, d.spec.Name)
			continue
		}
		e := d.entries[key]
		if e == nil {
			e = new(entry)
			d.entries[key] = e
		}
		if e.steered != nil {
			d.rep.errorf(0, "steered name %s is given twice", st.FQDN)
			continue
		}
		if st.TTL > maxTTL {
			d.rep.errorf(0, "steered name %s: TTL %d is over %d", st.FQDN, st.TTL, maxTTL)
			continue
		}
		e.steered = st
	}
}

// authority makes sure of the SOA and NS records at the apex.
func (d *draft) authority() {
	e := d.entries[d.apex]
	if e == nil {
		e = new(entry)
		d.entries[d.apex] = e
	}
	if soa := e.set(wire.TypeSOA); soa != nil && soa.Count > 1 {
		d.rep.errorf(soa.line, "%d SOA records: a zone has exactly one", soa.Count)
	}
	ns := e.set(wire.TypeNS)
	if ns == nil {
		d.rep.warnf(0, "no NS records at %s: resolvers that ask for them get none", d.spec.Name)
	}
	if e.set(wire.TypeSOA) != nil {
		return
	}
	name := dns.Fqdn(strings.ToLower(d.spec.Name))
	suffix := name
	if name == "." {
		suffix = ""
	}
	soa := &dns.SOA{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 3600},
		Ns:  "ns." + suffix, Mbox: "hostmaster." + suffix,
		Serial: d.serial(), Refresh: 7200, Retry: 900, Expire: 1209600, Minttl: 60,
	}
	if ns != nil {
		if target, _, err := dns.UnpackDomainName(ns.Records, 12); err == nil {
			soa.Ns = target
		}
	}
	end, err := dns.PackRR(soa, d.buf, 0, nil, false)
	if err != nil {
		d.rep.errorf(0, "no SOA record, and none can be made up for %s: %v", name, err)
		return
	}
	size, _ := d.name.Set(d.buf[:end])
	d.put(d.apex, wire.TypeSOA, soa.Hdr.Ttl, d.buf[size:end], 0)
	d.rep.warnf(0, "no SOA record at %s: made up mname %s, serial %d, minimum %d", name, soa.Ns, soa.Serial, soa.Minttl)
}

// serial is a hash of what was read (FNV-1a), so that all nodes make up the same.
func (d *draft) serial() uint32 {
	h := uint32(2166136261)
	for i := range len(d.spec.Master) {
		h = (h ^ uint32(d.spec.Master[i])) * 16777619
	}
	for i := range d.spec.Steered {
		for _, c := range []byte(d.spec.Steered[i].FQDN) {
			h = (h ^ uint32(c)) * 16777619
		}
	}
	return max(h, 1)
}

// A named entry is one with its key.
type named struct {
	key string
	*entry
}

// sort puts the entries in an order in which ancestors come first, and messages in the
// same order on every node.
func (d *draft) sort() {
	d.order = make([]named, 0, len(d.entries))
	for key, e := range d.entries {
		d.order = append(d.order, named{key, e})
		d.covers = d.covers || d.cut(key, e) || e.set(wire.TypeDNAME) != nil
	}
	slices.SortFunc(d.order, func(a, b named) int {
		if len(a.key) != len(b.key) {
			return len(a.key) - len(b.key)
		}
		return strings.Compare(a.key, b.key)
	})
}

// under reports whether key is apex or below it.
func under(key, apex string) bool {
	for len(key) > len(apex) {
		key = parent(key)
	}
	return key == apex
}

// parent strips the first label of a key.
func parent(key string) string { return key[1+int(key[0]):] }

// text is a key as operators write it.
func text(key string) string {
	name, _, err := dns.UnpackDomainName([]byte(key), 0)
	if err != nil {
		return "?"
	}
	return name
}

// target returns the key of the name that a record's data consists of, or
// begins with after skip octets.
func target(record []byte, skip int) (string, bool) {
	var n wire.Name
	if len(record) < 12+skip {
		return "", false
	}
	if _, ok := n.Set(record[12+skip:]); !ok {
		return "", false
	}
	return string(n.From(0)), true
}

func recordSize(records []byte) int {
	return 12 + int(binary.BigEndian.Uint16(records[10:]))
}
