package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limits and timing.
const (
	MaxAddresses  = 4096
	DefaultLinger = 10 * time.Second
	lookEvery     = 5 * time.Second // the kernel's news can get lost
)

// Options makes a Manager. Interface and File are required.
type Options struct {
	Interface  string
	File       string                // keeps which addresses are ours
	Linger     time.Duration         // an address stays for so long after it is no longer wanted; 0 = DefaultLinger
	Log        *slog.Logger          // nil discards
	Registerer prometheus.Registerer // nil = no metrics
}

// A Status is one address.
type Status struct {
	Address netip.Addr
	Bound   bool      // on the interface now
	Ours    bool      // bound by us, so removed by us
	Until   time.Time // no longer wanted: removed then; zero = wanted
	Error   string    // why it is not bound
}

// A Manager keeps addresses on one interface. Its methods may be called by several goroutines; Run once.
type Manager struct {
	// Immutable.
	opts    Options
	log     *slog.Logger
	kernel  kernel
	ledger  ledger
	changed chan struct{} // capacity 1
	kick    chan struct{} // capacity 1: for Run
	metrics *metrics

	missing atomic.Pointer[[]netip.Addr] // what Missing goes by: sorted, and whole, whatever the disk and the kernel keep mu waiting for

	mu      sync.Mutex // guards the rest
	wanted  map[netip.Addr]bool
	leaving map[netip.Addr]time.Time // when ours that are not wanted go
	ours    map[netip.Addr]bool      // as in the ledger
	bound   map[netip.Addr]bool      // as the kernel was seen last
	errors  map[netip.Addr]error
	blind   bool // the kernel does not say what it has
}

// A kernel is the interface's addresses, /32 and /128 of them.
type kernel interface {
	list() (map[netip.Addr]bool, error) // errNoInterface: there are none
	add(a netip.Addr) error
	remove(a netip.Addr) error
	// watch sends (capacity 1) after addresses changed, until ended is closed: because of stop, or because news were lost.
	watch(changed chan<- struct{}) (ended <-chan struct{}, stop func(), err error)
	close()
}

// ErrPrivilege is in every error that is about the missing capability.
var ErrPrivilege = errors.New("needs the capability CAP_NET_ADMIN: run under deploy/pharos-vips.conf (a drop-in of the systemd unit), " +
	"as root, or leave the addresses to the operating system and vips out of the configuration")

// New finds the interface, checks the privilege and reads which addresses are ours. It changes nothing.
func New(o Options) (*Manager, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Linger == 0 {
		o.Linger = DefaultLinger
	}
	if err := Check(o.Interface); err != nil {
		return nil, err
	}
	k, err := openKernel(o.Interface)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		opts: o, log: o.Log, kernel: k, ledger: ledger{o.File}, changed: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		wanted: map[netip.Addr]bool{}, leaving: map[netip.Addr]time.Time{}, errors: map[netip.Addr]error{},
	}
	if m.ours, err = m.ledger.read(o.Interface); err != nil {
		k.close()
		return nil, err
	}
	if m.metrics, err = newMetrics(o.Registerer); err != nil {
		k.close()
		return nil, err
	}
	return m, nil
}

// Changed receives (capacity 1) after an address came or went.
func (m *Manager) Changed() <-chan struct{} { return m.changed }

