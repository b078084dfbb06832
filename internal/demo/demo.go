package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/bgp/router"
	"github.com/pharos-lb/pharos/internal/admin"
)

// Options are what the command line gives the demo.
type Options struct {
	// Binary is the pharos that the nodes run, usually this one.
	Binary string
	// Program is how the user calls it, for the examples on the screen.
	Program string
	// Out is the screen.
	Out io.Writer
}

// steadyWithin bounds how long the fleet may take until all is well.
const steadyWithin = 45 * time.Second

// A Demo is a running fleet.
type Demo struct {
	opts    Options
	folder  *folder
	started time.Time
	stopped chan struct{} // closed by `demo stop`
	once    sync.Once

	screenLock sync.Mutex // guards opts.Out

	// Indexed like sites.
	nodes    []*process
	routers  []*router.Router
	backends [][2]*backend
}

// Run runs the demo until ctx ends or somebody stops it, and leaves nothing
// behind. One demo runs per user.
func Run(ctx context.Context, opts Options) error {
	f, err := claim(folderPath())
	if err != nil {
		return err
	}
	defer f.remove()
	if err := checkFree(); err != nil {
		return err
	}
	d := newDemo(opts, f)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with ctx, below
		select {
		case <-d.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	return d.run(ctx)
}

func newDemo(opts Options, f *folder) *Demo {
	d := &Demo{opts: opts, folder: f, started: time.Now(), stopped: make(chan struct{})}
	for _, s := range sites {
		d.nodes = append(d.nodes, &process{binary: opts.Binary, dir: f.path, name: s.node()})
		var pair [2]*backend
		for i := range pair {
			pair[i] = &backend{name: s.backends[i], site: s.name, addr: s.backend(i)}
		}
		d.backends = append(d.backends, pair)
	}
	return d
}

func (d *Demo) run(ctx context.Context) error {
	var background sync.WaitGroup
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer background.Wait()
	defer cancel()
	failed := make(chan error, len(sites)+1)
	spawn := func(what string, run func(context.Context) error) {
		background.Add(1)
		go func() {
			defer background.Done()
			if err := run(inner); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		}()
	}
	for _, s := range sites {
		r, err := router.New(router.Options{
			ASN: s.routerASN(), Listen: s.router(), Log: slog.New(slog.DiscardHandler),
			Neighbors: []router.Neighbor{{Address: s.nodeAddr(), ASN: nodeASN, Passive: true}},
		})
		if err != nil {
			return err
		}
		d.routers = append(d.routers, r)
	}
	spawn("routers", func(ctx context.Context) error { return router.RunAll(ctx, d.routers...) })
	control, err := newControl(d, filepath.Join(d.folder.path, controlName))
	if err != nil {
		return err
	}
	spawn("control", control.Run)
	defer d.tearDown()
	if err := d.startAll(); err != nil {
		return err
	}
	if err := d.awaitSteady(ctx, failed); err != nil {
		return err
	}
	fmt.Fprint(d.opts.Out, d.screen())
	for i := range sites {
		spawn("watch", func(ctx context.Context) error { return d.narrate(ctx, i) })
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(d.opts.Out, "\nstopping the demo")
		return nil
	case err := <-failed:
		return err
	}
}

// startAll starts what does not run: backends and nodes.
func (d *Demo) startAll() error {
	for _, pair := range d.backends {
		for _, b := range pair {
			if err := b.start(); err != nil {
				return err
			}
		}
	}
	for _, p := range d.nodes {
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// tearDown stops the nodes in order (they withdraw their routes), then the backends.
func (d *Demo) tearDown() {
	var wg sync.WaitGroup
	for _, p := range d.nodes {
		wg.Go(func() { p.signal(syscall.SIGTERM) })
	}
	wg.Wait()
	for _, pair := range d.backends {
		for _, b := range pair {
			b.stop()
			b.served.Wait()
		}
	}
}

// awaitSteady waits until every node serves and finds nothing wrong.
func (d *Demo) awaitSteady(ctx context.Context, failed <-chan error) error {
	limit, cancel := context.WithTimeout(ctx, steadyWithin)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		wrong, dead := d.unsteady(limit)
		if dead != nil {
			return dead
		}
		if wrong == "" {
			return nil
		}
		select {
		case <-tick.C:
		case err := <-failed:
			return err
		case <-limit.Done():
			if ctx.Err() != nil {
				return nil // the user has had enough; run sees it
			}
			return fmt.Errorf("the fleet did not become healthy within %s: %s", steadyWithin, wrong)
		}
	}
}

// unsteady returns the first thing that is not yet well, and an error when a
// node has ended.
func (d *Demo) unsteady(ctx context.Context) (string, error) {
	for i, p := range d.nodes {
		if _, ok := p.pid(); !ok {
			return "", fmt.Errorf("node %s ended: %s", p.name, p.complaint())
		}
		st, err := admin.NewClient(p.socket()).Status(ctx)
		if err != nil {
			return fmt.Sprintf("node %s does not answer yet: %v", p.name, err), nil
		}
		if len(st.Degraded) > 0 {
			return fmt.Sprintf("node %s: %s", p.name, st.Degraded[0]), nil
		}
		if !d.routeSeen(i) {
			return fmt.Sprintf("the router of %s has no route to %s", sites[i].name, routeText), nil
		}
	}
	return "", nil
}

// routeSeen reports whether the router of a site holds the anycast route.
func (d *Demo) routeSeen(site int) bool {
	for _, r := range d.routers[site].Routes() {
		if r.Prefix == netip.MustParsePrefix(routeText) {
			return true
		}
	}
	return false
}

// narrate says when a router gains or loses the route.
func (d *Demo) narrate(ctx context.Context, site int) error {
	had := d.routeSeen(site)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.routers[site].Watch():
		}
		has := d.routeSeen(site)
		switch {
		case has && !had:
			d.say("the router of %s has the route to %s again", sites[site].name, routeText)
		case had && !has:
			d.say("the router of %s has lost the route to %s", sites[site].name, routeText)
		}
		had = has
	}
}

