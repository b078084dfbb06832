package sim

import (
	"time"

	"github.com/pharos-lb/pharos/internal/decide"
	"github.com/pharos-lb/pharos/internal/health"
)

// How a machine works. The checks' numbers are the configuration's defaults, a
// little faster, so that a minute of storm is worth more.
const (
	probeEvery    = time.Second
	recheckEvery  = 250 * time.Millisecond
	rise, fall    = 2, 3
	readyAfter    = 2 * time.Second
	exchangeEvery = 15 * time.Second
	repairEvery   = 2 * time.Second
	// settleStep gathers what arrives together into one step; in larger fleets, where something arrives
	// all the time, groupStep and crowdStep.
	settleStep = 5 * time.Millisecond
	groupStep  = 25 * time.Millisecond
	crowdStep  = 100 * time.Millisecond
	// group and crowd are the largest fleets of which that is not so.
	group, crowd = 9, 30
	// fanOut is how many others a machine passes a changed report on to.
	fanOut = 3
	// maxWaiting is how much a frozen machine's sockets hold.
	maxWaiting = 256
)

// A machine is one node: the real core with a world around it.
type machine struct {
	// Immutable.
	w    *world
	id   int
	name string
	site int

	disk disk
	// What follows is of the present life.
	core     *decide.Core
	alive    bool
	frozen   bool
	froze    time.Duration // when it was frozen
	stood    time.Duration // how long, while what waited is read
	took     time.Duration // the newest standstill
	life     int
	clock    time.Duration // how far its wall clock is off
	mad      madness
	findings []track // by position in the layout
	observed []int   // positions that this machine probes
	statuses []health.Status
	waiting  []func() // what arrived while frozen
	stepping bool
	said     *health.Report
	size     int               // of every report of this machine, in bytes
	relayed  map[string]uint64 // per observer: the newest seq that was passed on
	repaired map[int]time.Duration
	pending  []order
	kept     map[health.Scope]health.Override // every order, as of the newest change
	counted  []time.Duration                  // by position: when a verdict on a statement began or ceased to count
}

// A disk is what survives a machine's lives.
type disk struct {
	full      bool
	epoch     uint64
	view      []byte
	registers []byte
	overrides []byte
	// backup is an old copy of the overrides.
	backup []byte
	copied bool
}

// A track follows one target through its probes.
type track struct {
	status health.Status
	streak int
}

func newMachine(w *world, id int, name string) *machine {
	return &machine{w: w, id: id, name: name, site: w.fleet.siteOf[id]}
}

// wall is the machine's own idea of the time.
func (m *machine) wall() time.Time { return start.Add(m.w.now + m.clock) }

// boot begins a life from what is on disk.
func (m *machine) boot() {
	if m.alive {
		return
	}
	topology := m.w.fleet.topologies[m.id]
	m.alive, m.frozen, m.said, m.stepping, m.waiting, m.pending, m.kept = true, false, nil, false, nil, nil, nil
	m.life++
	m.relayed, m.repaired = map[string]uint64{}, map[int]time.Duration{}
	m.findings = make([]track, len(topology.Layout.Targets))
	m.statuses = make([]health.Status, len(topology.Layout.Targets))
	m.counted = make([]time.Duration, len(topology.Layout.Targets))
	m.observed = m.observed[:0]
	for _, p := range topology.Probes(m.name) {
		i, _ := topology.Layout.Index(p.Target)
		m.observed = append(m.observed, i)
	}
	m.core = decide.New(m.restored())
	life := m.life
	m.w.in(m.w.between(0, recheckEvery), func() { m.tick(life) })
	m.w.in(m.w.between(50*time.Millisecond, 500*time.Millisecond), func() { m.exchange(life) })
	m.w.in(readyAfter, func() {
		if m.life == life && m.alive {
			m.core.SetReady(true)
			m.stepSoon()
		}
	})
}

// restored is what the disk gives a new life, as package node reads it.
func (m *machine) restored() decide.Options {
	topology := m.w.fleet.topologies[m.id]
	o := decide.Options{Name: m.name, Topology: topology, Config: 1, Epoch: max(uint64(max(m.wall().Unix(), 1)), m.disk.epoch+1)}
	if !m.disk.full {
		m.disk.epoch = o.Epoch
	}
	if m.disk.view != nil {
		view, err := health.RestoreView(m.disk.view, topology.Layout, m.wall())
		if err != nil {
			m.w.violated(m, "its own last known good cannot be read: %v", err)
		}
		o.View = view
	}
	var err error
	if m.disk.overrides != nil {
		if o.Overrides, err = health.ParseOverrides(m.disk.overrides); err != nil {
			m.w.violated(m, "its own overrides cannot be read: %v", err)
		}
	}
	if m.disk.registers != nil {
		if o.Registers, err = health.RestoreRegisters(m.disk.registers); err != nil {
			m.w.violated(m, "its own registers cannot be read: %v", err)
		}
	}
	return o
}

// die ends a life without a word.
func (m *machine) die() { m.alive, m.frozen, m.waiting = false, false, nil }

// receive has what arrived happen, or wait while the machine is frozen.
func (m *machine) receive(deliver func()) {
	if !m.frozen {
		deliver()
		return
	}
	if len(m.waiting) < maxWaiting {
		m.waiting = append(m.waiting, deliver)
	}
}

// thaw lets a frozen machine go on.
func (m *machine) thaw() {
	if !m.frozen {
		return
	}
	m.frozen = false
	waiting := m.waiting
	m.waiting = nil
	m.stood = m.w.now - m.froze // as package cluster has it
	m.took = m.stood
	for _, deliver := range waiting {
		deliver()
	}
	m.stood = 0
}

