package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/node"
)

// Options are what the command line gives a lab.
type Options struct {
	// Binary is the pharos that the nodes run, usually this one.
	Binary string
	// Program is how the user calls it, for the examples on the screen.
	Program string
	// ID is the lab's name, 1 to 12 lower case letters and digits; one lab of a
	// name runs at a time.
	ID string
	// ConfigFile is the operator's configuration, as it is.
	ConfigFile string
	// Nodes are those to run; nil = all.
	Nodes []string
	// Routers: without nothing stands at the BGP peers of the configuration.
	Routers RouterChoice
	// Failover, if not nil, is played by Run before it waits for its end.
	Failover *FailoverOptions
	// Logs is a folder for the nodes' logs, which then outlive the lab; "" = the
	// lab's own.
	Logs string
	// Out is the screen.
	Out io.Writer
}

// DefaultID is the name of a lab that was not given one.
const DefaultID = "lab"

// SteadyWithin bounds how long the fleet may take until every node serves and
// hears every other.
const SteadyWithin = 60 * time.Second

// A Lab is one fleet in its namespaces. Its methods are safe for concurrent use.
type Lab struct {
	// Immutable after New.
	opts     Options
	layout   *Layout
	folder   *folder
	net      *network
	filter   *filter
	nodes    []*process // like Layout.Nodes
	index    map[string]int
	backends []*backend
	routers  []*router
	routes   *routes
	resolver *resolver // nil: there is none
	started  time.Time
	stopped  chan struct{} // closed by Stop
	once     sync.Once

	screenLock sync.Mutex // guards opts.Out
	doing      sync.Mutex // held by one fault at a time, and by Close
	closed     bool       // guarded by doing
}

