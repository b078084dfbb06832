package zone

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"unsafe"
)

// Compiling a large zone takes seconds and makes much garbage. Another process can do it:
// it runs [CompileFor], and [CompileBy] speaks to it over two pipes. Both have to be the
// same program on the same machine.

// maxSpecs bounds what CompileFor takes at its word, in octets of one text.
const maxSpecs = 4 << 30

// A sealed is what is not octets in a Set, or why there is none.
type sealed struct {
	Fault    string
	Zones    []*Zone
	Steered  []sealedSteered
	Deepest  int
	Warnings []string
	Slots    int
	Octets   int
}

type sealedSteered struct {
	Steered
	Variants []sealedVariant
}

type sealedVariant struct {
	Addrs  []netip.Addr
	Signed RRset
}

// CompileBy has the process at the other end of w and r compile the specs, and closes w. The error is that of
// [Compile] in its text, or says that the process failed.
func CompileBy(w io.WriteCloser, r io.Reader, specs []Spec) (*Set, error) {
	asked := make(chan error, 1)
	go func() { asked <- errors.Join(ask(w, specs), w.Close()) }()
	set, err := read(r)
	if err != nil {
		return nil, err
	}
	return set, <-asked
}

// ask writes the specs, their texts by themselves: they are not copied.
func ask(w io.Writer, specs []Spec) error {
	bare := make([]Spec, len(specs))
	sizes := make([]int, len(specs))
	for i := range specs {
		bare[i], sizes[i] = specs[i], len(specs[i].Master)
		bare[i].Master = ""
	}
	out := gob.NewEncoder(w)
	if err := errors.Join(out.Encode(bare), out.Encode(sizes)); err != nil {
		return err
	}
	for i := range specs {
		if _, err := io.WriteString(w, specs[i].Master); err != nil {
			return err
		}
	}
	return nil
}

// CompileFor is the other end of CompileBy: it compiles one time.
func CompileFor(r io.Reader, w io.Writer) error {
	buffered := bufio.NewReaderSize(r, 1<<16) // a decoder reads no further than it needs
	in := gob.NewDecoder(buffered)
	var specs []Spec
	var sizes []int
	if err := errors.Join(in.Decode(&specs), in.Decode(&sizes)); err != nil {
		return fmt.Errorf("read what to compile: %w", err)
	}
	if len(sizes) != len(specs) {
		return fmt.Errorf("%d zones, %d texts", len(specs), len(sizes))
	}
	for i, size := range sizes {
		if size < 0 || size > maxSpecs {
			return fmt.Errorf("a text of %d octets", size)
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(buffered, text); err != nil {
			return fmt.Errorf("read %s: %w", specs[i].Name, err)
		}
		specs[i].Master = unsafe.String(unsafe.SliceData(text), size) // nobody writes to it again
	}
	set, err := Compile(specs)
	if err != nil {
		return gob.NewEncoder(w).Encode(sealed{Fault: err.Error()})
	}
	return set.write(w)
}

func (s *Set) write(w io.Writer) error {
	rest := sealed{Zones: s.zones, Deepest: s.deepest, Warnings: s.warnings, Slots: len(s.index.slots), Octets: len(s.index.octets)}
	for _, st := range s.steered {
		out := sealedSteered{Steered: *st}
		for _, v := range st.variants {
			out.Variants = append(out.Variants, sealedVariant{v.addrs, v.signed})
		}
		rest.Steered = append(rest.Steered, out)
	}
	if err := gob.NewEncoder(w).Encode(rest); err != nil {
		return err
	}
	if _, err := w.Write(s.index.slotOctets()); err != nil {
		return err
	}
	_, err := w.Write(s.index.octets)
	return err
}

func read(r io.Reader) (*Set, error) {
	buffered := bufio.NewReaderSize(r, 1<<16)
	var rest sealed
	if err := gob.NewDecoder(buffered).Decode(&rest); err != nil {
		return nil, fmt.Errorf("read the compiled zones: %w", err)
	}
	if rest.Fault != "" {
		return nil, errors.New(rest.Fault)
	}
	if rest.Octets < 0 || rest.Octets > maxOctets || rest.Slots < 0 || rest.Slots > 1<<32 || rest.Slots&(rest.Slots-1) != 0 {
		return nil, fmt.Errorf("read the compiled zones: %d slots, %d octets", rest.Slots, rest.Octets)
	}
	s := &Set{zones: rest.Zones, deepest: rest.Deepest, warnings: rest.Warnings}
	for i := range rest.Steered {
		st := rest.Steered[i].Steered
		for _, v := range rest.Steered[i].Variants {
			st.variants = append(st.variants, variant{v.Addrs, v.Signed})
		}
		s.steered = append(s.steered, &st)
	}
	if rest.Slots > 0 {
		s.index.slots = make([]slot, rest.Slots)
	}
	s.index.octets = make([]byte, rest.Octets)
	for _, into := range [][]byte{s.index.slotOctets(), s.index.octets} {
		if _, err := io.ReadFull(buffered, into); err != nil {
			return nil, fmt.Errorf("read the compiled zones: %w", err)
		}
	}
	return s, nil
}

// slotOctets are the slots as they lie in memory.
func (x *index) slotOctets() []byte {
	if len(x.slots) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&x.slots[0])), len(x.slots)*int(unsafe.Sizeof(x.slots[0])))
}
