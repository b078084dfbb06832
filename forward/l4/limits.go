package l4

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound what a listener takes. 0 = no limit.
type Limits struct {
	// Connections is how many of the listener are served at once, ServiceConnections
	// how many of each of its services, counted over all listeners. Of a UDP
	// listener these are sessions.
	Connections, ServiceConnections int
	// Rate is how many new ones a second are taken, with a burst of one second.
	Rate int
	// ClientConnections and ClientRate are the same for one client prefix.
	ClientConnections, ClientRate int
	// ClientBits4 and ClientBits6 are how many bits of an address make a client;
	// 0 means 32 and 64.
	ClientBits4, ClientBits6 int
	// Table is how many client prefixes are remembered; 0 means DefaultTable. A
	// client that there is no room for is served and not counted.
	Table int
}

// DefaultTable is how many client prefixes a listener remembers.
const DefaultTable = 65536

const stripes = 64

// clientTable counts what every client prefix has, for as many as it has room for.
type clientTable struct {
	// Immutable.
	limits   Limits
	interval int64
	room     int // of a stripe
	seed     maphash.Seed
	missed   *atomic.Uint64 // clients that there was no room for

	parts [stripes]clientStripe
}

type clientStripe struct {
	mu      sync.Mutex // guards entries
	entries map[clientKey]clientEntry
}

type clientKey [16]byte

type clientEntry struct {
	open int
	due  int64
}

// newClientTable returns nil if no limit is by client.
func newClientTable(l Limits, missed *atomic.Uint64) *clientTable {
	if l.ClientConnections <= 0 && l.ClientRate <= 0 {
		return nil
	}
	if l.ClientBits4 == 0 {
		l.ClientBits4 = 32
	}
	if l.ClientBits6 == 0 {
		l.ClientBits6 = 64
	}
	if l.Table == 0 {
		l.Table = DefaultTable
	}
	t := &clientTable{limits: l, room: max(l.Table/stripes, 1), seed: maphash.MakeSeed(), missed: missed}
	if l.ClientRate > 0 {
		t.interval = max(int64(time.Second)/int64(l.ClientRate), 1)
	}
	for i := range t.parts {
		t.parts[i].entries = make(map[clientKey]clientEntry)
	}
	return t
}

// key is the prefix that counts an address, and the stripe that has it.
func (t *clientTable) key(a netip.Addr) (clientKey, *clientStripe) {
	k := clientKey(a.As16())
	bits := t.limits.ClientBits6
	if a.Is4() || a.Is4In6() {
		bits = 96 + t.limits.ClientBits4
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
	return k, &t.parts[maphash.Bytes(t.seed, k[:])%stripes]
}

// enter counts one more of a client, or says why not. tracked says that leave has
// to be called. A nil table takes everything.
func (t *clientTable) enter(a netip.Addr, now int64) (tracked bool, why drop) {
	if t == nil {
		return false, dropNone
	}
	k, part := t.key(a)
	part.mu.Lock()
	defer part.mu.Unlock()
	e, known := part.entries[k]
	if !known && len(part.entries) >= t.room && !part.evict(now) {
		t.missed.Add(1)
		return false, dropNone
	}
	if t.interval > 0 {
		next := max(e.due, now) + t.interval
		if next > now+int64(time.Second) && next > now+t.interval {
			return false, dropClientRate
		}
		e.due = next
	}
	if most := t.limits.ClientConnections; most > 0 && e.open >= most {
		return false, dropClientFull
	}
	e.open++
	part.entries[k] = e
	return true, dropNone
}

// leave takes back what enter has counted.
func (t *clientTable) leave(a netip.Addr) {
	k, part := t.key(a)
	part.mu.Lock()
	defer part.mu.Unlock()
	e, ok := part.entries[k]
	if !ok {
		return
	}
	e.open--
	if e.open <= 0 && t.interval == 0 {
		delete(part.entries, k)
		return
	}
	part.entries[k] = e
}

// evictLooks is how many entries are looked at for one that says nothing any more.
const evictLooks = 16

// evict makes room by dropping an entry that counts nothing. Map iteration
// begins at a random place, so an attacker cannot keep one in place.
func (p *clientStripe) evict(now int64) bool {
	looks := 0
	for k, e := range p.entries {
		if e.open <= 0 && e.due <= now {
			delete(p.entries, k)
			return true
		}
		if looks++; looks >= evictLooks {
			return false
		}
	}
	return false
}

// serviceCounts counts what is open by service, over all listeners.
type serviceCounts struct {
	mu   sync.Mutex // guards open
	open map[string]int
}

func (c *serviceCounts) enter(service string, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[service] >= most {
		return false
	}
	if c.open == nil {
		c.open = make(map[string]int)
	}
	c.open[service]++
	return true
}

func (c *serviceCounts) leave(service string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[service]--; c.open[service] <= 0 {
		delete(c.open, service)
	}
}