// New reads the configuration and builds the lab around it: folder,
// namespaces, links, disks. Nothing runs yet. Close removes it all.
func New(opts Options) (l *Lab, err error) {
	if os.Getuid() != 0 {
		return nil, errors.New("the lab makes network namespaces, which needs root: run it with sudo (`pharos demo` needs none)")
	}
	if opts.ID == "" {
		opts.ID = DefaultID
	}
	setup, err := node.Load(opts.ConfigFile, "")
	if err != nil {
		return nil, err
	}
	withRouters, why, err := opts.Routers.decide(setup.Config)
	if err != nil {
		return nil, err
	}
	layout, err := NewLayout(opts.ID, setup.Config, opts.Nodes, withRouters)
	if err != nil {
		return nil, fmt.Errorf("a lab of %s: %w", opts.ConfigFile, err)
	}
	file, err := filepath.Abs(opts.ConfigFile)
	if err != nil {
		return nil, err
	}
	if opts.Logs != "" {
		if err := os.MkdirAll(opts.Logs, 0o750); err != nil {
			return nil, fmt.Errorf("folder for the logs: %w", err)
		}
	}
	l = &Lab{opts: opts, layout: layout, index: map[string]int{}, started: time.Now(), stopped: make(chan struct{})}
	if l.folder, err = claim(opts.ID); err != nil {
		return nil, err
	}
	if why != "" {
		l.say("%s", why)
	}
	if err := l.build(file); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(file string) (err error) {
	if l.net, err = newNetwork(l.layout); err != nil {
		return err
	}
	if l.filter, err = newFilter(l.net.core, l.layout); err != nil {
		return err
	}
	if err := l.buildRouters(); err != nil {
		return err
	}
	if err := l.buildResolver(); err != nil {
		return err
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	trust := filepath.Join(l.folder.path, "authority.pem")
	if err := ca.write(trust); err != nil {
		return err
	}
	for i, m := range l.layout.Members {
		if m.Role != RoleNode {
			continue
		}
		p := &process{
			name: m.Name, space: l.net.spaces[i], dir: l.folder.path, logs: l.opts.Logs, binary: l.opts.Binary, config: file,
			env: append(os.Environ(), "SSL_CERT_FILE="+trust, "SSL_CERT_DIR="+l.folder.path),
		}
		if err := p.mount(); err != nil {
			return err
		}
		l.index[m.Name] = len(l.nodes)
		l.nodes = append(l.nodes, p)
	}
	for _, plan := range l.layout.Backends {
		b := &backend{plan: plan}
		for _, m := range plan.Members {
			b.spaces = append(b.spaces, l.net.spaces[m])
		}
		if plan.TLS {
			if b.tls, err = ca.serve(plan); err != nil {
				return err
			}
		}
		l.backends = append(l.backends, b)
	}
	return nil
}

// Start starts the backends and the nodes, and returns when every node serves,
// hears every other and finds up what can be up in this lab. The last is not
// insisted on: a configuration may have what no lab can satisfy.
func (l *Lab) Start(ctx context.Context) error {
	for _, b := range l.backends {
		if err := b.start(); err != nil {
			return err
		}
	}
	for _, r := range l.routers {
		if err := r.start(); err != nil {
			return err
		}
	}
	for _, p := range l.nodes {
		if err := p.start(); err != nil {
			return err
		}
	}
	if err := l.resolver.start(l.layout, l.delegated()); err != nil {
		return err
	}
	if err := l.AwaitSteady(ctx, SteadyWithin); err != nil {
		return err
	}
	if err := l.awaitHealthy(ctx); err != nil {
		return err
	}
	return l.awaitResolver(ctx)
}

// healthyWithin bounds how long Start waits for verdicts after the fleet is steady.
const healthyWithin = 15 * time.Second

// awaitHealthy waits for every node to find everything up, and says what is
// not when that takes too long.
func (l *Lab) awaitHealthy(ctx context.Context) error {
	deadline := time.Now().Add(healthyWithin)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		wrong := l.unhealthy(l.statuses(ctx))
		if wrong == "" {
			return nil
		}
		if time.Now().After(deadline) {
			l.say("not all is well: %s", wrong)
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// unhealthy returns the first target that a node does not find up although a
// node of its site runs and the lab answers its check.
func (l *Lab) unhealthy(statuses []*admin.Status) string {
	here := l.layout.SiteNames()
	for i, st := range statuses {
		if st == nil {
			return fmt.Sprintf("node %s does not answer", l.nodes[i].name)
		}
		for _, svc := range st.Services {
			for _, site := range svc.Sites {
				if !slices.Contains(here, site.Site) || l.layout.lacks(svc.Name, site.Site) {
					continue
				}
				for _, t := range slices.Concat(site.Backends, site.VIPs) {
					if t.Status != "up" {
						return fmt.Sprintf("node %s finds %s of service %s at %s %s", l.nodes[i].name, t.Address, svc.Name, site.Site, t.Status)
					}
				}
			}
		}
	}
	return ""
}

// AwaitSteady waits until every node serves and hears every other node of the
// lab, and says what is missing if that takes longer than limit.
func (l *Lab) AwaitSteady(ctx context.Context, limit time.Duration) error {
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		wrong, dead := l.unsteady(inner)
		if dead != nil {
			return dead
		}
		if wrong == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-inner.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("the fleet is not steady after %s: %s", limit, wrong)
		}
	}
}

// unsteady returns the first thing that is not yet well, and an error when a
// node has ended.
func (l *Lab) unsteady(ctx context.Context) (string, error) {
	for i, st := range l.statuses(ctx) {
		p := l.nodes[i]
		if p.condition().pid == 0 {
			return "", fmt.Errorf("node %s ended: %s (its log is %s)", p.name, p.complaint(), p.log())
		}
		if st == nil {
			return fmt.Sprintf("node %s does not answer yet", p.name), nil
		}
		if st.State != "serving" {
			return fmt.Sprintf("node %s is %s", p.name, st.State), nil
		}
		heard := map[string]bool{}
		for _, m := range st.Members {
			heard[m.Name] = m.Heard || m.Self
		}
		for _, other := range l.nodes {
			if !heard[other.name] {
				return fmt.Sprintf("node %s does not hear %s", p.name, other.name), nil
			}
		}
	}
	return "", nil
}

// statusWithin bounds how long a node may take to say how it is.
const statusWithin = time.Second

// statuses asks every node at once; nil for one that does not answer in time.
func (l *Lab) statuses(ctx context.Context) []*admin.Status {
	ctx, cancel := context.WithTimeout(ctx, statusWithin)
	defer cancel()
	out := make([]*admin.Status, len(l.nodes))
	var wg sync.WaitGroup
	for i, p := range l.nodes {
		if !p.lives() {
			continue
		}
		wg.Go(func() {
			if st, err := admin.NewClient(p.socket()).Status(ctx); err == nil {
				out[i] = st
			}
		})
	}
	wg.Wait()
	return out
}

// Close ends every process and removes every namespace, mount and file of the
// lab; twice is fine. The nodes are killed: what they would do at an orderly
// end is seen with the fault restart.
func (l *Lab) Close() error {
	l.doing.Lock()
	defer l.doing.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var wg sync.WaitGroup
	for _, p := range l.nodes {
		wg.Go(func() { p.end(syscall.SIGKILL) })
	}
	wg.Wait()
	for _, b := range l.backends {
		b.stop()
	}
	for _, r := range l.routers {
		r.stop()
	}
	l.resolver.stop()
	l.routes.close()
	// The namespaces' names go with the folder, after whatever still runs in them.
	err := l.folder.remove()
	if l.net != nil {
		err = errors.Join(err, l.net.close())
	}
	return err
}

// Stop ends Run.
func (l *Lab) Stop() { l.once.Do(func() { close(l.stopped) }) }

func (l *Lab) say(format string, args ...any) {
	l.screenLock.Lock()
	defer l.screenLock.Unlock()
	fmt.Fprintf(l.opts.Out, "%s  %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}
