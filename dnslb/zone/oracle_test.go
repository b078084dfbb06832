package zone

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

// A naiveZone answers as RFC 1034 4.3.2 and RFC 4592 are written: label by
// label from the apex down, over a plain list of names in text.
type naiveZone struct {
	apex    string
	records map[string][]string // name → types
}

func (z *naiveZone) has(name, rtype string) bool { return slices.Contains(z.records[name], rtype) }

// exists: the name owns something, or something below it does.
func (z *naiveZone) exists(name string) bool {
	for owner := range z.records {
		if owner == name || strings.HasSuffix(owner, "."+name) {
			return true
		}
	}
	return false
}

// find returns how qname matches and at which name.
func (z *naiveZone) find(qname, rtype string) (Kind, string) {
	if qname != z.apex && !strings.HasSuffix(qname, "."+z.apex) {
		return NotOurs, ""
	}
	labels := dns.SplitDomainName(strings.TrimSuffix(qname, z.apex))
	at := z.apex
	for {
		if at != z.apex && z.has(at, "NS") && (at != qname || rtype != "DS") {
			return Delegated, at
		}
		if at == qname {
			return Exact, at
		}
		if z.has(at, "DNAME") {
			return Renamed, at
		}
		next := labels[len(labels)-1] + "." + at
		labels = labels[:len(labels)-1]
		if !z.exists(next) {
			if z.exists("*." + at) {
				return Wildcard, "*." + at
			}
			return Missing, at
		}
		at = next
	}
}

// answers are the types that a name owns with authority.
func (z *naiveZone) answers(kind Kind, name string) []string {
	if kind == Delegated {
		return nil
	}
	types := slices.Clone(z.records[name])
	if name != z.apex && z.has(name, "NS") { // asked for DS
		types = slices.DeleteFunc(types, func(t string) bool { return t != "DS" })
	}
	slices.Sort(types)
	return types
}

// TestFindEqualsNaive compares every kind of match over random zones, dense
// enough that cuts, aliases, wildcards and empty non-terminals meet.
func TestFindEqualsNaive(t *testing.T) {
	label := rapid.SampledFrom([]string{"a", "b", "c", "*"})
	name := rapid.Custom(func(t *rapid.T) string {
		labels := rapid.SliceOfN(label, 0, 4).Draw(t, "labels")
		return strings.Join(append(labels, "example.com."), ".")
	})
	rtype := rapid.SampledFrom([]string{"A", "TXT", "MX", "NS", "DS", "DNAME", "CNAME", "A", "TXT"})
	data := map[string]string{
		"A": "192.0.2.1", "TXT": "x", "MX": "1 x.net.", "NS": "ns.x.net.", "DS": "1 13 2 00", "DNAME": "x.net.", "CNAME": "x.net.", "SOA": "n. h. 1 2 3 4 5",
	}
	rapid.Check(t, func(t *rapid.T) {
		z := &naiveZone{apex: "example.com.", records: map[string][]string{"example.com.": {"NS", "SOA"}}}
		for range rapid.IntRange(0, 12).Draw(t, "records") {
			n, ty := name.Draw(t, "name"), rtype.Draw(t, "type")
			wild := strings.HasPrefix(n, "*.") && (ty == "NS" || ty == "DNAME")
			alone := ty == "CNAME" && len(z.records[n]) > 0 || z.has(n, "CNAME")
			if wild || alone || z.has(n, ty) {
				continue // a mistake, or there already
			}
			z.records[n] = append(z.records[n], ty)
		}
		var master strings.Builder
		for n, types := range z.records {
			for _, ty := range types {
				fmt.Fprintf(&master, "%s 60 IN %s %s\n", n, ty, data[ty])
			}
		}
		set, err := Parse("example.com.", master.String(), "z")
		if err != nil {
			t.Fatalf("%v\n%s", err, master.String())
		}
		for range 30 {
			qname, ty := name.Draw(t, "qname"), rtype.Draw(t, "qtype")
			wantKind, wantName := z.find(qname, ty)
			got, _ := find(t, set, qname, ty)
			gotTypes := []string(nil)
			for _, s := range setsOf(&got.Node) {
				if got.Kind != Delegated {
					gotTypes = append(gotTypes, dns.TypeToString[s.Type])
				}
			}
			slices.Sort(gotTypes)
			if got.Kind != wantKind || got.Node.Labels != dns.CountLabel(wantName) || !slices.Equal(gotTypes, z.answers(wantKind, wantName)) {
				t.Fatalf("%s %s: got kind %d at %d labels with %v; want kind %d at %s with %v\n%s",
					qname, ty, got.Kind, got.Node.Labels, gotTypes, wantKind, wantName, z.answers(wantKind, wantName), master.String())
			}
		}
	})
}
