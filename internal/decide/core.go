package decide

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

const (
	// ReportEvery is how often a node reports even if nothing changed: freshness
	// is what tells a calm node from a dead one.
	ReportEvery = time.Second
	// RaiseEvery bounds how often an epoch may be raised: two nodes of one name
	// would otherwise outbid each other without end.
	RaiseEvery = time.Second
	// stallAfter is how long a node may not have looked at itself before it must
	// have been frozen or starved, so that what it holds of the world is of another
	// time; Settle is how long it then doubts itself, for its checks to run again.
	stallAfter = 3 * time.Second
	Settle     = 3 * time.Second
	// holdAgain is how long after a stall another one holds routes once more: a host that stalls
	// again and again must not hold them for ever.
	holdAgain = 30 * time.Second
	// floorFor is how long reports from before the registers on disk are refused
	// while nothing newer of their observer is heard.
	floorFor = 10 * time.Second
	// maxEpoch leaves room to go on above every epoch that is believed.
	maxEpoch = 1 << 62
)

// Options are what a Core starts from. Name and Topology are required.
type Options struct {
	// Name is this node's.
	Name string
	// Topology is what is decided on, Config the hash of the configuration.
	Topology *steer.Topology
	Config   uint64
	// Epoch is that of the reports to come. It must be durable.
	Epoch uint64
	// View is the last known good; nil without one.
	View *health.View
	// Overrides are those that were on disk, cleared ones too.
	Overrides []health.Override
	// Registers are the newest (epoch, seq) of each observer that were on disk.
	Registers []health.Register
}

// A Core is one node's judgement. Not safe for concurrent use.
type Core struct {
	name     string
	topology *steer.Topology
	config   uint64
	ledger   *health.Ledger
	view     *health.View
	plan     *steer.Plan
	facts    steer.Facts

	epoch, seq uint64
	lastReport time.Time
	lastLook   time.Time // when Observe was called last
	doubtUntil time.Time // after a stall
	lastRaise  time.Time
	reported   *health.Report // the newest own report
	own        []byte         // the states of the newest own report
	weights    []uint8
	redecide   bool // facts, orders or topology changed
	leaving    bool // this node is about to stop: nobody is to be led here

	// refused is since when observers are refused for their floors alone; at most
	// one entry for each node of the fleet.
	refused map[string]time.Time

	overrides *health.Overrides
	durable   uint64 // digest of the overrides that are on disk

	restored    bool // the view began as the last known good
	unconfirmed int  // verdicts that are still only restored
}

// New returns a Core that has heard nobody yet. Damaged overrides cannot occur:
// the caller has parsed them.
func New(o Options) *Core {
	c := &Core{
		name: o.Name, topology: o.Topology, config: o.Config, epoch: o.Epoch,
		ledger:    health.NewLedger(o.Topology.Fleet, o.Topology.Layout),
		overrides: health.NewOverrides(),
		refused:   map[string]time.Time{},
		redecide:  true,
	}
	for _, v := range o.Overrides {
		c.overrides.Merge(v)
	}
	c.durable = c.overrides.Digest()
	c.adopt()
	c.setOrders()
	for _, r := range o.Registers {
		if r.Observer == o.Name { // the epoch of that life did not reach the disk, perhaps because it was full
			c.epoch = max(c.epoch, min(r.Epoch, maxEpoch)+1)
			continue
		}
		c.ledger.SetFloor(r.Observer, r.Epoch, r.Seq)
	}
	c.restore(o.View)
	return c
}

// restore begins with the verdicts of an earlier life.
func (c *Core) restore(view *health.View) {
	if view == nil {
		return
	}
	c.view = view
	for _, v := range view.Verdicts {
		c.restored = c.restored || decided(v.Status)
		if v.Restored {
			c.unconfirmed++
		}
	}
}

func decided(s health.Status) bool { return s == health.StatusUp || s == health.StatusDown }

// Observe takes what this node's own checks say, indexed like the topology's
// layout, and returns the report to publish: nil unless something changed or
// ReportEvery has passed. flags qualify the report; a node that doubts itself
// has no vote in its own eyes either, and one that has not been here for some
// seconds doubts itself. It is to be called at least every ReportEvery.
func (c *Core) Observe(states []health.Status, flags health.Flags, now time.Time) *health.Report {
	if !c.lastLook.IsZero() && now.Sub(c.lastLook) > stallAfter {
		c.doubtUntil = now.Add(Settle)
		if now.Sub(c.facts.Stalled) > holdAgain || c.facts.Stalled.After(c.doubtUntil) {
			c.facts.Stalled = c.doubtUntil
			c.redecide = true
		}
	}
	c.lastLook = now
	if now.Before(c.doubtUntil) {
		flags |= health.FlagDoubt
	}
	if c.leaving {
		flags |= health.FlagLeaving
	}
	layout := c.topology.Layout
	r := health.NewReport(c.name, layout)
	for i, s := range states[:min(len(states), len(layout.Targets))] {
		r.Set(i, s)
	}
	if c.plan != nil && c.plan.Topology == c.topology {
		c.plan.Statements(r.Set)
	}
	changed := !bytes.Equal(r.States, c.own)
	news := changed || c.reported == nil || c.reported.Flags != flags || c.reported.Overrides != c.durable
	if !news && now.Sub(c.lastReport) < ReportEvery {
		return nil
	}
	if changed {
		c.facts.Own = append([]health.Status(nil), states...)
		c.redecide = true
	}
	c.seq++
	r.Epoch, r.Seq, r.Config, r.Flags, r.Overrides = c.epoch, c.seq, c.config, flags, c.durable
	c.own, c.lastReport, c.reported = r.States, now, r
	c.ledger.Merge(r, 0, now)
	return r
}

