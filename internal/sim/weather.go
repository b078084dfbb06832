package sim

import (
	"math/rand/v2"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// madness is what a mad observer says instead of what it finds.
type madness uint8

const (
	sane madness = iota
	allDown
	allUp
	inverted
	dice
	madnesses
)

// says returns what a machine claims of a target that it found to be s.
func (m madness) says(s health.Status, random *rand.Rand) health.Status {
	switch m {
	case allDown:
		return health.StatusDown
	case allUp:
		return health.StatusUp
	case inverted:
		switch s {
		case health.StatusUp:
			return health.StatusDown
		case health.StatusDown:
			return health.StatusUp
		}
	case dice:
		return health.Status(random.IntN(4))
	}
	return s
}

// reaches is the truth of one probe.
func (w *world) reaches(m *machine, i int) bool {
	t := w.fleet.layout.Targets[i]
	if t.Kind == health.KindBackend {
		return !w.backendDown[i]
	}
	for _, other := range w.machines {
		if w.fleet.sites[other.site] == t.Site && other.alive && !other.frozen && w.net.both(m.id, other.id) {
			return true
		}
	}
	return false
}

// planLoneMadness makes one machine mad, or all of one site, and nothing else.
func (w *world) planLoneMadness() {
	w.lone = w.random.IntN(len(w.fleet.sites))
	whole := w.chance(0.5)
	kind := 1 + madness(w.random.IntN(int(madnesses)-1))
	w.at(warmUp, func() {
		w.stormy = true
		for _, m := range w.machines {
			if m.site == w.lone {
				m.mad = kind
				w.note("%s goes mad (%d)", m.name, kind)
				if !whole {
					return
				}
			}
		}
	})
}

// planBlackout cuts every link between sites.
func (w *world) planBlackout() {
	w.at(warmUp, func() {
		w.stormy = true
		w.note("every link between sites is cut for %v", w.o.Storm)
		w.cutWhere(w.o.Storm, func(a, b *machine) bool { return a.site != b.site })
	})
}

// planWeather draws the faults of a storm.
func (w *world) planWeather() {
	w.at(warmUp, func() { w.stormy = true })
	madmen := w.chance(0.3)
	wipes := (len(w.machines) - 1) / 2 // a majority of disks must outlive the storm
	for range 6 + w.random.IntN(16) {
		at, lasts := warmUp+w.between(0, w.o.Storm), w.between(time.Second, w.o.Storm/2)
		m := w.machines[w.random.IntN(len(w.machines))]
		switch w.random.IntN(16) {
		case 0, 1:
			w.at(at, func() { w.cutSites(lasts) })
		case 2:
			w.at(at, func() { w.isolate(m, lasts) })
		case 3, 4:
			wipe := wipes > 0 && w.chance(0.4)
			if wipe {
				wipes--
			}
			w.at(at, func() { w.kill(m, lasts, wipe) })
		case 5:
			w.at(at, func() { w.freeze(m, lasts) })
		case 6:
			w.at(at, func() { w.badNetwork(lasts) })
		case 7:
			w.at(at, func() { w.breakBackends(m.site, lasts) })
		case 8:
			w.at(at, func() {
				w.note("%s: disk full for %v", m.name, lasts)
				m.disk.full = true
				w.in(lasts, func() { m.disk.full = false })
			})
		case 9:
			if madmen {
				kind := 1 + madness(w.random.IntN(int(madnesses)-1))
				w.at(at, func() {
					w.note("%s goes mad (%d) for %v", m.name, kind, lasts)
					w.mad = true
					m.mad = kind
					w.in(lasts, func() { m.mad = sane })
				})
			}
		case 10:
			w.at(at, func() { w.loseMessenger(m, lasts) })
		default:
			w.at(at, w.operate)
			if w.chance(0.5) { // two operators at once, who do not know of each other
				w.at(at+w.between(0, 2*time.Second), w.operate)
			}
		}
	}
}

// loseMessenger cuts a machine off, has it take an order, and kills it before
// anybody can have heard of it: such an order may be lost, but not acknowledged.
func (w *world) loseMessenger(m *machine, lasts time.Duration) {
	w.isolate(m, lasts)
	w.in(w.between(100*time.Millisecond, 2*time.Second), func() {
		if !w.stormy {
			return
		}
		w.operateAt(m)
		w.in(w.between(time.Millisecond, 30*time.Millisecond), func() {
			if w.stormy {
				w.kill(m, lasts, false)
			}
		})
	})
}

// operate has an operator order something somewhere.
func (w *world) operate() { w.operateAt(w.machines[w.random.IntN(len(w.machines))]) }

// operateAt has an operator order something at m.
func (w *world) operateAt(m *machine) {
	if !m.alive || m.frozen {
		return
	}
	v := health.Override{
		Scope: w.fleet.scopes[w.random.IntN(len(w.fleet.scopes))],
		Order: health.Order(w.random.IntN(4)),
	}
	if len(w.ordered) > 0 && w.chance(0.8) { // somebody changes their mind
		v.Scope = w.ordered[w.random.IntN(len(w.ordered))]
	}
	w.ordered = append(w.ordered, v.Scope)
	if w.chance(0.3) {
		v.Until = m.wall().Add(w.between(5*time.Second, time.Minute))
	}
	w.note("%s: %s %s", m.name, v.Scope, v.Order)
	m.command(v)
}

// cutSites splits the sites in two camps, in one direction or both.
func (w *world) cutSites(lasts time.Duration) {
	camp := make([]bool, len(w.fleet.sites))
	for i := range camp {
		camp[i] = w.chance(0.5)
	}
	oneWay := w.chance(0.4)
	w.note("camps %v cut for %v, one way %v", camp, lasts, oneWay)
	w.cutWhere(lasts, func(a, b *machine) bool {
		return camp[a.site] != camp[b.site] && (!oneWay || camp[a.site])
	})
}

// isolate cuts one machine off from all others.
func (w *world) isolate(m *machine, lasts time.Duration) {
	w.note("%s isolated for %v", m.name, lasts)
	w.cutWhere(lasts, func(a, b *machine) bool { return (a == m) != (b == m) })
}

func (w *world) cutWhere(lasts time.Duration, where func(a, b *machine) bool) {
	for _, a := range w.machines {
		for _, b := range w.machines {
			if where(a, b) {
				w.net.cut[a.id][b.id] = true
				w.in(lasts, func() { w.net.cut[a.id][b.id] = false })
			}
		}
	}
}

// kill ends a machine and starts it again, perhaps with another disk or clock.
func (w *world) kill(m *machine, lasts time.Duration, wipe bool) {
	backup := wipe && w.chance(0.5)
	w.note("%s killed for %v, wiped %v, backup %v", m.name, lasts, wipe, backup)
	m.die()
	switch {
	case backup:
		m.disk = disk{overrides: m.disk.backup, backup: m.disk.backup, copied: true}
	case wipe:
		m.disk = disk{}
	}
	if w.chance(0.3) {
		m.clock = w.between(-365*24*time.Hour, 365*24*time.Hour)
		w.note("%s: clock off by %v", m.name, m.clock)
	}
	w.in(lasts, m.boot)
}

func (w *world) freeze(m *machine, lasts time.Duration) {
	if !m.alive {
		return
	}
	w.note("%s frozen for %v", m.name, lasts)
	if !m.frozen {
		m.froze = m.w.now
	}
	m.frozen = true
	w.in(lasts, m.thaw)
}

func (w *world) badNetwork(lasts time.Duration) {
	w.net.loss, w.net.duplicate, w.net.slow = 0.5*w.random.Float64(), 0.3*w.random.Float64(), w.between(fast, time.Second)
	w.note("loss %.2f, duplicates %.2f, delay up to %v for %v", w.net.loss, w.net.duplicate, w.net.slow, lasts)
	w.in(lasts, func() { w.net.loss, w.net.duplicate, w.net.slow = 0, 0, fast })
}

// breakBackends takes backends of a site down, each by the toss of a coin.
func (w *world) breakBackends(site int, lasts time.Duration) {
	w.note("backends of %s break for %v", w.fleet.sites[site], lasts)
	for i, t := range w.fleet.layout.Targets {
		if t.Kind == health.KindBackend && t.Site == w.fleet.sites[site] && w.chance(0.7) {
			w.backendDown[i] = true
			w.in(lasts, func() { w.backendDown[i] = false })
		}
	}
}

// clear ends the storm: everything works again, for good.
func (w *world) clear() {
	w.note("the weather clears")
	w.stormy = false
	for _, m := range w.machines {
		m.mad, m.disk.full = sane, false
		m.thaw()
		m.boot()
		clear(w.net.cut[m.id])
	}
	w.net.loss, w.net.duplicate, w.net.slow = 0, 0, fast
	clear(w.backendDown)
}