// Set says which addresses should be there. Those that are missing are bound before it returns; an error names those
// that are not, and leaves those that were bound by this call unbound again, so that the caller can give up. What is no
// longer wanted goes after the linger time. Those of keep should be there too, but are no reason to give up.
func (m *Manager) Set(want []netip.Addr, keep ...netip.Addr) error {
	if len(want) > MaxAddresses {
		return fmt.Errorf("%d VIPs, at most %d", len(want), MaxAddresses)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before, wasLeaving := m.wanted, m.leaving
	next := make(map[netip.Addr]bool, len(want)+len(keep))
	for _, a := range slices.Concat(want, keep) {
		next[a.Unmap()] = true
	}
	m.wanted, m.leaving = next, map[netip.Addr]time.Time{}
	m.plan(wasLeaving)
	if err := m.lacking(want, m.reconcile()); err != nil {
		m.wanted, m.leaving = before, map[netip.Addr]time.Time{}
		for a := range next {
			if !before[a] {
				m.leaving[a] = time.Now() // bound or not, it goes
			}
		}
		m.plan(wasLeaving)
		return errors.Join(err, m.reconcile())
	}
	signal(m.kick)
	return nil
}

// lacking is the part of reconcile's error that is about addresses.
func (m *Manager) lacking(of []netip.Addr, err error) error {
	if err == nil || m.blind && len(of) > 0 {
		return err
	}
	var errs []error
	for _, a := range of {
		if err := m.errors[a.Unmap()]; err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		m.log.Warn("VIPs are not as they should be", "error", err)
	}
	return errors.Join(errs...)
}

// plan has what is ours and not wanted leave: at the time that is already set for it, or after the linger time.
func (m *Manager) plan(known map[netip.Addr]time.Time) {
	for a := range m.ours {
		if m.wanted[a] {
			continue
		}
		if at, ok := known[a]; ok {
			m.leaving[a] = at
		} else if _, ok := m.leaving[a]; !ok {
			m.leaving[a] = time.Now().Add(m.opts.Linger)
		}
	}
}

// Run binds again what goes missing, and unbinds what has lingered, until ctx ends. Everything stays bound then: a crash
// and a stop are told apart by Release.
func (m *Manager) Run(ctx context.Context) error {
	news := make(chan struct{}, 1)
	var ended <-chan struct{} // nil while nothing is watched
	stop := func() {}
	defer func() { stop() }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if ended == nil {
			var err error
			if ended, stop, err = m.kernel.watch(news); err != nil {
				m.log.Warn("cannot watch the interface's addresses; looking every few seconds", "error", err)
				ended, stop = nil, func() {}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			stop()
			ended = nil
		case <-news:
		case <-m.kick:
		case <-timer.C:
		}
		timer.Reset(m.look())
	}
}

// look brings the kernel in step and returns when to look again.
func (m *Manager) look() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.reconcile(); err != nil {
		m.log.Debug("VIPs are not as they should be", "error", err)
	}
	next := lookEvery
	for _, at := range m.leaving {
		next = min(next, max(time.Until(at), 10*time.Millisecond))
	}
	return next
}

// reconcile makes the kernel be as wanted. One address that fails stops no other.
func (m *Manager) reconcile() error {
	have, err := listWhole(m.kernel)
	m.noteBlind(err)
	switch {
	case errors.Is(err, errNoInterface):
		m.see(nil, err)
		return err
	case err != nil: // no evidence of anything
		m.see(m.bound, err)
		return err
	}
	var errs []error
	m.errors = map[netip.Addr]error{}
	fail := func(a netip.Addr, err error) {
		m.errors[a] = err
		errs = append(errs, err)
	}
	m.bindMissing(have, fail)
	m.unbindDue(have, fail)
	m.see(have, nil)
	return errors.Join(errs...)
}

// noteBlind says once that the kernel does not answer, and once that it does again.
func (m *Manager) noteBlind(err error) {
	blind := err != nil && !errors.Is(err, errNoInterface)
	switch {
	case blind && !m.blind:
		m.log.Warn("cannot read the interface's addresses: the VIPs are taken to be as they were seen last", "interface", m.opts.Interface, "error", err)
	case !blind && m.blind:
		m.log.Info("the interface's addresses can be read again", "interface", m.opts.Interface)
	}
	m.blind = blind
}

// bindMissing puts the wanted addresses that are not there on the interface. That they are ours is on disk first: after
// a crash in between they are looked for, and otherwise they would be somebody else's for ever.
func (m *Manager) bindMissing(have map[netip.Addr]bool, fail func(netip.Addr, error)) {
	var missing, strange []netip.Addr
	for a := range m.wanted {
		if have[a] {
			continue
		}
		missing = append(missing, a)
		if !m.ours[a] {
			m.ours[a] = true
			strange = append(strange, a)
		}
	}
	if len(strange) > 0 {
		if err := m.ledger.write(m.opts.Interface, m.ours); err != nil {
			for _, a := range strange {
				delete(m.ours, a)
				fail(a, fmt.Errorf("VIP %s is not bound, because it could not be noted as ours: %w", a, err))
			}
		}
	}
	for _, a := range missing {
		if !m.ours[a] {
			continue
		}
		if err := m.bind(a); err != nil {
			fail(a, err)
			continue
		}
		have[a] = true
	}
}