// Unsaid reports whether this node's newest report does not say what the newest plan
// has it state of its routes: Observe is to be called at once.
func (c *Core) Unsaid() bool {
	if c.plan == nil || c.plan.Topology != c.topology || c.reported == nil || c.reported.Layout != c.topology.Layout.Hash {
		return false
	}
	unsaid := false
	c.plan.Statements(func(target int, s health.Status) { unsaid = unsaid || c.reported.Get(target) != s })
	return unsaid
}

// Stalled reports whether this node doubts itself because it was frozen or
// starved a moment ago.
func (c *Core) Stalled(now time.Time) bool { return now.Before(c.doubtUntil) }

// SetWeights takes the shares of their weight that backends ask for, in percent,
// indexed like the topology's layout; nil = all of it.
func (c *Core) SetWeights(weights []uint8) {
	if !bytes.Equal(weights, c.weights) {
		c.weights = weights
		c.facts.Weights = weights
		c.redecide = true
	}
}

// Merge takes a report that was age old at now. One in this node's own name
// raises the epoch if it must (Raised tells).
func (c *Core) Merge(r *health.Report, age time.Duration, now time.Time) health.Outcome {
	if r.Observer == c.name {
		return c.raise(r, now)
	}
	outcome := c.ledger.Merge(r, age, now)
	if outcome == health.OutcomeOld && c.ledger.Held(r.Observer) == nil {
		c.relent(r.Observer, now)
	}
	return outcome
}

// relent lifts the floor of an observer that has been refused for floorFor: it
// lost its disk and its clock is behind, and since nobody holds a report of it,
// nobody can tell it how far it once was.
func (c *Core) relent(observer string, now time.Time) {
	since, refused := c.refused[observer]
	switch {
	case !refused:
		c.refused[observer] = now
	case now.Sub(since) > floorFor:
		delete(c.refused, observer)
		c.ledger.LiftFloor(observer)
	}
}

// raise answers an echo: somebody remembers a later life of ours, so our state
// folder is older than what we once said. Go above it, or nobody will listen.
func (c *Core) raise(echo *health.Report, now time.Time) health.Outcome {
	later := echo.Epoch > c.epoch || echo.Epoch == c.epoch && echo.Seq > c.seq
	if !later || now.Sub(c.lastRaise) < RaiseEvery || echo.Epoch >= maxEpoch-1 {
		return health.OutcomeOld
	}
	c.lastRaise = now
	c.epoch = max(c.epoch, echo.Epoch) + 1
	c.lastReport = time.Time{}
	return health.OutcomeNew
}

// Epoch returns the epoch of the reports to come. Whoever sees it change makes it durable.
func (c *Core) Epoch() uint64 { return c.epoch }

// SetReady says whether this node's listeners are open.
func (c *Core) SetReady(ready bool) {
	c.facts.Ready = ready
	c.redecide = true
}

// SetLeaving says that this node is about to stop: from the next report on nobody is to be led here by DNS.
func (c *Core) SetLeaving() { c.leaving = true }

// SetStopping says that this node is about to stop: its routes are to be avoided from now on.
func (c *Core) SetStopping() {
	c.facts.Stopping = true
	c.redecide = true
}

// SetUnpeered says whether no BGP session of this node is established.
func (c *Core) SetUnpeered(unpeered bool) {
	if c.facts.Unpeered != unpeered {
		c.facts.Unpeered = unpeered
		c.redecide = true
	}
}

// SetDoors says whether this node answers at each of the topology's Doors, as it finds when it asks
// itself; nil = not known.
func (c *Core) SetDoors(doors []health.Status) {
	if !slices.Equal(c.facts.Doors, doors) {
		c.facts.Doors = doors
		c.redecide = true
	}
}

// DoorsKnown reports whether it is known of every door whether this node answers there.
func (c *Core) DoorsKnown() bool {
	return len(c.facts.Doors) == len(c.topology.Doors()) && !slices.ContainsFunc(c.facts.Doors, func(s health.Status) bool { return !decided(s) })
}

// SetTraffic says how much traffic there is at the addresses of each of the topology's Prefixes, and how many
// connections each of its Services has.
func (c *Core) SetTraffic(loads []steer.Load, pools []int) {
	if !slices.Equal(c.facts.Loads, loads) || !slices.Equal(c.facts.Pools, pools) {
		c.facts.Loads, c.facts.Pools = loads, pools
		c.redecide = true
	}
}

// SetMissing says which VIPs that this node keeps on an interface are not there, sorted.
func (c *Core) SetMissing(missing []netip.Addr) {
	if !slices.Equal(c.facts.Missing, missing) {
		c.facts.Missing = missing
		c.redecide = true
	}
}

// SetTopology puts a new configuration in force; what is known of the targets in both stays.
func (c *Core) SetTopology(t *steer.Topology, config uint64) {
	c.topology, c.config = t, config
	c.ledger = c.ledger.Rebase(t.Fleet, t.Layout)
	c.adopt()
	c.own, c.lastReport, c.weights, c.facts.Weights, c.facts.Doors = nil, time.Time{}, nil, nil, nil
	c.facts.Loads, c.facts.Pools = nil, nil
	c.redecide = true
}

// View returns the newest verdicts; nil before the first Step without a last known good.
func (c *Core) View() *health.View { return c.view }

// Plan returns the newest plan; nil before the first Step.
func (c *Core) Plan() *steer.Plan { return c.plan }

// Topology returns what is decided on.
func (c *Core) Topology() *steer.Topology { return c.topology }

// Restored reports whether the verdicts began as a last known good.
func (c *Core) Restored() bool { return c.restored }

// Ledger returns the reports, to be read only.
func (c *Core) Ledger() *health.Ledger { return c.ledger }
