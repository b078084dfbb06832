package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
)

// watchEvery is how often the stages are asked for.
const watchEvery = 500 * time.Millisecond

// silentLooks is for how many looks in a row a node may be silent before the others are all that is waited for.
const silentLooks = 6

// A follower follows orders through their stages.
type follower struct {
	client *admin.Client
	out    io.Writer
	order  health.Order
	scopes []string
	within []health.Scope    // scopes, parsed
	said   map[string]string // by node and what: the last line
	calm   int               // looks in a row at which nothing was left to wait for
}

// follow prints the stages of orders that were given, line by line as they change, until all are
// done; errDegraded if ctx ended before, or a node did not say how far it is.
func follow(ctx context.Context, client *admin.Client, out io.Writer, r *admin.OverrideResult) error {
	f := follower{client: client, out: out, order: r.Order, said: map[string]string{}}
	for _, o := range r.Written {
		f.scopes = append(f.scopes, o.Scope)
		scope, err := health.ParseScope(o.Scope)
		if err != nil {
			return err
		}
		f.within = append(f.within, scope)
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		list, err := client.Drains(ctx)
		switch {
		case ctx.Err() != nil:
			return f.left()
		case err != nil:
			f.say("", "! "+err.Error())
		default:
			if done, err := f.look(ctx, list); done || err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return f.left()
		case <-tick.C:
		}
	}
}

// left says what stands when nobody looks any more.
func (f *follower) left() error {
	if f.order == health.OrderNone {
		fmt.Fprintln(f.out, "no longer watched; it comes back all the same")
	} else {
		fmt.Fprintf(f.out, "no longer watched; the order stands and goes on, `pharos undrain %s` takes it back\n", strings.Join(f.scopes, " "))
	}
	return errDegraded
}

// look prints what is new and reports whether all is done.
func (f *follower) look(ctx context.Context, list *admin.DrainList) (done bool, err error) {
	waiting := len(list.Behind)
	drains := list.Of(f.scopes)
	if f.order == health.OrderNone {
		drains = slices.DeleteFunc(slices.Clone(list.Drains), func(d admin.DrainStatus) bool { return d.Stage != admin.StageReturning || !f.concerns(d) })
	}
	seen := map[string]bool{}
	for _, d := range drains {
		key := d.Node + ", " + d.What
		seen[key] = true
		f.say(key, d.Text())
		if d.Stage != admin.StageDone {
			waiting++
		}
	}
	for _, node := range list.Silent {
		f.say(node, "! does not answer")
		seen[node] = true
	}
	for key := range f.said {
		if !seen[key] && key != "" {
			if f.order == health.OrderNone && f.said[key] != "" {
				f.say(key, "back")
			}
			delete(f.said, key)
		}
	}
	if waiting > 0 {
		f.calm = 0
		return false, nil
	}
	if f.calm++; f.calm < 2 || len(list.Silent) > 0 && f.calm < silentLooks { // what was ordered a moment ago may not have begun
		return false, nil
	}
	return true, f.end(ctx, list.Silent)
}

// concerns reports whether what comes back may do so by these orders' end. A prefix does not tell which services it requires, so
// that one at any site may come back with a service.
func (f *follower) concerns(d admin.DrainStatus) bool {
	return slices.ContainsFunc(f.within, func(s health.Scope) bool {
		switch {
		case s.Kind == health.ScopePrefix:
			return d.What == "prefix "+s.Prefix.String()
		case s.Site != "":
			return d.Site == s.Site
		}
		return true
	})
}

// end says how it ended; the order may have been taken back meanwhile.
func (f *follower) end(ctx context.Context, silent []string) error {
	if f.order == health.OrderNone {
		return f.done(silent)
	}
	list, err := f.client.Overrides(ctx, false)
	if err != nil {
		return err
	}
	for _, scope := range f.scopes {
		i := slices.IndexFunc(list.Overrides, func(o admin.OverrideStatus) bool { return o.Scope == scope })
		if i < 0 || list.Overrides[i].Order != f.order {
			return fmt.Errorf("%s: the order does not stand any more", scope)
		}
	}
	return f.done(silent)
}

// done says so, but of nodes that do not answer nothing is known: they may still send users there, or away.
func (f *follower) done(silent []string) error {
	scopes := strings.Join(f.scopes, ", ")
	if len(silent) > 0 {
		fmt.Fprintf(f.out, "! done as far as the nodes that answer: %s; not known of %s\n", scopes, strings.Join(silent, ", "))
		return errDegraded
	}
	fmt.Fprintln(f.out, "done: "+scopes)
	return nil
}

// say prints a line unless only its numbers differ from the last of its key.
func (f *follower) say(key, text string) {
	if kind := withoutNumbers(text); f.said[key] != kind {
		f.said[key] = kind
		head := key
		if head != "" {
			head += ": "
		}
		fmt.Fprintln(f.out, head+text)
	}
}

// withoutNumbers makes lines equal that differ in times and counts.
func withoutNumbers(text string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' || r == 'm' || r == 's' || r == 'h' {
			return -1
		}
		return r
	}, text)
}

// printDrains lists how far what is drained has come.
func printDrains(out io.Writer, list *admin.DrainList) error {
	if len(list.Drains) > 0 {
		w := newTable(out)
		fmt.Fprintln(w, "\nNODE\tDRAINED\tSTAGE\tBY THE ORDER ON")
		for _, d := range list.Drains {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Node, d.What, d.Text(), d.Scope)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	for _, node := range list.Silent {
		fmt.Fprintf(out, "! %s does not answer: how far it has come is not known\n", node)
	}
	return nil
}
