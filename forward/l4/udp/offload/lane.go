package offload

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// MaxSessions is how many sessions a Lane carries; those above stay with their sockets.
const MaxSessions = 65536

// A Session is what the kernel is to carry: what Client sends to Server goes on from Local to Backend, and the answers
// back. Addresses are of one IP version, without zones.
type Session struct{ Client, Server, Local, Backend netip.AddrPort }

// Refusal is why a session stays with its socket.
type Refusal uint8

// What Enter answers.
const (
	Entered   Refusal = iota // none: the kernel carries it
	Full                     // there are MaxSessions
	Addresses                // of two IP versions, or such as are valid on one link only
	NoPath                   // one of client and backend is on this machine and the other is not, or a way out is not Ethernet
	Failed                   // the kernel has refused
	refusals
)

// Refusals are all of them.
var Refusals = []Refusal{Full, Addresses, NoPath, Failed}

// String returns the refusal as metrics label it.
func (r Refusal) String() string {
	return [...]string{"none", "full", "addresses", "path", "failed"}[r]
}

// Options are what a Lane needs. The zero value has the defaults.
type Options struct {
	// Sessions is how many there may be, 1 … MaxSessions; 0 means MaxSessions.
	Sessions int
	// Log takes transitions; nil = none.
	Log *slog.Logger
}

// A Lane carries sessions in the kernel. Its methods may be called at any time from any goroutine.
type Lane struct {
	// Immutable.
	log      *slog.Logger
	limit    int64
	sessions *ebpf.Map
	counters *ebpf.Map
	present  *ebpf.Map // the generation, for the program
	program  *ebpf.Program
	watch    *watch
	done     chan struct{} // closed when the watch has ended

	generation atomic.Uint64 // of what is entered; the program passes over older entries
	active     atomic.Int64  // of this generation
	entered    atomic.Uint64
	emptied    atomic.Uint64
	refused    [refusals]atomic.Uint64

	// mu guards the rest. Who enters a session reads: what is entered is of the present generation.
	mu     sync.RWMutex
	closed bool
	freed  bool
	final  [totals]uint64 // what was counted when it was freed
	paths  paths

	own    sync.Mutex         // guards inside, within mu
	inside map[Session]uint64 // those that entries are of, and their generation; 0 = not all are there yet
}

// New loads the program and attaches it to the interfaces of this network namespace. It takes CAP_BPF and CAP_NET_ADMIN,
// and a kernel that has TCX. Close frees it.
func New(opts Options) (*Lane, error) {
	if opts.Sessions < 0 || opts.Sessions > MaxSessions {
		return nil, fmt.Errorf("offload: Sessions is %d, want 0 … %d", opts.Sessions, MaxSessions)
	}
	if opts.Sessions == 0 {
		opts.Sessions = MaxSessions
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	l := &Lane{log: opts.Log, limit: int64(opts.Sessions), inside: make(map[Session]uint64), done: make(chan struct{})}
	err := l.load()
	if err == nil {
		l.watch, err = newWatch()
	}
	if err == nil {
		err = l.paths.open(l.program)
	}
	if err == nil {
		err = l.paths.attach(l.log)
	}
	if err == nil {
		err = l.next()
	}
	if err != nil {
		l.free()
		return nil, fmt.Errorf("carry UDP sessions in the kernel: %w", err)
	}
	go l.follow(l.total(tooLong))
	return l, nil
}

// load makes the maps and the program.
func (l *Lane) load() error {
	var err error
	const onDemand = 1 // BPF_F_NO_PREALLOC: an entry takes memory when it is made, which is never on the way of a datagram
	l.sessions, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "pharos_udp", Type: ebpf.Hash, KeySize: keySize, ValueSize: entrySize, MaxEntries: uint32(2 * l.limit), Flags: onDemand,
	})
	if err != nil {
		return fmt.Errorf("make map of sessions: %w", err)
	}
	l.counters, err = ebpf.NewMap(&ebpf.MapSpec{Name: "pharos_udp_n", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: totals})
	if err != nil {
		return fmt.Errorf("make map of counters: %w", err)
	}
	l.present, err = ebpf.NewMap(&ebpf.MapSpec{Name: "pharos_udp_g", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make map of the generation: %w", err)
	}
	l.program, err = l.loadProgram()
	return err
}

