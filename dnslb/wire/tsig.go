package wire

import "encoding/binary"

// badKey is the TSIG error for a key that the server does not know (RFC 8945 3).
const badKey = 17

// A signature is the TSIG record of a query, not looked into.
type signature struct{ key, data []byte }

// appendUnknownKey appends to out the TSIG record that tells the client that its
// key is not known: the key, algorithm and time of its own, and no MAC, because
// there is nothing to sign with (RFC 8945 5.2.1, 5.3.2). It appends nothing where
// that would make out longer than limit, or where the query's record is not what
// it should be.
func (s *signature) appendUnknownKey(out []byte, id uint16, limit int) ([]byte, bool) {
	const times = 8 // time and fudge, behind the algorithm
	var name Name
	if n, ok := name.Set(s.key); !ok || n != len(s.key) {
		return out, false
	}
	algorithm, ok := name.Set(s.data)
	data := algorithm + times + 8 // MAC size, ID, error, length of other data
	if !ok || len(s.data) < data || len(out)+len(s.key)+10+data > limit {
		return out, false
	}
	out = append(out, s.key...)
	out = append(out, 0, byte(TypeTSIG), 0, byte(ClassANY), 0, 0, 0, 0)
	out = binary.BigEndian.AppendUint16(out, uint16(data))
	out = append(out, s.data[:algorithm+times]...)
	out = append(out, 0, 0)
	out = binary.BigEndian.AppendUint16(out, id)
	return append(out, 0, badKey, 0, 0), true
}
