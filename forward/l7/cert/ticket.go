package cert

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// TicketLife is how long a session ticket key encrypts. It decrypts for one such
// time before, for clocks that are behind, and for two after.
const TicketLife = 12 * time.Hour

// A TicketKey is what tls.Config.SetSessionTicketKeys takes.
type TicketKey = [32]byte

// Keys returns the ticket keys of a moment, the one that encrypts first. Whoever has
// the same secrets and scope, and a clock that is less than TicketLife off, takes the
// tickets. Secrets beyond the first only decrypt: a key ring that is being rotated.
// Sessions of one scope are not resumed in another; callers put there what a full
// handshake would have decided.
func Keys(secrets [][]byte, scope []byte, now time.Time) []TicketKey {
	epoch := Epoch(now)
	var keys []TicketKey
	for _, secret := range secrets {
		for _, back := range []int64{0, 1, 2, -1} {
			keys = append(keys, derive(secret, scope, epoch-back))
		}
	}
	return keys
}

// Epoch numbers the time of a key.
func Epoch(now time.Time) int64 { return now.Unix() / int64(TicketLife/time.Second) }

func derive(secret, scope []byte, epoch int64) TicketKey {
	info := binary.BigEndian.AppendUint64([]byte("pharos session ticket key 1\x00"), uint64(epoch))
	info = append(info, scope...)
	key, err := hkdf.Key(sha256.New, secret, nil, string(info), 32)
	if err != nil {
		panic(err) // only for lengths that no hash can give
	}
	return TicketKey(key)
}
