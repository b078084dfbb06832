package zone

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// elsewhere compiles specs as another process would.
func elsewhere(specs []Spec) (*Set, error) {
	in, toChild := io.Pipe()
	fromChild, out := io.Pipe()
	go func() {
		out.CloseWithError(CompileFor(in, out))
		in.Close()
	}()
	defer fromChild.Close()
	return CompileBy(toChild, fromChild, specs)
}

// TestElsewhere: what another process has compiled is the same to the last octet.
func TestElsewhere(t *testing.T) {
	var many strings.Builder
	for i := range 300 { // more sets than one octet counts
		fmt.Fprintf(&many, "many 60 TYPE%d \\# 1 %02x\n", 1000+i, i&255)
	}
	rrsig := append([]byte("\x00\x2e\x00\x01\x00\x00\x00\x3c\x00\x12"), make([]byte, 18)...)
	specs := []Spec{
		{
			Name: "example.com.", MasterFile: "p",
			Master:     head + "child 60 NS ns.child\nchild DS 1 13 2 00\nns.child A 192.0.2.1\n*.w TXT any\nold DNAME new\nsub NS ns.sub\nsub NS ns\nns.sub A 192.0.2.2\ntwice A 192.0.2.3\ntwice A 192.0.2.3\n" + many.String(),
			Steered:    []Steered{{FQDN: "www.example.com.", Service: "web", TTL: 30}, {FQDN: "*.any.example.com.", Service: "any", Anycast: true}},
			Signatures: []Signature{{"www.example.com.", 1, []netip.Addr{netip.MustParseAddr("192.0.2.9")}, [][]byte{rrsig}}, {"example.com.", 2, nil, [][]byte{rrsig}}},
		},
		{Name: "child.example.com.", Master: head + "x TXT child\n", MasterFile: "c"},
	}
	here, err := Compile(specs)
	if err != nil {
		t.Fatal(err)
	}
	there, err := elsewhere(specs)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(here, there) {
		t.Errorf("they differ:\n%+v\n%+v", here, there)
	}
	if len(here.Warnings()) == 0 || here.Steered() != 2 {
		t.Fatalf("the zones do not test it: %v", here.Warnings())
	}
	for _, i := range []int{0, 255, 256, 299} {
		m, _ := find(t, there, "many.example.com.", "A")
		if set := m.Node.RRset(uint16(1000 + i)); set.Count != 1 || set.Data()[0] != byte(i) {
			t.Errorf("set %d of many: %+v", i, set)
		}
	}
	if empty, err := elsewhere(nil); err != nil || empty.Steered() != 0 {
		t.Errorf("no zones: %v", err)
	}
}

// TestElsewhereFails: mistakes have the same words; a process that ends early is an error.
func TestElsewhereFails(t *testing.T) {
	specs := []Spec{{Name: "a.test.", Master: head + "x A nowhere\ny AAAA 1\n", MasterFile: "a"}, {Name: "b.test.", Master: "z A\n", MasterFile: "b"}}
	_, want := Compile(specs)
	if _, err := elsewhere(specs); err == nil || err.Error() != want.Error() {
		t.Errorf("got %v, want %v", err, want)
	}
	var whole bytes.Buffer
	set, err := Parse("a.test.", head, "a")
	if err == nil {
		err = set.write(&whole)
	}
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() {
		if _, err := CompileBy(failing{}, bytes.NewReader(whole.Bytes()[:n]), nil); err == nil {
			t.Fatalf("%d of %d octets were taken for all", n, whole.Len())
		}
	}
	refused := errors.New("gone")
	if _, err := CompileBy(failing{refused}, bytes.NewReader(whole.Bytes()), nil); !errors.Is(err, refused) {
		t.Errorf("a process that reads nothing: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write(b []byte) (int, error) { return len(b), f.err }
func (f failing) Close() error                { return nil }
