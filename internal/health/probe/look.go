package probe

import (
	"context"
	"slices"
	"strings"

	"github.com/pharos-lb/pharos/internal/health"
)

// looker runs checks of every kind: those that ask the target through sockets,
// and those that ask somebody else or combine.
type looker struct {
	prober   prober
	commands *commands
}

// look runs c, which has its defaults, once.
func (l *looker) look(ctx context.Context, c Check) Result {
	switch c.Kind {
	case Exec:
		return l.commands.run(ctx, c)
	case File:
		return readFeed(c)
	case All, Any, AtLeast:
		return combine(ctx, c, l.look)
	case Passive:
		return Result{Inconclusive: true, Err: "traffic alone tells about it"}
	default:
		return l.prober.probe(ctx, c)
	}
}

// local fills in what the kinds that this node answers by itself leave out.
func (c Check) local() Check {
	switch c.Kind {
	case File:
		if c.File.MaxAge == 0 {
			c.File.MaxAge = 3 * c.Every
		}
	case Passive:
		if c.Passive.Fall == 0 {
			c.Passive.Fall = defaultPassiveFall
		}
		if c.Passive.For == 0 {
			c.Passive.For = defaultPassiveFor
		}
		c.Rise, c.Fall = 1, 1 // Passive.Fall is the rule
	case All, Any, AtLeast:
		c.Of = c.parts()
	}
	if c.Flap.Limit != 0 && c.Flap.HalfLife == 0 {
		c.Flap.HalfLife = defaultHalfLife
	}
	return c
}

// validateLocal returns what is wrong with the parts of c that need no socket.
func (c Check) validateLocal() (errs []error) {
	switch c.Kind {
	case Exec:
		errs = c.validateExec()
	case File:
		errs = c.validateFile()
	case All, Any, AtLeast:
		errs = c.validateParts()
	}
	errs = append(errs, c.validatePassive()...)
	return append(errs, c.validateFlap()...)
}

// own returns c sharing no slice with the one who gave it.
func (c Check) own() Check {
	c.Headers, c.Status, c.JSON = slices.Clone(c.Headers), slices.Clone(c.Status), slices.Clone(c.JSON)
	c.DNS.Expect, c.Exec.Command = slices.Clone(c.DNS.Expect), slices.Clone(c.Exec.Command)
	c.Of = slices.Clone(c.Of)
	for i := range c.Of {
		c.Of[i].Check = c.Of[i].Check.own()
	}
	return c
}

// placeholders are what may stand for parts of the target in commands and paths.
var placeholders = []string{"{address}", "{host}", "{port}", "{service}", "{site}"}

// fill puts t's parts in place of the placeholders. What is put in is not looked
// at again.
func fill(text string, t health.Target) string {
	if !strings.Contains(text, "{") {
		return text
	}
	values := identity(t)
	pairs := make([]string, 0, 2*len(placeholders))
	for i, p := range placeholders {
		pairs = append(pairs, p, values[i])
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// identity returns the values of the placeholders, in their order.
func identity(t health.Target) [5]string {
	host, port := t.Addr.Addr().String(), t.Addr.String()
	return [5]string{t.Addr.String(), host, port[strings.LastIndexByte(port, ':')+1:], t.Service, t.Site}
}
