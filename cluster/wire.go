package cluster

import (
	"bytes"
	"slices"

	"github.com/pharos-lb/pharos/internal/health"
)

// The wire versions. Every node tells its own in its membership record; one that
// tells none has the first. What goes to a single member is written in the older
// of its version and ours; what goes to nobody in particular (gossip, tables), in
// the oldest of all members present. The versions of frames and of the reports
// in them go together.
const (
	// wireFirst has reports without signature and without the overrides' digest.
	wireFirst = 1
	// wireNow adds signatures, overrides, questions, and states in sections.
	wireNow = 2
)

// encodeReport returns r as a node of that version writes it.
func encodeReport(r *health.Report, wire uint8) ([]byte, error) {
	return r.AppendVersion(nil, wire)
}

// reportWire returns the version of an encoded report.
func reportWire(raw []byte) uint8 {
	if len(raw) == 0 {
		return 0
	}
	return raw[0]
}

// saysSame reports whether a and b are one report in two versions: equal but for
// what the first version cannot say.
func saysSame(a, b *health.Report) bool {
	return a.Observer == b.Observer && a.Epoch == b.Epoch && a.Seq == b.Seq && a.Layout == b.Layout &&
		a.Config == b.Config && a.Flags == b.Flags && bytes.Equal(a.States, b.States)
}

// saysOther reports whether b says anything else than a.
func saysOther(a, b *health.Report) bool {
	return a.Flags != b.Flags || a.Layout != b.Layout || a.Epoch != b.Epoch ||
		a.Overrides != b.Overrides || !slices.Equal(a.States, b.States)
}

// wireTo returns the version to write in for a configured address. One that was
// never heard of is addressed in the first, which all understand, unless we
// sign: the first cannot carry a signature, so no such node is expected then.
func (n *Node) wireTo(known uint8) uint8 {
	switch {
	case known != 0:
		return min(known, wireNow)
	case n.opt.SignKey != nil:
		return wireNow
	default:
		return wireFirst
	}
}
