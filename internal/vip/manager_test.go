package vip

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var everything = netip.MustParsePrefix("0.0.0.0/0")

// A desk is a kernel without an interface, that fails as it is told.
type desk struct {
	have    map[netip.Addr]bool
	fail    []error // of the next lists, in order; then none
	refuses map[netip.Addr]bool
	adding  func()
}

func (d *desk) list() (map[netip.Addr]bool, error) {
	if len(d.fail) > 0 {
		err := d.fail[0]
		d.fail = d.fail[1:]
		if err != nil {
			return nil, err
		}
	}
	return maps.Clone(d.have), nil
}

func (d *desk) add(a netip.Addr) error {
	if d.adding != nil {
		d.adding()
	}
	if d.refuses[a] {
		return unix.EPERM
	}
	d.have[a] = true
	return nil
}

func (d *desk) remove(a netip.Addr) error { delete(d.have, a); return nil }
func (d *desk) close()                    {}
func (d *desk) watch(chan<- struct{}) (<-chan struct{}, func(), error) {
	return nil, nil, errors.ErrUnsupported
}

func managerOn(t *testing.T, d *desk) *Manager {
	t.Helper()
	metrics, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Manager{
		opts: Options{Interface: "lo", Linger: time.Nanosecond}, log: slog.New(slog.DiscardHandler), kernel: d, metrics: metrics,
		ledger: ledger{filepath.Join(t.TempDir(), "vips")}, changed: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		wanted: map[netip.Addr]bool{}, leaving: map[netip.Addr]time.Time{}, errors: map[netip.Addr]error{}, ours: map[netip.Addr]bool{},
	}
}

// A list that fails takes no address off: only that there is no such interface does.
func TestOnlyAbsenceIsEvidence(t *testing.T) {
	often := slices.Repeat([]error{netlink.ErrDumpInterrupted}, 20)
	for _, tc := range []struct {
		name    string
		fail    []error
		missing int
		blind   bool
	}{
		{"no buffers", []error{unix.ENOBUFS}, 0, true},
		{"no file descriptors", []error{unix.EMFILE}, 0, true},
		{"interrupted once", often[:1], 0, false},
		{"interrupted again and again", often, 0, true},
		{"no interface", []error{errNoInterface}, 2, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := &desk{have: map[netip.Addr]bool{}}
			m := managerOn(t, d)
			set(t, m, a4, b4)
			<-m.Changed()
			d.fail = tc.fail
			m.look()
			if got := m.Missing(everything); len(got) != tc.missing {
				t.Errorf("missing %v, want %d", got, tc.missing)
			}
			if m.blind != tc.blind || len(m.Changed()) != min(tc.missing, 1) {
				t.Errorf("blind %v, news %d", m.blind, len(m.Changed()))
			}
			d.fail = nil
			delete(d.have, a4)
			d.refuses = map[netip.Addr]bool{a4: true}
			m.look()
			if got := m.Missing(everything); !slices.Equal(got, []netip.Addr{a4}) {
				t.Errorf("afterwards missing %v, want what is", got)
			}
		})
	}
}

// Whoever asks what is missing waits for no disk and no kernel.
func TestMissingNeverWaits(t *testing.T) {
	d := &desk{have: map[netip.Addr]bool{}}
	m := managerOn(t, d)
	set(t, m, a4)
	asked := false
	d.adding = func() { // mu is held
		asked = len(m.Missing(everything)) == 0
	}
	set(t, m, a4, b4)
	if !asked {
		t.Error("in the middle of a change something is missing that was not wanted before")
	}
}

// What is to be kept is no reason to give up.
func TestSetKeeps(t *testing.T) {
	d := &desk{have: map[netip.Addr]bool{}, refuses: map[netip.Addr]bool{a4: true}}
	m := managerOn(t, d)
	if err := m.Set([]netip.Addr{b4}, a4, b4); err != nil {
		t.Fatalf("an address that is only kept: %v", err)
	}
	if got := m.Missing(everything); !slices.Equal(got, []netip.Addr{a4}) {
		t.Errorf("missing %v", got)
	}
	if err := m.Set([]netip.Addr{a4, b4}); err == nil {
		t.Error("an address that is wanted is not bound, and it says nothing")
	}
	if err := m.Set(nil, a4); err != nil {
		t.Errorf("nothing is wanted: %v", err)
	}
}

// All that is new is noted in one write; nothing is bound that could not be noted.
func TestNotedTogether(t *testing.T) {
	d := &desk{have: map[netip.Addr]bool{}}
	m := managerOn(t, d)
	d.adding = func() {
		ours, err := m.ledger.read("lo")
		if err != nil || len(ours) != 3 {
			t.Errorf("bound with %v noted: %v", ours, err)
		}
	}
	set(t, m, a4, b4, a6)
	d.adding = nil
	set(t, m)
	m.look()
	if ours, err := m.ledger.read("lo"); err != nil || len(ours) != 0 || len(d.have) != 0 {
		t.Errorf("afterwards noted %v, bound %v: %v", ours, d.have, err)
	}
	if err := os.Mkdir(m.ledger.file+".new", 0o755); err != nil { // nothing can be noted any more
		t.Fatal(err)
	}
	if err := m.Set([]netip.Addr{a4, b4}); err == nil || len(d.have) != 0 {
		t.Errorf("bound %v although not noted (%v)", d.have, err)
	}
}
