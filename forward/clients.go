package forward

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultClients is how many clients a Clients remembers.
const DefaultClients = 65536

// The reasons why a client gets no more.
var (
	ErrClientRate = errors.New("the client asks too often")
	ErrClientFull = errors.New("the client has too much open")
)

// ClientLimits bound what one client may have; 0 = no limit.
type ClientLimits struct {
	// Rate is how many events a second, with a burst of one second; Open how many things at a time.
	Rate, Open int
	// Bits4 and Bits6 are how many bits of an address make a client; 0 means 32 and 64.
	Bits4, Bits6 int
	// Table is how many clients are remembered; 0 means DefaultClients. One that there is
	// no room for is served and not counted.
	Table int
}

// Clients counts what clients have, for as many as it has room for. Any number of
// goroutines may use it; a nil one lets everybody through.
type Clients struct {
	// Immutable.
	limits   ClientLimits
	interval int64
	room     int // of a stripe
	seed     maphash.Seed
	start    time.Time

	missed *atomic.Uint64 // the times that there was no room for a client; nil = nobody counts

	parts [clientStripes]clientStripe
}

const (
	clientStripes = 64
	// clientLooks is how many entries are looked at for one that says nothing any more.
	clientLooks = 16
)

type clientStripe struct {
	mu      sync.Mutex // guards entries
	entries map[[16]byte]clientEntry
}

type clientEntry struct {
	open int
	due  int64 // the time up to which the rate is used
}

// NewClients returns nil if nothing is limited. missed counts the times that there was no room for a client, if it is not nil.
func NewClients(l ClientLimits, missed *atomic.Uint64) *Clients {
	if l.Rate <= 0 && l.Open <= 0 {
		return nil
	}
	l.Bits4, l.Bits6, l.Table = cmp.Or(l.Bits4, 32), cmp.Or(l.Bits6, 64), cmp.Or(l.Table, DefaultClients)
	c := &Clients{limits: l, room: max(l.Table/clientStripes, 1), seed: maphash.MakeSeed(), start: time.Now(), missed: missed}
	if l.Rate > 0 {
		c.interval = max(int64(time.Second)/int64(l.Rate), 1)
	}
	for i := range c.parts {
		c.parts[i].entries = make(map[[16]byte]clientEntry)
	}
	return c
}

// key is the prefix that counts an address, and the stripe that has it.
func (c *Clients) key(a netip.Addr) ([16]byte, *clientStripe) {
	k := a.As16()
	bits := c.limits.Bits6
	if a.Is4() || a.Is4In6() {
		bits = 96 + c.limits.Bits4
	}
	high, low := binary.BigEndian.Uint64(k[:8]), binary.BigEndian.Uint64(k[8:])
	if bits <= 64 {
		low = 0
		high &= ^uint64(0) << (64 - bits)
	} else {
		low &= ^uint64(0) << (128 - bits)
	}
	binary.BigEndian.PutUint64(k[:8], high)
	binary.BigEndian.PutUint64(k[8:], low)
	return k, &c.parts[maphash.Bytes(c.seed, k[:])%clientStripes]
}

// Enter counts one more of a client: an event, and something open until Leave. leave says
// whether Leave has to be called. The error is ErrClientRate or ErrClientFull.
func (c *Clients) Enter(a netip.Addr) (leave bool, err error) {
	if c == nil {
		return false, nil
	}
	return c.EnterAt(a, int64(time.Since(c.start)))
}

// EnterAt is Enter at a monotonic time in nanoseconds, for a caller that knows it. It and Enter are not used together.
func (c *Clients) EnterAt(a netip.Addr, now int64) (leave bool, err error) {
	if c == nil || !a.IsValid() {
		return false, nil
	}
	k, part := c.key(a)
	part.mu.Lock()
	defer part.mu.Unlock()
	e, known := part.entries[k]
	if !known && len(part.entries) >= c.room && !part.evict(now) {
		if c.missed != nil {
			c.missed.Add(1)
		}
		return false, nil
	}
	if most := c.limits.Open; most > 0 && e.open >= most {
		return false, ErrClientFull
	}
	if c.interval > 0 {
		next := max(e.due, now) + c.interval
		if next > now+int64(time.Second) && next > now+c.interval {
			return false, ErrClientRate
		}
		e.due = next
	}
	if c.limits.Open > 0 {
		e.open++
	}
	part.entries[k] = e
	return c.limits.Open > 0, nil
}

// Leave takes back what Enter has counted as open.
func (c *Clients) Leave(a netip.Addr) {
	k, part := c.key(a)
	part.mu.Lock()
	defer part.mu.Unlock()
	e, ok := part.entries[k]
	if !ok {
		return
	}
	if e.open--; e.open <= 0 && c.interval == 0 {
		delete(part.entries, k)
		return
	}
	part.entries[k] = e
}

// evict makes room by dropping an entry that counts nothing. Map iteration
// begins at a random place, so an attacker cannot keep one in place.
func (p *clientStripe) evict(now int64) bool {
	looks := 0
	for k, e := range p.entries {
		if e.open <= 0 && e.due <= now {
			delete(p.entries, k)
			return true
		}
		if looks++; looks >= clientLooks {
			return false
		}
	}
	return false
}
