package cluster

import (
	"encoding/binary"
	"fmt"
)

// The body of a question or an answer: a number of 64 bits, which the answer
// repeats, the sender's name after its length in one byte, and a text.
const (
	mailFixedLen = 8 + 1
	// maxQuestion and maxAnswer are the longest texts, in bytes.
	maxQuestion = 4 << 10
	maxAnswer   = 64 << 10
	// maxMailFrame is the longest frame with either.
	maxMailFrame = frameHeaderLen + mailFixedLen + maxNameLen + maxAnswer
)

// mail is a question or an answer on the wire.
type mail struct {
	id   uint64
	from string
	text []byte
}

// appendMailFrame appends a frame of kind question or answer.
func appendMailFrame(b []byte, kind frameKind, m mail) []byte {
	b = appendFrameHeader(b, wireNow, kind)
	b = binary.BigEndian.AppendUint64(b, m.id)
	b = append(b, byte(len(m.from)))
	b = append(b, m.from...)
	return append(b, m.text...)
}

// parseMail reads the body of a question or an answer.
func parseMail(b []byte) (mail, error) {
	if len(b) < mailFixedLen {
		return mail{}, fmt.Errorf("%w: question cut off", errFrame)
	}
	m := mail{id: binary.BigEndian.Uint64(b)}
	var ok bool
	if m.from, m.text, ok = cutString(b[8:]); !ok || m.from == "" || len(m.from) > maxNameLen {
		return mail{}, fmt.Errorf("%w: question without its sender's name", errFrame)
	}
	return m, nil
}
