package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The bounds of canaries.
const (
	// MaxCanaries is how many addresses there may be.
	MaxCanaries = 16
	// canaryEvery is the mean interval of rounds, which varies by canaryJitter.
	canaryEvery  = 2 * time.Second
	canaryJitter = 0.2
	// canaryTimeout ends an attempt to connect.
	canaryTimeout = time.Second
	// canaryRounds is how many rounds count: an answer in one of them is an answer
	// lately, none in all of them is a cut.
	canaryRounds = 3
	// canaryStale is how old the newest round may be before nothing is known.
	canaryStale = 10 * time.Second
)

// Connection is whether this node can reach anything outside the fleet.
type Connection uint8

// The connections.
const (
	// Unsure: there are no canaries, too few answer, or too little was tried yet.
	Unsure Connection = iota
	// Connected: more than half of the canaries answered in the newest round. It must
	// not outlive what is heard from other nodes, or a node that is cut off would
	// judge them alone for a moment.
	Connected
	// Cut: no canary answered in three rounds.
	Cut
)

// String returns "unsure", "connected" or "cut".
func (c Connection) String() string {
	switch c {
	case Connected:
		return "connected"
	case Cut:
		return "cut"
	default:
		return "unsure"
	}
}

// CanaryOptions says which addresses tell whether this node is cut off.
type CanaryOptions struct {
	// Addresses accept TCP connections and do not belong to the fleet; at most
	// MaxCanaries, none twice. None is allowed, and always Unsure.
	Addresses []netip.AddrPort
	// Source is the local address to connect from; the zero address leaves it to
	// the system, as does one of the other family.
	Source netip.Addr
	// Dial connects and must end with ctx; nil is a real connection.
	Dial func(ctx context.Context, to netip.AddrPort) error
	// Log gets a line per change of the connection; nil discards.
	Log *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// Canaries connect to a few addresses outside the fleet every two seconds, to
// tell a node that is cut off from one whose peers are. State may be called from
// any goroutine.
type Canaries struct {
	// Immutable.
	addresses []netip.AddrPort
	dial      func(context.Context, netip.AddrPort) error
	log       *slog.Logger
	answering prometheus.Gauge
	rounds    prometheus.Counter

	mu      sync.Mutex // guards the rest
	started bool
	// silent is for how many rounds each has been silent, canaryRounds at most:
	// where all begin.
	silent []int
	round  int       // rounds that ended
	ended  time.Time // when the newest did
}

// NewCanaries returns Canaries for valid options. It starts nothing and holds
// nothing that must be freed, but for the metrics that it registers.
func NewCanaries(o CanaryOptions) (*Canaries, error) {
	if len(o.Addresses) > MaxCanaries {
		return nil, fmt.Errorf("new canaries: %d addresses: at most %d", len(o.Addresses), MaxCanaries)
	}
	for i, a := range o.Addresses {
		if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() {
			return nil, fmt.Errorf("new canaries: %v: want an address and a port", a)
		}
		if slices.Contains(o.Addresses[:i], a) {
			return nil, fmt.Errorf("new canaries: %v is there twice", a)
		}
	}
	c := &Canaries{
		addresses: slices.Clone(o.Addresses), dial: o.Dial, log: o.Log,
		silent: slices.Repeat([]int{canaryRounds}, len(o.Addresses)),
		answering: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pharos_probe_answering_canaries", Help: "Canaries that answered lately.",
		}),
		rounds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pharos_probe_canary_rounds_total", Help: "Rounds in which every canary was tried once.",
		}),
	}
	if c.dial == nil {
		c.dial = func(ctx context.Context, to netip.AddrPort) error { return connect(ctx, o.Source, to) }
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if err := registerAll(o.Registerer, c.answering, c.rounds); err != nil {
		return nil, fmt.Errorf("new canaries: register metrics: %w", err)
	}
	return c, nil
}

// connect makes a connection and drops it.
func connect(ctx context.Context, from netip.Addr, to netip.AddrPort) error {
	d := net.Dialer{KeepAlive: -1}
	if from.IsValid() && from.Unmap().Is4() == to.Addr().Unmap().Is4() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		d.Control = controlDial
	}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// State returns what the newest rounds say.
func (c *Canaries) State() Connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state(time.Now())
}

// state is State at now. Called with mu held.
func (c *Canaries) state(now time.Time) Connection {
	switch {
	case c.round == 0 || now.Sub(c.ended) > canaryStale:
		return Unsure
	case 2*c.within(1) > len(c.addresses):
		return Connected
	case c.within(canaryRounds) == 0 && c.round >= canaryRounds:
		return Cut
	default:
		return Unsure
	}
}

// within counts the canaries that answered in the newest rounds. Called with mu held.
func (c *Canaries) within(rounds int) (n int) {
	for _, silent := range c.silent {
		if silent < rounds {
			n++
		}
	}
	return n
}

// Run tries the canaries until ctx ends and then returns nil, with no connection
// left. It can be called once.
func (c *Canaries) Run(ctx context.Context) error {
	c.mu.Lock()
	again := c.started
	c.started = true
	c.mu.Unlock()
	if again {
		return errors.New("run canaries: they were started before")
	}
	if len(c.addresses) == 0 {
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		began := time.Now()
		c.try(ctx)
		every := time.Duration(float64(canaryEvery) * (1 + canaryJitter*(2*rand.Float64()-1)))
		timer.Reset(max(every-time.Since(began), 0))
	}
}

// try makes one round.
func (c *Canaries) try(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, canaryTimeout)
	defer cancel()
	answered := make([]bool, len(c.addresses))
	var all sync.WaitGroup
	for i, a := range c.addresses {
		all.Go(func() { answered[i] = c.dial(limited, a) == nil })
	}
	all.Wait()
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	was := c.state(now)
	for i, ok := range answered {
		c.silent[i] = min(c.silent[i]+1, canaryRounds)
		if ok {
			c.silent[i] = 0
		}
	}
	c.round, c.ended = c.round+1, now
	c.rounds.Inc()
	c.answering.Set(float64(c.within(canaryRounds)))
	if is := c.state(now); is != was {
		c.log.Info("connection of this node changed", "from", was.String(), "to", is.String(), "answering", c.within(canaryRounds), "canaries", len(c.addresses))
	}
}
