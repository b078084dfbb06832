package probe

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// The bounds of checks that combine others.
const (
	// maxDepth is how deep they may be nested.
	maxDepth = 3
	// maxParts is how many parts there may be in all, on all levels.
	maxParts = 16
	// maxPartWeight bounds Part.Weight.
	maxPartWeight = 1000
)

// combines reports whether k is made of parts.
func (k Kind) combines() bool { return k == All || k == Any || k == AtLeast }

// parts returns the parts with their defaults, which come from the whole: its
// target, its timeout, its schedule.
func (c Check) parts() []Part {
	out := slices.Clone(c.Of)
	depth, _ := c.extent()
	for i := range out {
		p := &out[i]
		if p.Weight == 0 {
			p.Weight = 1
		}
		p.Check.Target = c.Target
		p.Check.Every, p.Check.Timeout, p.Check.Recheck = c.Every, c.Timeout, c.Recheck
		p.Check.Jitter, p.Check.Rise, p.Check.Fall = c.Jitter, c.Rise, c.Fall
		p.Check.Passive, p.Check.Flap = PassiveRule{}, FlapRule{}
		if depth <= maxDepth { // else it is refused
			p.Check = p.Check.WithDefaults()
		}
	}
	return out
}

// extent returns how deep c is nested, at most a little over what is allowed, and
// how many parts it has in all.
func (c Check) extent() (depth, parts int) { return c.extentWithin(maxDepth + 1) }

// extentWithin is extent as far as that many levels down.
func (c Check) extentWithin(levels int) (depth, parts int) {
	if !c.Kind.combines() || levels == 0 {
		return 0, 0
	}
	for _, p := range c.Of {
		d, n := p.Check.extentWithin(levels - 1)
		depth, parts = max(depth, d), parts+1+n
	}
	return depth + 1, parts
}

// validateParts returns what is wrong with the parts.
func (c Check) validateParts() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	depth, parts := c.extent()
	switch {
	case len(c.Of) == 0:
		bad("%v: no parts", c.Kind)
	case depth > maxDepth:
		bad("%v: checks nested deeper than %d", c.Kind, maxDepth)
		return errs
	case parts > maxParts:
		bad("%v: %d parts in all, at most %d", c.Kind, parts, maxParts)
		return errs
	}
	sum := 0
	for i, p := range c.Of {
		if p.Weight < 1 || p.Weight > maxPartWeight {
			bad("part %d: weight %d: want 1 to %d", i+1, p.Weight, maxPartWeight)
		}
		sum += p.Weight
		if p.Check.Kind == Passive {
			bad("part %d: traffic is no part of another check", i+1)
			continue
		}
		if err := p.Check.Validate(); err != nil {
			bad("part %d: %w", i+1, err)
		}
	}
	if c.Kind == AtLeast && (c.Need < 1 || c.Need > sum) {
		bad("at_least: need %d: want 1 to the sum of the weights, %d", c.Need, sum)
	}
	return errs
}

// need returns the sum of weights that must be OK.
func (c Check) need() int {
	switch c.Kind {
	case Any:
		return 1
	case AtLeast:
		return c.Need
	}
	sum := 0
	for _, p := range c.Of {
		sum += p.Weight
	}
	return sum
}

// combine runs the parts of c at the same time and to their ends, so that the
// work is the same whatever they find, and judges what they found.
func combine(ctx context.Context, c Check, look func(context.Context, Check) Result) Result {
	found := make([]Result, len(c.Of))
	var parts sync.WaitGroup
	for i := range c.Of {
		parts.Go(func() { found[i] = look(ctx, c.Of[i].Check) })
	}
	parts.Wait()
	return judge(c, found)
}

// judge says what the results of the parts mean. A part that says nothing counts
// for neither side; if it could have made the difference nothing is known. The
// error is that of the first part that failed. The weight is the smallest that an
// OK part carries.
func judge(c Check, found []Result) Result {
	good, silent := 0, 0
	failed, mute := -1, -1 // the first of each
	var out Result
	for i, r := range found {
		switch {
		case r.Inconclusive:
			silent += c.Of[i].Weight
			if mute < 0 {
				mute = i
			}
		case !r.OK():
			if failed < 0 {
				failed = i
			}
		default:
			good += c.Of[i].Weight
			if out.Code == 0 {
				out.Code = r.Code
			}
			if r.HasWeight && (!out.HasWeight || r.Weight < out.Weight) {
				out.Weight, out.HasWeight = r.Weight, true
			}
		}
	}
	need := c.need()
	switch {
	case good >= need:
		return out
	case good+silent >= need:
		return Result{Inconclusive: true, Err: c.blame(mute, found)}
	default:
		return Result{Err: c.blame(failed, found), Code: found[failed].Code}
	}
}

// blame names a part with its error: "https: status 503". Parts of the same kind
// are numbered, in the order of the configuration.
func (c Check) blame(i int, found []Result) string {
	kind := c.Of[i].Check.Kind
	name, same, number := kind.String(), 0, 0
	for k, p := range c.Of {
		if p.Check.Kind == kind {
			same++
			if k <= i {
				number++
			}
		}
	}
	if same > 1 {
		name = fmt.Sprintf("%s #%d", name, number)
	}
	return clip(name + ": " + found[i].Err)
}