// bind puts an address on the interface.
func (m *Manager) bind(a netip.Addr) error {
	if m.bound[a] {
		m.log.Warn("a VIP was removed from the interface by somebody else: binding it again", "address", a, "interface", m.opts.Interface)
		m.metrics.restored.Inc()
	}
	if err := m.kernel.add(a); err != nil {
		return fmt.Errorf("bind VIP %s on %s: %w", a, m.opts.Interface, err)
	}
	m.log.Info("VIP bound", "address", a, "interface", m.opts.Interface)
	return nil
}

// unbindDue takes the addresses of ours that have lingered off, and then off the ledger.
func (m *Manager) unbindDue(have map[netip.Addr]bool, fail func(netip.Addr, error)) {
	now := time.Now()
	var gone []netip.Addr
	for a, at := range m.leaving {
		if now.Before(at) {
			continue
		}
		if m.ours[a] {
			if have[a] {
				if err := m.kernel.remove(a); err != nil {
					fail(a, fmt.Errorf("unbind VIP %s from %s: %w", a, m.opts.Interface, err))
					continue
				}
				m.log.Info("VIP unbound", "address", a, "interface", m.opts.Interface)
				delete(have, a)
			}
			delete(m.ours, a)
			gone = append(gone, a)
			continue
		}
		delete(m.leaving, a)
	}
	if len(gone) == 0 {
		return
	}
	err := m.ledger.write(m.opts.Interface, m.ours)
	for _, a := range gone {
		if err != nil {
			m.ours[a] = true
			fail(a, fmt.Errorf("forget VIP %s: %w", a, err))
			continue
		}
		delete(m.leaving, a)
	}
}

// see takes over what the kernel has, with the error why it has no more, or has not said.
func (m *Manager) see(have map[netip.Addr]bool, err error) {
	moved := len(have) != len(m.bound)
	for a := range have {
		moved = moved || !m.bound[a]
	}
	m.bound = have
	missing := []netip.Addr{}
	for a := range m.wanted {
		if !have[a] {
			missing = append(missing, a)
			if m.errors[a] == nil && err != nil {
				m.errors[a] = err
			}
		}
	}
	slices.SortFunc(missing, netip.Addr.Compare)
	m.missing.Store(&missing)
	m.metrics.wanted.Set(float64(len(m.wanted)))
	m.metrics.missing.Set(float64(len(missing)))
	if moved {
		signal(m.changed)
	}
}

// Missing returns the wanted addresses in a prefix that are not on the interface, as they were seen last. It never waits.
func (m *Manager) Missing(in netip.Prefix) (out []netip.Addr) {
	all := m.missing.Load()
	if all == nil {
		return nil
	}
	for _, a := range *all {
		if in.Contains(a) {
			out = append(out, a)
		}
	}
	return out
}

// Status returns all addresses that are wanted or ours, sorted.
func (m *Manager) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[netip.Addr]bool{}
	for a := range m.wanted {
		all[a] = true
	}
	for a := range m.ours {
		all[a] = true
	}
	out := make([]Status, 0, len(all))
	for a := range all {
		s := Status{Address: a, Bound: m.bound[a], Ours: m.ours[a], Until: m.leaving[a]}
		if err := m.errors[a]; err != nil {
			s.Error = err.Error()
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return a.Address.Compare(b.Address) })
	return out
}

// Interface returns its name.
func (m *Manager) Interface() string { return m.opts.Interface }

// Release unbinds everything of ours at once: the last step of a stop, after connections have ended and lingered.
func (m *Manager) Release() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = map[netip.Addr]bool{}
	for a := range m.ours {
		m.leaving[a] = time.Time{}
	}
	return m.reconcile()
}

// Close frees what New acquired and leaves all addresses as they are.
func (m *Manager) Close() error {
	m.kernel.close()
	m.metrics.unregister()
	return nil
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
