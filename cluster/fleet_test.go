package cluster

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// ship is one node of a simulated fleet with what stands in for its decider: it
// takes every report in, merges overrides, and publishes a report a second.
type ship struct {
	*Node
	antenna *antenna
	stop    context.CancelFunc
	done    chan error

	mu        sync.Mutex // guards the rest
	overrides *health.Overrides
	report    health.Report
	heard     map[string]*health.Report
	at        map[string]time.Time // of the first report with the states it has now
}

// fleet is a number of ships in one ether.
type fleet struct {
	t     testing.TB
	ether *ether
	ships []*ship
	keys  map[string]ed25519.PrivateKey
}

// newFleet builds the ships; nobody sails yet. All know the first three.
func newFleet(t testing.TB, n int, signed bool) *fleet {
	f := &fleet{t: t, ether: newEther(uint64(n))}
	public := make(map[string]ed25519.PublicKey)
	if signed {
		f.keys = make(map[string]ed25519.PrivateKey)
		for i := range n {
			key := ed25519.NewKeyFromSeed(append(make([]byte, 30), byte(i>>8), byte(i)))
			f.keys[shipName(i)], public[shipName(i)] = key, key.Public().(ed25519.PublicKey)
		}
	}
	var seeds []netip.AddrPort
	antennas := make([]*antenna, n)
	for i := range antennas {
		antennas[i] = f.ether.antenna()
		seeds = append(seeds, antennas[i].at)
	}
	for i := range n {
		f.build(Options{
			Name: shipName(i), Label: "sim", Keys: [][]byte{testKey(1)}, Seeds: seeds,
			SignKey: f.keys[shipName(i)], PublicKeys: public, transport: antennas[i],
		})
	}
	return f
}

func shipName(i int) string { return fmt.Sprintf("n%03d", i) }

// build adds a ship.
func (f *fleet) build(opt Options) *ship {
	s := &ship{
		antenna: opt.transport.(*antenna), done: make(chan error, 1), overrides: health.NewOverrides(),
		heard: make(map[string]*health.Report), at: make(map[string]time.Time),
		report: health.Report{Observer: opt.Name, Epoch: 1, Layout: 7, Config: 9, States: make([]byte, 250)},
	}
	opt.Bind = s.antenna.at
	opt.Deliver, opt.DeliverOverrides = s.deliver, s.merge
	var err error
	if s.Node, err = New(opt); err != nil {
		f.t.Fatal(err)
	}
	f.ships = append(f.ships, s)
	return s
}

// sail starts a ship.
func (s *ship) sail() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.PublishOverrides(nil, 0)
	go func() { s.done <- s.Run(ctx) }()
	go func() {
		time.Sleep(rand.N(time.Second))
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			s.say(func(*health.Report) {})
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
}

// sail starts every ship.
func (f *fleet) sail() {
	for _, s := range f.ships {
		s.sail()
	}
}

// sink ends every ship without a word. memberlist does not join its goroutines
// at shutdown; they end after the probe that they are in, for which time must go
// on.
func (f *fleet) sink() {
	for _, s := range f.ships {
		s.sink()
	}
	time.Sleep(time.Minute)
}

func (s *ship) sink() {
	s.Close()
	<-s.done
	s.stop()
}

// say publishes the next report.
func (s *ship) say(change func(*health.Report)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sayLocked(change)
}

func (s *ship) sayLocked(change func(*health.Report)) {
	s.report.Seq++
	r := s.report
	r.States = append([]byte(nil), s.report.States...)
	r.Overrides = s.overrides.Digest()
	change(&r)
	s.report.States = r.States
	s.Publish(&r)
}

func (s *ship) deliver(r *health.Report, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.heard[r.Observer]; old == nil || mark(old) != mark(r) {
		s.at[r.Observer] = time.Now()
	}
	s.heard[r.Observer] = r
}

// mark is what ships say in the first states of a report.
func mark(r *health.Report) uint64 { return binary.BigEndian.Uint64(r.States) }

// setMark publishes a report with another mark.
func (s *ship) setMark(m uint64) {
	s.say(func(r *health.Report) { binary.BigEndian.PutUint64(r.States, m) })
}

// merge takes overrides in, as a decider does.
func (s *ship) merge(all []health.Override) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for _, v := range all {
		if c, err := s.overrides.Merge(v); err == nil && c {
			changed = true
		}
	}
	if changed {
		s.publishLocked()
	}
}

func (s *ship) publishLocked() {
	s.PublishOverrides(s.overrides.All(), s.overrides.Digest())
	s.sayLocked(func(*health.Report) {})
}

// order writes an override.
func (s *ship) order(scopes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, scope := range scopes {
		parsed, err := health.ParseScope(scope)
		if err != nil {
			panic(err)
		}
		v := health.Override{Scope: parsed, Order: health.OrderDrain, Writer: s.opt.Name, By: "kim", Reason: "maintenance", Keeper: "fra", At: time.Now()}
		if _, err := s.overrides.Write(v); err != nil {
			panic(err)
		}
	}
	s.publishLocked()
}

func (s *ship) digest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overrides.Digest()
}

// hears returns how many others' reports were delivered, and how many of them in
// the last five seconds carry that mark.
func (s *ship) hears(of []*ship, m uint64) (all, marked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range of {
		if r := s.heard[o.opt.Name]; o != s && r != nil {
			all++
			if mark(r) == m {
				marked++
			}
		}
	}
	return all, marked
}

// within polls in virtual time until ok and returns how long it took.
func (f *fleet) within(limit time.Duration, what string, ok func() bool) time.Duration {
	f.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			f.t.Fatalf("%d nodes: not within %v: %s", len(f.ships), limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(began)
	f.t.Logf("%d nodes: %s after %v", len(f.ships), what, took.Round(10*time.Millisecond))
	return took
}

// converged reports whether everybody holds a report of everybody and counts
// everybody as a member.
func (f *fleet) converged() bool {
	for _, s := range f.ships {
		if present, _ := s.roster.count(); present != len(f.ships)-1 {
			return false
		}
		if all, _ := s.hears(f.ships, 0); all != len(f.ships)-1 {
			return false
		}
	}
	return true
}

// agreed reports whether everybody holds the same overrides.
func (f *fleet) agreed() bool {
	want := f.ships[0].digest()
	for _, s := range f.ships {
		if s.digest() != want {
			return false
		}
	}
	return true
}

// voyage runs a test of a fleet in virtual time.
func voyage(t *testing.T, n int, signed bool, run func(t *testing.T, f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, n, signed)
		defer f.sink()
		f.sail()
		run(t, f)
	})
}
