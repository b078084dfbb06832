package health

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A Register is the newest report of one observer by its numbers alone: what a
// node keeps on disk, so that packets recorded before it restarted are old when
// somebody sends them again.
type Register struct {
	Observer   string
	Epoch, Seq uint64
}

// Limits of encoded registers.
const (
	// MaxRegisters is the largest number of registers, more than a cluster has nodes.
	MaxRegisters = 100_000
	// MaxRegistersLen is the longest encoding, in bytes.
	MaxRegistersLen = registersHead + MaxRegisters*(MaxObserverLen+17) + registersTail
)

const (
	registersMagic   = "pharos-seen"
	registersVersion = 1
	registersHead    = len(registersMagic) + 1 + 4 // magic, version, count
	registersTail    = 4                           // CRC-32C of all before
)

// ErrRegisters is wrapped by every error about bytes that are not encoded registers.
var ErrRegisters = errors.New("damaged registers")

// Registers returns the highest numbers heard or set of each observer of the
// fleet, sorted by name; observers without any are left out.
func (l *Ledger) Registers() []Register {
	out := make([]Register, 0, len(l.held))
	for _, e := range l.held {
		r := Register{e.name, e.floorEpoch, e.floorSeq}
		if e.report != nil && e.aboveFloor(e.report) {
			r.Epoch, r.Seq = e.report.Epoch, e.report.Seq
		}
		if r.Epoch != 0 || r.Seq != 0 {
			out = append(out, r)
		}
	}
	return out
}

// SetFloor makes every report of observer that is not newer than these numbers
// old: OutcomeOld, and nothing of it is used. What is held already stays. A floor
// is only ever raised; observers that are not in the fleet have none. Zeroes are
// no floor.
func (l *Ledger) SetFloor(observer string, epoch, seq uint64) {
	i, known := l.byName[observer]
	if !known {
		return
	}
	e := l.held[i]
	if epoch > e.floorEpoch || epoch == e.floorEpoch && seq > e.floorSeq {
		e.floorEpoch, e.floorSeq = epoch, seq
	}
}

// LiftFloor makes reports of observer good again that SetFloor refused.
func (l *Ledger) LiftFloor(observer string) {
	if i, known := l.byName[observer]; known {
		l.held[i].floorEpoch, l.held[i].floorSeq = 0, 0
	}
}

// Floor returns the numbers of SetFloor, zeroes if there are none. An observer
// that lost its state has to go above them before it is listened to, and must be
// told if no report of it is held.
func (l *Ledger) Floor(observer string) (epoch, seq uint64) {
	if i, known := l.byName[observer]; known {
		return l.held[i].floorEpoch, l.held[i].floorSeq
	}
	return 0, 0
}

// aboveFloor reports whether r is no replay.
func (e *entry) aboveFloor(r *Report) bool {
	if e.floorEpoch == 0 && e.floorSeq == 0 {
		return true
	}
	return r.Epoch > e.floorEpoch || r.Epoch == e.floorEpoch && r.Seq > e.floorSeq
}

// EncodeRegisters returns registers with a checksum, as RestoreRegisters reads
// them. They must be sorted by observer, each once, as Registers returns them.
func EncodeRegisters(registers []Register) ([]byte, error) {
	if len(registers) > MaxRegisters {
		return nil, fmt.Errorf("encode registers: %d, at most %d", len(registers), MaxRegisters)
	}
	b := append([]byte(registersMagic), registersVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(registers)))
	for i, r := range registers {
		if r.Observer == "" || len(r.Observer) > MaxObserverLen {
			return nil, fmt.Errorf("encode registers: observer name of %d bytes, want 1 to %d", len(r.Observer), MaxObserverLen)
		}
		if i > 0 && r.Observer <= registers[i-1].Observer {
			return nil, fmt.Errorf("encode registers: %q after %q, want them sorted and each once", r.Observer, registers[i-1].Observer)
		}
		b = append(append(b, byte(len(r.Observer))), r.Observer...)
		b = binary.BigEndian.AppendUint64(b, r.Epoch)
		b = binary.BigEndian.AppendUint64(b, r.Seq)
	}
	return binary.BigEndian.AppendUint32(b, registersChecksum(b)), nil
}

// RestoreRegisters reads what EncodeRegisters wrote, and nothing else. Damaged
// bytes give an error that wraps ErrRegisters, a future version a *VersionError;
// never a part of the registers.
func RestoreRegisters(b []byte) ([]Register, error) {
	if len(b) < registersHead+registersTail || len(b) > MaxRegistersLen || string(b[:len(registersMagic)]) != registersMagic {
		return nil, fmt.Errorf("restore registers: %w: not saved registers", ErrRegisters)
	}
	body, sum := b[:len(b)-registersTail], binary.BigEndian.Uint32(b[len(b)-registersTail:])
	if registersChecksum(body) != sum {
		return nil, fmt.Errorf("restore registers: %w: the checksum does not fit", ErrRegisters)
	}
	switch got := body[len(registersMagic)]; {
	case got > registersVersion:
		return nil, &VersionError{What: "registers", Got: got, Want: registersVersion}
	case got != registersVersion:
		return nil, fmt.Errorf("restore registers: %w: version %d does not exist", ErrRegisters, got)
	}
	count, rest := binary.BigEndian.Uint32(body[registersHead-4:]), body[registersHead:]
	if uint64(count)*18 > uint64(len(rest)) || count > MaxRegisters {
		return nil, fmt.Errorf("restore registers: %w: %d announced in %d bytes", ErrRegisters, count, len(rest))
	}
	out := make([]Register, 0, count)
	for range count {
		n := 0
		if len(rest) > 0 {
			n = int(rest[0])
		}
		if n == 0 || n > MaxObserverLen || len(rest) < 1+n+16 {
			return nil, fmt.Errorf("restore registers: %w: observer name of %d bytes in the last %d", ErrRegisters, n, len(rest))
		}
		r := Register{Observer: string(rest[1 : 1+n]), Epoch: binary.BigEndian.Uint64(rest[1+n:]), Seq: binary.BigEndian.Uint64(rest[9+n:])}
		if len(out) > 0 && r.Observer <= out[len(out)-1].Observer {
			return nil, fmt.Errorf("restore registers: %w: %q after %q", ErrRegisters, r.Observer, out[len(out)-1].Observer)
		}
		out, rest = append(out, r), rest[17+n:]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("restore registers: %w: %d bytes too many", ErrRegisters, len(rest))
	}
	return out, nil
}

// registersChecksum is the CRC-32C of b.
func registersChecksum(b []byte) uint32 {
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}
