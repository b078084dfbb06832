package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Sizes of a control packet (RFC 5880, section 4.1).
const (
	packetSize = 24  // without authentication, which we never send
	maxPacket  = 255 // the length field has 8 bits
	version    = 1
)

// A State is that of a session.
type State uint8

// The states, as on the wire.
const (
	AdminDown State = iota // kept down on purpose: says nothing about the path
	Down
	Init // the other side is heard, but does not hear us yet
	Up
)

func (s State) String() string {
	return [...]string{"admin_down", "down", "init", "up"}[s&3]
}

// A Diag is the reason for the last change of a session's state (RFC 5880, section 4.1).
type Diag uint8

// The diagnostics that we send.
const (
	DiagNone          Diag = 0
	DiagTimeExpired   Diag = 1
	DiagNeighbourDown Diag = 3
	DiagAdminDown     Diag = 7
)

var diagWords = [...]string{
	"no diagnostic", "control detection time expired", "echo function failed", "neighbor signaled session down",
	"forwarding plane reset", "path down", "concatenated path down", "administratively down",
	"reverse concatenated path down",
}

func (d Diag) String() string {
	if int(d) < len(diagWords) {
		return diagWords[d]
	}
	return fmt.Sprintf("diagnostic %d", uint8(d))
}

// A Packet is a control packet. Intervals have the wire's resolution, 1 µs, and range, up to 4294 s.
type Packet struct {
	Diag             Diag // 0 … 31
	State            State
	Poll             bool
	Final            bool
	ControlPlaneIndp bool
	Demand           bool
	Multiplier       uint8  // never 0
	Mine             uint32 // the sender's discriminator; never 0
	Yours            uint32 // the receiver's, as far as the sender knows; 0 = it does not
	DesiredMinTx     time.Duration
	RequiredMinRx    time.Duration // 0 = send me nothing
	RequiredMinEcho  time.Duration // 0 = no echo
}

// What is wrong with a packet. Each is a reason to drop it (RFC 5880, section 6.8.6).
var (
	ErrShort         = errors.New("shorter than a control packet")
	ErrVersion       = errors.New("not BFD version 1")
	ErrLength        = errors.New("length field does not fit")
	ErrMultiplier    = errors.New("detection multiplier is 0")
	ErrMultipoint    = errors.New("multipoint bit is set")
	ErrDiscriminator = errors.New("discriminator is 0")
	ErrAuth          = errors.New("authenticated, and no key is configured")
)

// Bits of the second byte.
const (
	bitPoll        = 0x20
	bitFinal       = 0x10
	bitIndependent = 0x08
	bitAuth        = 0x04
	bitDemand      = 0x02
	bitMultipoint  = 0x01
)

// Parse reads a UDP payload. Bytes after the packet's own length are ignored, as the RFC has it.
func Parse(b []byte) (Packet, error) {
	if len(b) < packetSize {
		return Packet{}, ErrShort
	}
	if b[0]>>5 != version {
		return Packet{}, ErrVersion
	}
	flags := b[1]
	if int(b[3]) < packetSize || int(b[3]) > len(b) {
		return Packet{}, ErrLength
	}
	p := Packet{
		Diag: Diag(b[0] & 0x1f), State: State(flags >> 6),
		Poll: flags&bitPoll != 0, Final: flags&bitFinal != 0,
		ControlPlaneIndp: flags&bitIndependent != 0, Demand: flags&bitDemand != 0,
		Multiplier: b[2], Mine: binary.BigEndian.Uint32(b[4:]), Yours: binary.BigEndian.Uint32(b[8:]),
		DesiredMinTx: interval(b[12:]), RequiredMinRx: interval(b[16:]), RequiredMinEcho: interval(b[20:]),
	}
	switch {
	case p.Multiplier == 0:
		return Packet{}, ErrMultiplier
	case flags&bitMultipoint != 0:
		return Packet{}, ErrMultipoint
	case p.Mine == 0:
		return Packet{}, ErrDiscriminator
	case p.Yours == 0 && p.State != Down && p.State != AdminDown:
		return Packet{}, ErrDiscriminator
	case flags&bitAuth != 0:
		return Packet{}, ErrAuth
	}
	return p, nil
}

// Append appends the packet to b.
func (p Packet) Append(b []byte) []byte {
	flags := byte(p.State) << 6
	for _, f := range [...]struct {
		set bool
		bit byte
	}{{p.Poll, bitPoll}, {p.Final, bitFinal}, {p.ControlPlaneIndp, bitIndependent}, {p.Demand, bitDemand}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = append(b, version<<5|byte(p.Diag)&0x1f, flags, p.Multiplier, packetSize)
	b = binary.BigEndian.AppendUint32(b, p.Mine)
	b = binary.BigEndian.AppendUint32(b, p.Yours)
	b = binary.BigEndian.AppendUint32(b, micros(p.DesiredMinTx))
	b = binary.BigEndian.AppendUint32(b, micros(p.RequiredMinRx))
	return binary.BigEndian.AppendUint32(b, micros(p.RequiredMinEcho))
}

func interval(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

func micros(d time.Duration) uint32 {
	return uint32(min(max(d/time.Microsecond, 0), 1<<32-1))
}