// loadProgram loads the program. Older kernels have no flag for checksums of IPv6 that cards have summed up (CHECKSUM_COMPLETE),
// and refuse it while the program runs: that is tried.
func (l *Lane) loadProgram() (*ebpf.Program, error) {
	var p *ebpf.Program
	for _, flag := range []int64{ipv6Checksum, 0} {
		var err error
		p, err = ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "pharos_udp", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress,
			Instructions: l.instructions(flag), License: "Apache-2.0",
		})
		if err != nil {
			return nil, fmt.Errorf("load program: %w", err)
		}
		ok, err := rewritesIPv6(p, l.sessions)
		if err == nil && ok {
			return p, nil
		}
		p.Close()
		if err != nil {
			return nil, fmt.Errorf("try program: %w", err)
		}
	}
	return nil, errors.New("try program: it drops what it is to carry")
}

// Close takes the program away and frees everything. It may be called again.
func (l *Lane) Close() {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	if first { // no entry is of this generation: from here on nobody leaves any more
		_ = l.present.Update(uint32(0), uint64(0), ebpf.UpdateAny)
	}
	l.mu.Unlock()
	if !first {
		return
	}
	l.watch.close()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active.Store(0)
	l.free()
}

func (l *Lane) free() {
	l.paths.close()
	if l.counters != nil {
		for i := range l.final {
			l.final[i] = l.total(uint32(i))
		}
	}
	l.freed = true
	if l.watch != nil {
		l.watch.close()
	}
	for _, m := range []*ebpf.Map{l.sessions, l.counters, l.present} {
		if m != nil {
			m.Close()
		}
	}
	if l.program != nil {
		l.program.Close()
	}
}

// Generation says which sessions are entered: those that Enter has entered under this number and that have not left.
// It is above 0.
func (l *Lane) Generation() uint64 { return l.generation.Load() }

// ways returns both directions of a session.
func (s *Session) ways() [2]way {
	return [2]way{
		{old: pair{s.Backend, s.Local}, fresh: pair{s.Server, s.Client}, direction: answered},
		{old: pair{s.Client, s.Server}, fresh: pair{s.Local, s.Backend}, direction: asked},
	}
}

// Enter has the kernel carry a session from now on. It returns under which generation, or why not.
func (l *Lane) Enter(s Session) (uint64, Refusal) {
	generation, refusal := l.enter(s)
	if refusal == Entered {
		l.entered.Add(1)
	} else {
		l.refused[refusal].Add(1)
	}
	return generation, refusal
}

func (l *Lane) enter(s Session) (uint64, Refusal) {
	for _, a := range []netip.AddrPort{s.Client, s.Server, s.Local, s.Backend} {
		if ip := a.Addr(); !ip.IsValid() || ip.IsUnspecified() || ip.Is4() != s.Client.Addr().Is4() || ip.Is4In6() || ip.Zone() != "" || ip.IsLinkLocalUnicast() {
			return 0, Addresses
		}
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return 0, Failed
	}
	ways := s.ways()
	for i := range ways {
		w := &ways[i]
		var ok bool
		if w.route, ok = l.paths.find(w.fresh); !ok {
			return 0, NoPath
		}
	}
	if (ways[0].route.ifindex == 0) != (ways[1].route.ifindex == 0) {
		return 0, NoPath // what comes from outside and claims to be from here is dropped
	}
	if !l.reserve(s) {
		return 0, Full
	}
	generation, now := l.generation.Load(), monotonic()
	for i := range ways {
		key, entry := ways[i].old.key(), ways[i].entry(generation, now)
		if err := l.sessions.Update(unsafe.Pointer(&key), unsafe.Pointer(&entry), ebpf.UpdateAny); err != nil {
			l.remove(s)
			if errors.Is(err, unix.E2BIG) {
				return 0, Full
			}
			return 0, Failed
		}
	}
	l.note(s, generation)
	return generation, Entered
}

// reserve takes room for a session, if there is any.
func (l *Lane) reserve(s Session) bool {
	l.own.Lock()
	defer l.own.Unlock()
	if _, ok := l.inside[s]; !ok {
		if int64(len(l.inside)) >= l.limit {
			return false
		}
		l.inside[s] = 0
	}
	return true
}

