package config

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

func (b *builder) buildZones() {
	places := make(map[string]*value)
	for name, at := range b.top.entry("zones").chosen {
		if first := places[name]; first != nil {
			b.refuseKey(at, refuse("the zone is given twice: the first is on line %d", first.key.Line))
			continue
		}
		places[name] = at
	}
	total := 0
	for name, at := range b.top.entry("zones").chosen {
		if places[name] != at {
			continue
		}
		zone := Zone{Name: name}
		b.master(&zone, at, &total)
		for relative, at := range at.entry("names").chosen {
			if n := b.name(relative, name, at, places); n != nil {
				zone.Names = append(zone.Names, *n)
			}
		}
		slices.SortFunc(zone.Names, func(x, y Name) int { return strings.Compare(x.FQDN, y.FQDN) })
		b.cfg.Zones = append(b.cfg.Zones, zone)
	}
	slices.SortFunc(b.cfg.Zones, func(x, y Zone) int { return strings.Compare(x.Name, y.Name) })
	for _, zone := range b.cfg.Zones {
		b.mix(zone.Name)
		b.mix(zone.Master)
	}
}

// master takes the text of a zone's ordinary records. total counts the bytes of
// all zone files.
func (b *builder) master(zone *Zone, at *value, total *int) {
	inline, from := at.entry("records"), at.entry("file")
	switch {
	case inline != nil:
		text, ok := inline.data.(string)
		if ok && isBlank(text) && !mayHaveNames(at) {
			b.refuse(inline, refuse("is empty: write records, or add names"))
		}
		zone.Master, zone.MasterLine = text, firstLine(inline.node, text)
		zone.MasterFile = b.reading.name + " (" + inline.path() + ")"
	case from == nil:
		if !at.isMeant("file", "records") && !mayHaveNames(at) {
			b.refuseKey(at, refuse("has no records and no names: write file or records, names, or both"))
		}
	case from.data != nil:
		b.masterFile(zone, at, from, total)
	}
}

// masterFile reads a zone's ordinary records from the file that it names.
func (b *builder) masterFile(zone *Zone, at, from *value, total *int) {
	name := from.data.(string)
	data, p := b.readFile(name, maxZoneFile)
	if *total += len(data); p == nil && *total > maxZoneBytes {
		p = refuse("the zone files have more than %d bytes together", maxZoneBytes)
	}
	if p == nil && isBlank(string(data)) && !mayHaveNames(at) {
		p = refuse("%s is empty: write records into it, or add names", clip(name))
	}
	if p != nil {
		b.refuse(from, p)
		return
	}
	zone.Master, zone.MasterFile = string(data), b.resolve(name)
}

func isBlank(text string) bool { return strings.TrimSpace(text) == "" }

// mayHaveNames reports whether a zone has steered names, or would have without a
// mistake that has been reported.
func mayHaveNames(at *value) bool {
	names := at.entry("names")
	return at.isMeant("names") || names != nil && (names.node.Kind != yaml.MappingNode || len(names.node.Content) > 0)
}

// firstLine returns the line of the file that is the first of a literal block; 0
// if the lines of text, which the block was read to, are not those of the file.
func firstLine(n *yaml.Node, text string) int {
	if n.Style&yaml.LiteralStyle == 0 || strings.ContainsAny(text, "\u2028\u2029") ||
		strings.Count(text, "\n") != strings.Count(n.Value, "\n") {
		return 0
	}
	return n.Line + 1
}

// name reads one steered name of a zone; nil if it cannot be one.
func (b *builder) name(relative, zone string, at *value, zones map[string]*value) *Name {
	fqdn, p := resolveName(relative, zone)
	if p != nil {
		b.refuseKey(at, p)
		return nil
	}
	if first := b.steered[fqdn]; first != nil {
		b.refuseKey(at, refuse("%s is given twice: the first is on line %d", plainName(fqdn), first.at.key.Line))
		return nil
	}
	for _, parent, ok := strings.Cut(fqdn, "."); ok && within(parent, zone) && parent != zone; _, parent, ok = strings.Cut(parent, ".") {
		if zones[parent] != nil {
			b.refuseKey(at, refuse("%s belongs to the zone %s, which is configured too: move it there", plainName(fqdn), plainName(parent)))
			return nil
		}
	}
	if fqdn != zone && zones[fqdn] != nil {
		b.refuseKey(at, refuse("%s is a zone of its own, which is configured too: move it there as @", plainName(fqdn)))
		return nil
	}
	n := &steeredName{at: at, Name: Name{
		FQDN:    fqdn,
		Service: get[string](at, "service"),
		TTL:     get[time.Duration](at, "ttl"),
		Anycast: get[string](at, "answer") == answerAnycast,
	}}
	b.steered[fqdn] = n
	d := b.services[n.Service]
	switch {
	case d == nil || !at.sound("answer"):
	case n.Anycast && d.at.isMeant("vip"):
	case n.Anycast && len(d.Anycast) == 0 && d.at.section("vip").entry(vipAnycast) == nil:
		b.refuse(at.entry("answer"), refuse("%s has no anycast addresses: add services.%s.vip.anycast, or answer steered", d.Name, d.Name))
	case !n.Anycast && d.named == nil:
		d.named = n
	}
	return &n.Name
}

// find returns the steered name that answers a query name: itself, or the
// wildcard above it.
func (b *builder) find(fqdn string) *steeredName {
	if n := b.steered[fqdn]; n != nil {
		return n
	}
	for _, parent, ok := strings.Cut(fqdn, "."); ok && parent != ""; _, parent, ok = strings.Cut(parent, ".") {
		if n := b.steered["*."+parent]; n != nil {
			return n
		}
	}
	return nil
}
