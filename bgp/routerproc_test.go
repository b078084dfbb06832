package bgp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"sync"

	"github.com/pharos-lb/pharos/bgp/router"
)

// A remoteRouter is a router.Router in a process of its own: tests start and stop many at any time, which one process
// cannot (see router.RunAll).
type remoteRouter struct {
	watch chan struct{}

	mu   sync.Mutex // guards last
	last view
}

// A view is one line that the router process prints.
type view struct {
	Routes   []router.Route
	Sessions []router.Session
}

func (r *remoteRouter) view() view {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *remoteRouter) Routes() []router.Route     { return r.view().Routes }
func (r *remoteRouter) Sessions() []router.Session { return r.view().Sessions }
func (r *remoteRouter) Watch() <-chan struct{}     { return r.watch }

// runTestRouter is the main of the router process. It ends when its input does.
func runTestRouter(encoded string) error {
	var o router.Options
	if err := json.Unmarshal([]byte(encoded), &o); err != nil {
		return err
	}
	if os.Getenv("PHAROS_TEST_LOG") != "" {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	r, err := router.New(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		_, _ = os.Stdin.Read(make([]byte, 1))
	}()
	go func() {
		out := json.NewEncoder(os.Stdout)
		for range r.Watch() {
			if out.Encode(view{r.Routes(), r.Sessions()}) != nil {
				return
			}
		}
	}()
	return r.Run(ctx)
}

// router starts a router at the host number; stop ends it and waits.
func (l *lab) router(host byte, change ...func(*router.Options)) (r *remoteRouter, stop func()) {
	l.t.Helper()
	o := router.Options{
		ASN: routerASN, Listen: netip.AddrPortFrom(l.addr(host), l.port),
		Neighbors: []router.Neighbor{{Address: l.addr(1), ASN: speakerASN, Passive: true}},
	}
	for _, c := range change {
		c(&o)
	}
	encoded, err := json.Marshal(o)
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = childEnvironment(append(os.Environ(), routerVerb+"="+string(encoded)))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	r = &remoteRouter{watch: make(chan struct{}, 1)}
	done := make(chan struct{})
	up := make(chan struct{})
	go func() {
		defer close(done)
		ready := sync.OnceFunc(func() { close(up) })
		defer ready()
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			var v view
			if err := json.Unmarshal(scanner.Bytes(), &v); err != nil {
				l.t.Errorf("router printed %q: %v", scanner.Text(), err)
				return
			}
			r.mu.Lock()
			r.last = v
			r.mu.Unlock()
			select {
			case r.watch <- struct{}{}:
			default:
			}
			ready()
		}
	}()
	<-up // it listens
	stop = sync.OnceFunc(func() {
		_ = in.Close()
		<-done
		if err := cmd.Wait(); err != nil {
			l.t.Errorf("router %s: %v", o.Listen, err)
		}
	})
	l.t.Cleanup(stop)
	return r, stop
}

func (r *remoteRouter) String() string { return fmt.Sprintf("%+v", r.view()) }
