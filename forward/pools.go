package forward

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pharos-lb/pharos/internal/steer"
)

// Pools tells which backends this node's services have. Any number of
// goroutines may call it.
type Pools interface {
	// Version changes whenever the pools do; 0 means that nothing has been
	// decided yet. It is called once per unit of work and must cost no more than
	// an atomic load.
	Version() uint64
	// Edition returns the newest pools and their version. The caller does not
	// change what it gets.
	Edition() (version uint64, pools []ServicePool)
}

// A ServicePool is the backends of one service at this node's site.
type ServicePool struct {
	Service string
	// SlowStart is how long a backend that gets work again takes to reach its
	// weight, from a twentieth of it; 0 = at once.
	SlowStart time.Duration
	// Policy is how its members share the work.
	Policy Policy
	// Transport is how they are spoken to.
	Transport Transport
	// Warm is how many connections to each are to be there before they are needed.
	Warm    int
	Members []Member
	// Zoned: this node and members of the pool are in availability zones. Stays is the share of the work, 0 … 1, that goes to those
	// who are Near; the rest is shared by Far.
	Zoned bool
	Stays float64
	// Overflow are addresses at other sites that take what Members cannot, most preferred first.
	Overflow []netip.Addr
	// Fleet are the addresses of every node: what comes from them has been forwarded once already. Sorted.
	Fleet []netip.Addr
}

// A Member is one backend of a pool.
type Member struct {
	Address netip.AddrPort
	// Weight is its share of the work relative to the others; below 1 counts as 1.
	Weight int
	// Base is the weight that the configuration gives it, which hashing goes by so that tables do
	// not depend on what a backend asks for: of Weight = 100 × Base counts the whole. 0 = Weight / 100.
	Base int
	// Active members take new connections; the others only finish what they have.
	Active bool
	// Drained: an order has taken it out, which lets it finish what it has; it is not Active.
	Drained bool
	// Near: it is in this node's availability zone. Far is how much of what does not stay in the zone it gets, relative to
	// the others.
	Near bool
	Far  float64
	// Resting members are well but ask for no new work: they get it while no other
	// is active.
	Resting bool
}

// FromBoard reads the pools of the newest plan on board.
func FromBoard(board *steer.Board) Pools { return &boardPools{board: board} }

// boardPools numbers the plans it sees itself, by identity: two plans never
// have one number, wherever they come from.
type boardPools struct {
	board *steer.Board
	seen  atomic.Pointer[seenPlan]
	mu    sync.Mutex // guards changes of seen
}

type seenPlan struct {
	plan    *steer.Plan
	version uint64
}

// Version returns the number of the newest plan.
func (b *boardPools) Version() uint64 { return b.newest().version }

// newest returns the newest plan with its number; nil and 0 before the first.
func (b *boardPools) newest() seenPlan {
	plan := b.board.Load()
	if s := b.seen.Load(); s != nil && s.plan == plan {
		return *s
	}
	if plan == nil {
		return seenPlan{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	next := &seenPlan{plan: b.board.Load(), version: 1}
	if s := b.seen.Load(); s != nil {
		if s.plan == next.plan {
			return *s // another goroutine was first
		}
		next.version = s.version + 1
	}
	b.seen.Store(next)
	return *next
}

// Edition lists the pools of the newest plan.
func (b *boardPools) Edition() (uint64, []ServicePool) {
	newest := b.newest()
	plan := newest.plan
	if plan == nil || plan.Topology == nil {
		return newest.version, nil
	}
	pools := make([]ServicePool, 0, len(plan.Topology.Services))
	var fleet []netip.Addr
	for i := range plan.Topology.Services {
		pool, site, ok := plan.Pool(i)
		if !ok || pool == nil || site == nil {
			continue
		}
		sp := ServicePool{
			Service:   plan.Topology.Services[i].Config.Name,
			Policy:    policyOf(plan, i),
			Transport: TransportOf(plan.Topology, i),
			Warm:      plan.Topology.Services[i].Config.Transport.Warm,
			SlowStart: plan.Topology.Services[i].Config.Check.SlowStart,
			Members:   make([]Member, len(pool.Backends)),
		}
		for j := range pool.Backends {
			weight := plan.Weight(i, j)
			sp.Members[j] = Member{
				Address: pool.Backends[j].Address,
				Weight:  weight,
				Base:    pool.Backends[j].Weight,
				Active:  j < len(site.Backends) && site.Backends[j].Active,
				Resting: weight == 0,
				Drained: j < len(site.Backends) && site.Backends[j].Why == steer.ReasonDrained,
			}
		}
		if split := plan.Zones(i); split != nil {
			sp.Zoned, sp.Stays = true, split.Stays
			for j := range sp.Members {
				sp.Members[j].Near, sp.Members[j].Far = split.Near[j], split.Far[j]
			}
		}
		for _, site := range plan.Overflow(i) {
			sp.Overflow = append(sp.Overflow, site.Addresses...)
		}
		if plan.Topology.Services[i].Config.Overflow.On { // also while this site has nobody to hand on to: others may hand on to it
			if fleet == nil {
				fleet = plan.Topology.FleetAddresses()
			}
			sp.Fleet = fleet
		}
		pools = append(pools, sp)
	}
	return newest.version, pools
}

// TransportOf is how a topology has the backends of service i spoken to. Its words have been validated.
func TransportOf(topology *steer.Topology, i int) Transport {
	c := &topology.Services[i].Config.Transport
	t := Transport{
		Name: c.SNI, CA: c.CA, Certificate: c.Certificate, Key: c.Key, Insecure: c.Insecure, TLS13: c.MinVersion == "1.3",
	}
	t.Protocol, _ = ParseProtocol(c.Protocol)
	switch c.SendProxy {
	case "v1":
		t.SendProxy = 1
	case "v2":
		t.SendProxy = 2
	}
	return t
}

// policyOf is how the plan has service i balanced. The configuration has been
// validated, so every word is known.
func policyOf(plan *steer.Plan, i int) Policy {
	c := &plan.Topology.Services[i].Config.Balance
	algorithm, err := ParseAlgorithm(c.By)
	p := Policy{Algorithm: algorithm, Auto: err != nil || c.By == "" || c.By == "auto", Load: c.Load}
	p.Key = KeyOf(c.Key, c.KeyName)
	p.Limit = Limit{PerBackend: int64(c.Limit.PerBackend), Queue: c.Limit.Queue, Wait: c.Limit.Wait, Rate: c.Limit.Rate}
	e := &c.Eject
	p.Eject = Ejection{
		Errors: e.Errors, SuccessRate: e.SuccessRate, Latency: e.Latency, Window: e.Window,
		MinWork: e.MinWork, For: e.For, MaxFor: e.MaxFor, MaxShare: e.MaxShare,
	}
	return p
}
