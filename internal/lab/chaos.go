package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ChaosOptions are what a run of random schedules needs besides the lab's own.
type ChaosOptions struct {
	// Schedules is how many, 1 … 100000.
	Schedules int
	// Seed is the first one's; the next has the next.
	Seed uint64
	// Orders: an operator drains and undrains meanwhile, and the history is checked.
	Orders bool
}

// maxSchedules bounds ChaosOptions.Schedules.
const maxSchedules = 100_000

// A ChaosReport is how a run of random schedules went.
type ChaosReport struct {
	Schedules int           `json:"schedules"`
	Took      time.Duration `json:"took"`
	Figures   Figures       `json:"figures"`
	// SlowestAgreement is how long it took at most, after everything was healed,
	// until all plans were the same.
	SlowestAgreement time.Duration `json:"slowest_agreement"`
	// Orders that were acknowledged, and those whose fate was not learned.
	OrdersAcknowledged int `json:"orders_acknowledged"`
	OrdersUnknown      int `json:"orders_unknown"`
	// Failed are what went wrong, each with the seed that replays it.
	Failed []string `json:"failed"`
}

// OK reports whether every figure holds.
func (r *ChaosReport) OK() bool { return len(r.Failed) == 0 }

// Text is the report for people.
func (r *ChaosReport) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d schedules in %s; all plans were the same at most %s after everything was healed\n",
		r.Schedules, r.Took.Round(time.Second), r.SlowestAgreement.Round(10*time.Millisecond))
	fmt.Fprintf(&b, "%d orders acknowledged, %d not\n", r.OrdersAcknowledged, r.OrdersUnknown)
	b.WriteString(r.Figures.Text())
	for _, f := range r.Failed {
		b.WriteString("FAILED " + f + "\n")
	}
	return b.String()
}

// Chaos starts a lab, breaks it at random, judges what it does, and takes it
// down. The figures are those of all schedules together: that 99.99 % of the
// queries are answered is not to be seen in one.
func Chaos(ctx context.Context, opts Options, c ChaosOptions) (r *ChaosReport, err error) {
	if c.Schedules < 1 || c.Schedules > maxSchedules {
		return nil, fmt.Errorf("%d schedules: want 1 … %d", c.Schedules, maxSchedules)
	}
	l, err := open(opts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.Start(ctx); err != nil {
		return nil, err
	}
	return l.Chaos(ctx, c)
}

// Chaos is the function Chaos on a lab that has been started. When ctx ends it
// reports what was seen until then.
func (l *Lab) Chaos(ctx context.Context, c ChaosOptions) (*ChaosReport, error) {
	r := &ChaosReport{}
	start := time.Now()
	o := newOperator(l, c.Seed)
	for i := range c.Schedules {
		seed := c.Seed + uint64(i)
		if err := l.chaosOnce(ctx, seed, c.Orders, o, r); err != nil {
			if ctx.Err() != nil {
				break
			}
			return r, fmt.Errorf("seed %d: %w", seed, err)
		}
		r.Schedules++
	}
	r.Took = time.Since(start)
	r.OrdersAcknowledged, r.OrdersUnknown = o.counts()
	v := &Verdict{Figures: r.Figures}
	v.judge([]Always{AlwaysAnswered})
	r.Failed = append(r.Failed, v.Failed...)
	return r, nil
}

// chaosOnce plays one schedule and adds what it showed to the report.
func (l *Lab) chaosOnce(ctx context.Context, seed uint64, orders bool, o *operator, r *ChaosReport) error {
	s := RandomSchedule(seed, l.layout)
	l.say("seed %d\n%s", seed, s)
	// One schedule is too short for four nines: all together are judged.
	s.Always = []Always{NeverEmpty, NeverStale}
	ordering, stop := context.WithTimeout(ctx, healAt)
	ended := make(chan error, 1)
	if orders {
		go func() { ended <- o.Run(ordering) }() // joined below
	} else {
		ended <- nil
	}
	v, err := l.Play(ctx, s)
	stop()
	err = errors.Join(err, <-ended)
	if v != nil {
		r.Figures.add(v.Figures)
		r.SlowestAgreement = max(r.SlowestAgreement, v.Agreed)
	}
	if err != nil {
		return err
	}
	if orders {
		v.Failed = append(v.Failed, o.check(ctx, AgreeWithin)...)
	}
	v.Failed = append(v.Failed, l.crashes()...)
	for _, f := range v.Failed {
		r.Failed = append(r.Failed, fmt.Sprintf("seed %d: %s", seed, f))
		l.say("FAILED seed %d: %s", seed, f)
	}
	for _, n := range v.Figures.Notes {
		l.say("! %s", n)
	}
	l.say("seed %d: plans agreed %s after healing, %d of %d queries unanswered, %d failures", seed, v.Agreed.Round(time.Millisecond),
		v.Figures.Unresolved, v.Figures.Resolved, len(v.Failed))
	return nil
}

// crashes returns the ends of nodes that nobody asked for, since the last call.
func (l *Lab) crashes() (out []string) {
	for _, p := range l.nodes {
		out = append(out, p.takeCrashes()...)
	}
	return out
}
