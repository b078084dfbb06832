package wire

// A Name is a domain name in wire form, in lower case, with the start of each
// label at hand. The zero Name is not a name; set it with [Name.Set]. A Name is
// large: it is reused by its owner and passed by pointer.
type Name struct {
	octets [MaxName]byte
	length int
	// starts[i] is where label i begins; starts[labels] is the root's octet.
	starts [128]uint8
	labels int
}

// Set copies the uncompressed wire name at the front of b, lowering its case,
// and returns its length in octets. ok is false when b does not begin with a
// whole name of at most 255 octets without compression pointers.
func (n *Name) Set(b []byte) (length int, ok bool) {
	i, labels := 0, 0
	for {
		if i >= len(b) || i >= MaxName {
			return 0, false
		}
		size := int(b[i])
		n.starts[labels] = uint8(i)
		if size == 0 {
			n.octets[i] = 0
			n.length, n.labels = i+1, labels
			return n.length, true
		}
		end := i + 1 + size
		if size > 63 || end >= len(b) || end >= MaxName {
			return 0, false
		}
		n.octets[i] = b[i]
		for j := i + 1; j < end; j++ {
			n.octets[j] = lower(b[j])
		}
		labels++
		i = end
	}
}

// Labels returns the number of labels without the root's.
func (n *Name) Labels() int { return n.labels }

// Len returns the length in octets, the root's included.
func (n *Name) Len() int { return n.length }

// Start returns where label i begins; Start(Labels()) is the root's octet.
func (n *Name) Start(i int) int { return int(n.starts[i]) }

// From returns the name that remains after the first i labels, in lower case.
// It aliases n.
func (n *Name) From(i int) []byte { return n.octets[n.starts[i]:n.length] }

// lower folds ASCII upper case and leaves every other octet alone (RFC 4343).
func lower(c byte) byte {
	if c-'A' < 26 {
		c |= 0x20
	}
	return c
}

// skipName returns the offset after the name at off, which may end in a
// compression pointer. It does not follow the pointer: nothing that is skipped
// is read.
func skipName(msg []byte, off int) (int, bool) {
	length := 0
	for off < len(msg) {
		size := int(msg[off])
		switch {
		case size == 0:
			return off + 1, length < MaxName
		case size&0xc0 == 0xc0:
			target := size&0x3f<<8 | int(at(msg, off+1))
			return off + 2, off+2 <= len(msg) && target < off && length < MaxName
		case size > 63:
			return 0, false
		}
		length += 1 + size
		off += 1 + size
	}
	return 0, false
}

func at(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}