// note counts a session whose entries are there.
func (l *Lane) note(s Session, generation uint64) {
	l.own.Lock()
	defer l.own.Unlock()
	if l.inside[s] != generation {
		l.inside[s] = generation
		l.active.Add(1)
	}
}

// Leave has the sockets carry a session again. Datagrams that the kernel has on their way are not called back.
func (l *Lane) Leave(s Session) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.closed {
		l.remove(s)
	}
}

func (l *Lane) remove(s Session) {
	for _, w := range s.ways() {
		key := w.old.key()
		_ = l.sessions.Delete(unsafe.Pointer(&key)) // it may be out already
	}
	l.own.Lock()
	defer l.own.Unlock()
	if l.inside[s] == l.generation.Load() {
		l.active.Add(-1)
	}
	delete(l.inside, s)
}

// Silent returns for how long the kernel has carried nothing for a session; false if it does not carry it.
func (l *Lane) Silent(s Session) (time.Duration, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return 0, false
	}
	var last int64
	for _, w := range s.ways() {
		key := w.old.key()
		var entry [entrySize]byte
		if err := l.sessions.Lookup(unsafe.Pointer(&key), unsafe.Pointer(&entry)); err != nil {
			return 0, false
		}
		last = max(last, entryTime(&entry))
	}
	return time.Duration(max(0, monotonic()-last)), true
}

// empty puts every session out, and everything that is known of routes. What that costs does not depend on how many there are:
// the program passes over their entries from then on, and who has entered them finds out by Generation, and takes them away.
func (l *Lane) empty() {
	mtu, err := l.paths.look(l.log)
	if err != nil {
		l.log.Warn("network interfaces cannot be read; UDP sessions with other machines stay with their sockets", "error", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.paths.forget(mtu)
	if err := l.next(); err != nil {
		l.log.Error("the kernel carries UDP sessions as the network was before", "error", err)
	}
	l.emptied.Add(1)
}

// next begins another generation.
func (l *Lane) next() error {
	generation := l.generation.Load() + 1
	if err := l.present.Update(uint32(0), generation, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("write generation: %w", err)
	}
	l.generation.Store(generation)
	l.active.Store(0)
	return nil
}

// follow empties the lane when the machine's network changes, or when more is heard of packets that are too long, until Close.
func (l *Lane) follow(heard uint64) {
	defer close(l.done)
	for {
		changed, open := l.watch.wait(restBetween)
		if !open {
			return
		}
		said := l.total(tooLong)
		if changed || said != heard {
			heard = said
			l.empty()
			if !l.watch.rest(restBetween) {
				return
			}
		}
	}
}

// total reads one of the counters.
func (l *Lane) total(which uint32) (sum uint64) {
	var each []uint64
	if err := l.counters.Lookup(which, &each); err != nil {
		return 0
	}
	for _, n := range each {
		sum += n
	}
	return sum
}

// Stats is a Lane at one moment.
type Stats struct {
	// Active is how many sessions the kernel carries.
	Active int64
	// Entered counts sessions each time that they were entered, Refused those that were not by reason, Emptied how often all were
	// put out because the network had changed.
	Entered, Emptied uint64
	Refused          [refusals]uint64
	// Asked and Answered count datagrams of clients and of backends.
	Asked, Answered uint64
}

// Add adds up what two lanes have counted.
func (st *Stats) Add(x Stats) {
	st.Active += x.Active
	st.Entered += x.Entered
	st.Emptied += x.Emptied
	st.Asked += x.Asked
	st.Answered += x.Answered
	for i, n := range x.Refused {
		st.Refused[i] += n
	}
}

// Stats returns the counters. They stay after Close.
func (l *Lane) Stats() Stats {
	st := Stats{Active: l.active.Load(), Entered: l.entered.Load(), Emptied: l.emptied.Load()}
	for i := range l.refused {
		st.Refused[i] = l.refused[i].Load()
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if st.Asked, st.Answered = l.final[asked], l.final[answered]; !l.freed {
		st.Asked, st.Answered = l.total(asked), l.total(answered)
	}
	return st
}

// monotonic is the time of bpf_ktime_get_coarse_ns.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}
