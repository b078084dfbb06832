package health

// A Report is what one observer currently says about every target of a Layout.
// Only its observer writes it; the larger (Epoch, Seq) wins. It is immutable
// once published. Its size depends on the layout alone, never on what fails.
type Report struct {
	// Observer is the node's name.
	Observer string
	// Epoch grows with every start of the observer and is durable; Seq grows
	// with every report in an epoch.
	Epoch, Seq uint64
	// Layout is the Layout.Hash that States is indexed by.
	Layout uint64
	// Config is the hash of the observer's whole configuration, for display of skew.
	Config uint64
	// Overrides is the Overrides.Digest of what the observer holds durably: equal
	// digests are how an order is acknowledged.
	Overrides uint64
	// Flags qualify the report as a whole.
	Flags Flags
	// States holds two bits per target of the layout, target 0 in the low bits of byte 0.
	States []byte
}

// Flags qualify a Report.
type Flags uint8

// The flags.
const (
	// FlagDoubt: the observer doubts itself; its statements abstain.
	FlagDoubt Flags = 1 << iota
	// FlagLeaving: the observer is stopping on purpose; its statements abstain.
	FlagLeaving
)
