package bgp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// maxMessage bounds one message between parent and child, in bytes.
// MaxRoutes routes with MaxCommunities communities in each of their MaxOverrides overrides fit.
const maxMessage = 64 << 20

// errTooLong is a message above maxMessage. The stream cannot be read further.
var errTooLong = errors.New("message is too long")

// Kinds of order.
const (
	orderState = "state" // the whole desired state; renews the lease
	orderRenew = "renew" // nothing changed; renews the lease
	orderStop  = "stop"  // withdraw, say goodbye, end

	orderRelease = "release" // another parent comes: do not die with this one
	orderGuard   = "guard"   // it did not: die with this one again
)

// An order goes from the parent to the child.
type order struct {
	Kind       string
	Generation uint64  // counts states
	Config     Config  // of a state, normalized
	Peers      []Peer  `json:",omitempty"`
	Routes     []Route `json:",omitempty"`
}

// A report goes from the child to the parent.
type report struct {
	Generation uint64 // of the last state applied
	Lapsed     bool   // withdrew; wants the state again
	Peers      []PeerStatus
	Routes     []RouteStatus
	Seen       []Sighting
	Strangers  []netip.Addr
	Refused    uint64 // connections of strangers since it started
	Ranges     []RangeStatus
}

// writeMessage writes one message: its length as four bytes, big-endian, then JSON.
func writeMessage(w io.Writer, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > maxMessage {
		return errTooLong
	}
	frame := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	if _, err := w.Write(append(frame, body...)); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// readMessage reads one message. The end of the stream between messages is io.EOF, inside one io.ErrUnexpectedEOF.
func readMessage(r io.Reader, message any) error {
	body, err := readFrame(r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, message); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length > maxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errTooLong, length, maxMessage)
	}
	// Grow with what arrives: a false length must not cost its memory.
	body, err := io.ReadAll(io.LimitReader(r, int64(length)))
	if err != nil {
		return nil, err
	}
	if len(body) < int(length) {
		return nil, io.ErrUnexpectedEOF
	}
	return body, nil
}
