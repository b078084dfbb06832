package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Run runs a lab until ctx ends or somebody stops it, and leaves nothing
// behind. What killed labs left is removed first.
func Run(ctx context.Context, opts Options) (err error) {
	l, err := open(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	control, err := newControl(l, filepath.Join(l.folder.path, controlName))
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- control.Run(ctx) }() // joined below
	defer func() {
		cancel()
		err = errors.Join(err, <-served)
	}()
	if err := l.Start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // the user has had enough
		}
		return err
	}
	fmt.Fprint(opts.Out, l.screen(ctx))
	if opts.Failover != nil {
		report, err := l.Failover(ctx, *opts.Failover)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if report != nil {
			fmt.Fprintf(opts.Out, "\n%s\n", report.Text())
		}
		l.say("the lab goes on; Ctrl-C ends it")
	}
	select {
	case <-l.stopped:
	case <-ctx.Done():
	}
	l.say("stopping the lab")
	return nil
}

// RunFailover starts a lab, plays the failover and takes the lab down.
func RunFailover(ctx context.Context, opts Options, how FailoverOptions) (report *FailoverReport, err error) {
	l, err := open(opts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.Start(ctx); err != nil {
		return nil, err
	}
	fmt.Fprint(opts.Out, l.Status(ctx).Text())
	return l.Failover(ctx, how)
}

// open removes what killed labs left, and makes a new one.
func open(opts Options) (*Lab, error) {
	if removed, err := Clean(""); err != nil {
		fmt.Fprintf(opts.Out, "what a killed lab left could not be removed: %v\n", err)
	} else if len(removed) > 0 {
		fmt.Fprintf(opts.Out, "removed what killed labs left: %s\n", strings.Join(removed, ", "))
	}
	return New(opts)
}

// screen is the first thing the user sees.
func (l *Lab) screen(ctx context.Context) string {
	var b strings.Builder
	fmt.Fprintf(&b, "lab %q: %d nodes in %d network namespaces, up in %s\n\n", l.layout.ID, len(l.nodes),
		len(l.layout.Members)+1, time.Since(l.started).Round(100*time.Millisecond))
	b.WriteString(l.Status(ctx).Text())
	if l.resolver != nil {
		fmt.Fprintf(&b, "\nRESOLVER\nunbound at %s and %s, beside the client; it asks the nodes\n", clientAddrs[0], clientAddrs[1])
	}
	p := l.opts.Program + " lab"
	flag := ""
	if l.layout.ID != DefaultID {
		flag = " --name " + l.layout.ID
	}
	node, site, other := l.nodes[0].name, l.layout.SiteNames()[0], allName
	if sites := l.layout.SiteNames(); len(sites) > 1 {
		other = sites[1]
	}
	fmt.Fprintf(&b, "\nTry, in a second terminal:\n")
	for _, line := range []string{
		"status", "cut " + site + " " + other + " --one-way", "drop " + site + " " + other + " 20%", "isolate " + site, "kill " + node,
		"freeze " + node, "clock " + node + " +1h", "fill-disk " + node, "backend " + site + " down", "heal",
		"exec " + node + " -- " + l.opts.Program + " status", "down",
	} {
		verb, rest, _ := strings.Cut(line, " ")
		fmt.Fprintf(&b, "  %s %s\n", p, strings.TrimSpace(verb+flag+" "+rest))
	}
	for _, z := range l.layout.Config.Zones {
		if len(z.Names) > 0 {
			fmt.Fprintf(&b, "  %s query%s %s --from 46.4.0.1\n", p, flag, strings.TrimSuffix(z.Names[0].FQDN, "."))
			if l.resolver != nil {
				fmt.Fprintf(&b, "  %s query%s %s --from 46.4.0.1 --resolver\n", p, flag, strings.TrimSuffix(z.Names[0].FQDN, "."))
			}
			break
		}
	}
	logs := l.opts.Logs
	if logs == "" {
		logs = l.folder.path
	}
	fmt.Fprintf(&b, "Logs are in %s. Ctrl-C or `%s down%s` ends it all.\n\n", logs, p, flag)
	return b.String()
}