// tick probes what is due and says what is to be said.
func (m *machine) tick(life int) {
	if !m.alive || m.life != life {
		return
	}
	next := probeEvery
	if !m.frozen {
		for _, i := range m.observed {
			if m.probe(i) {
				next = recheckEvery
			}
		}
		m.repair()
		m.stepNow()
	}
	m.w.in(next+m.w.between(-next/10, next/10), func() { m.tick(life) })
}

// probe looks at one target and reports whether the matter is open.
func (m *machine) probe(i int) (open bool) {
	t := &m.findings[i]
	found := health.StatusDown
	if m.w.reaches(m, i) {
		found = health.StatusUp
		t.streak = max(t.streak, 0) + 1
	} else {
		t.streak = min(t.streak, 0) - 1
	}
	switch {
	case found == t.status:
	case found == health.StatusUp && (t.streak >= rise || t.status == health.StatusNone), -t.streak >= fall:
		t.status = found
	case t.status == health.StatusNone:
		t.status = health.StatusUnknown
	}
	if t.status == health.StatusDown && m.mad == sane {
		m.w.honestDown[i] = m.w.now
	}
	return found != t.status
}

// stepSoon has the machine step when what arrives together has arrived.
func (m *machine) stepSoon() {
	if m.stepping {
		return
	}
	m.stepping = true
	life := m.life
	pause := settleStep
	switch {
	case len(m.w.machines) > crowd:
		pause = crowdStep
	case len(m.w.machines) > group:
		pause = groupStep
	}
	m.w.in(pause, func() {
		if m.life == life && m.alive && m.stepping {
			m.stepping = false
			if !m.frozen {
				m.stepNow()
			}
		}
	})
}

// stepNow is one pass of the node's decider.
func (m *machine) stepNow() {
	for _, i := range m.observed {
		m.statuses[i] = m.mad.says(m.findings[i].status, m.w.random)
	}
	if r := m.core.Observe(m.statuses, 0, m.wall()); r != nil {
		m.publish(r)
	}
	before, view := m.core.Plan(), m.core.View()
	s := m.core.Step(health.Moment{Now: m.wall()})
	m.w.steps++
	m.noteCounted(view, s.View)
	if len(s.Ended) > 0 {
		for _, v := range s.Ended {
			m.w.history.Wrote(v)
		}
		m.publishOrders()
	}
	m.saveView(s)
	m.checkStep(s, before)
	m.checkOrders()
	if m.core.Unsaid() {
		m.stepSoon()
	}
}

// saveView writes the last known good, and how far the observers have come.
func (m *machine) saveView(s decide.Step) {
	if len(s.Changed) == 0 || m.disk.full {
		return
	}
	if data, err := health.EncodeView(s.View); err == nil {
		m.disk.view = data
	}
	if data, err := health.EncodeRegisters(m.core.Ledger().Registers()); err == nil {
		m.disk.registers = data
	}
}

// publish sends the own report to everybody.
func (m *machine) publish(r *health.Report) {
	m.checkSize(r)
	news := m.said == nil || m.said.Flags != r.Flags || m.said.Overrides != r.Overrides || string(m.said.States) != string(r.States)
	m.said = r
	for _, other := range m.w.machines {
		if other != m {
			m.w.datagram(m, other, func() { other.hear(r, 0, news) })
		}
	}
}

// hear takes a report that was age old when it was sent.
func (m *machine) hear(r *health.Report, age time.Duration, news bool) {
	age += m.stood
	outcome := m.core.Merge(r, age, m.wall())
	if r.Observer == m.name {
		if !m.disk.full {
			m.disk.epoch = max(m.disk.epoch, m.core.Epoch())
		}
		return
	}
	if outcome == health.OutcomeOld {
		m.remind(r, age)
	}
	if outcome != health.OutcomeNew && outcome != health.OutcomeConflict {
		return
	}
	m.stepSoon()
	if !news || m.relayed[r.Observer] >= r.Seq {
		return
	}
	m.relayed[r.Observer] = r.Seq
	for range fanOut {
		other := m.w.machines[m.w.random.IntN(len(m.w.machines))]
		if other != m {
			m.w.datagram(m, other, func() { other.hear(r, age, true) })
		}
	}
}

// remind sends a machine that speaks below an epoch of its own what is held of it.
func (m *machine) remind(r *health.Report, age time.Duration) {
	held := m.core.Ledger().Held(r.Observer)
	if held == nil || r.Epoch >= held.Epoch || age > health.FreshFor {
		return
	}
	for _, observer := range m.w.machines {
		if observer.name == r.Observer {
			m.w.datagram(m, observer, func() { observer.hear(held, 0, false) })
		}
	}
}

// exchange swaps everything that is held with another machine, now and again.
func (m *machine) exchange(life int) {
	if !m.alive || m.life != life {
		return
	}
	m.w.in(exchangeEvery+m.w.between(-exchangeEvery/5, exchangeEvery/5), func() { m.exchange(life) })
	if m.frozen || len(m.w.machines) < 2 {
		return
	}
	for range 5 { // whoever does not answer is passed over
		other := m.w.machines[m.w.random.IntN(len(m.w.machines))]
		if other != m && other.alive && !other.frozen && m.w.net.both(m.id, other.id) {
			m.giveAll(other)
			other.giveAll(m)
			return
		}
	}
}

// giveAll sends another machine every report and every order held.
func (m *machine) giveAll(other *machine) {
	reports := m.core.Ledger().Reports(m.wall())
	orders, _ := m.core.Overrides()
	m.w.stream(m, other, func() {
		for _, h := range reports {
			other.hear(h.Report, h.Age, false)
		}
		other.hearOrders(orders)
	})
}