func (d *Demo) say(format string, args ...any) {
	d.screenLock.Lock()
	defer d.screenLock.Unlock()
	fmt.Fprintf(d.opts.Out, "%s  %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// Break takes something down: a site (its backends), a backend, or a node (kill -9).
func (d *Demo) Break(name string) (string, error) {
	t, err := find(name)
	if err != nil {
		return "", err
	}
	s := sites[t.site]
	var did string
	switch {
	case t.node:
		if _, runs := d.nodes[t.site].pid(); !runs {
			return fmt.Sprintf("node %s is not running", s.node()), nil
		}
		d.nodes[t.site].signal(syscall.SIGKILL)
		did = fmt.Sprintf("killed the process of node %s", s.node())
	case t.backend >= 0:
		d.backends[t.site][t.backend].stop()
		did = fmt.Sprintf("backend %s is down", s.backends[t.backend])
	default:
		d.backends[t.site][0].stop()
		d.backends[t.site][1].stop()
		did = fmt.Sprintf("both backends of %s are down", s.name)
	}
	d.say("%s", did)
	return did, nil
}

// Heal brings back a site (backends and node), a backend, a node, or with ""
// everything.
func (d *Demo) Heal(name string) (string, error) {
	if name == "" {
		if err := d.startAll(); err != nil {
			return "", err
		}
		d.say("everything is brought back")
		return "everything is brought back", nil
	}
	t, err := find(name)
	if err != nil {
		return "", err
	}
	var errs []error
	if t.node || t.backend < 0 {
		errs = append(errs, d.nodes[t.site].start())
	}
	for i, b := range d.backends[t.site] {
		if !t.node && (t.backend < 0 || t.backend == i) {
			errs = append(errs, b.start())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	d.say("%s is brought back", name)
	return name + " is brought back", nil
}

// Stop ends the demo.
func (d *Demo) Stop() { d.once.Do(func() { close(d.stopped) }) }
