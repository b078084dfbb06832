package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/internal/config"
)

// routes are what the kernels of the routers forward by: the tables that BIRD and
// FRR write. They are heard of as they change, at the moment at which they do. The nil
// *routes has none.
type routes struct {
	done chan struct{}

	mu      sync.Mutex // guards the rest
	held    map[routeKey]RouteState
	changed chan struct{} // closed and replaced at each change
}

// routeKey is a prefix at a router.
type routeKey struct {
	router string
	prefix netip.Prefix
}

// A RouteState is what a router does with a prefix.
type RouteState struct {
	Hops  int       // next hops; 0 = it has no route
	Since time.Time // of the last change
}

// watchRoutes listens to every router.
func watchRoutes(routers []*router, prefixes []config.Prefix) (*routes, error) {
	if len(routers) == 0 {
		return nil, nil
	}
	w := &routes{done: make(chan struct{}), held: map[routeKey]RouteState{}, changed: make(chan struct{})}
	for _, r := range routers {
		updates := make(chan netlink.RouteUpdate, 64)
		ns := netns.NsHandle(r.space.file.Fd())
		err := netlink.RouteSubscribeWithOptions(updates, w.done, netlink.RouteSubscribeOptions{Namespace: &ns, ListExisting: true})
		if err != nil {
			w.close()
			return nil, fmt.Errorf("router %s: listen to its routes: %w", r.plan.Name, err)
		}
		name := r.plan.Name
		go func() { // ends with done
			for u := range updates {
				w.take(name, u, prefixes)
			}
		}()
	}
	return w, nil
}

// take notes one change.
func (w *routes) take(router string, u netlink.RouteUpdate, prefixes []config.Prefix) {
	if u.Dst == nil {
		return
	}
	addr, ok := netip.AddrFromSlice(u.Dst.IP)
	bits, _ := u.Dst.Mask.Size()
	if !ok {
		return
	}
	prefix := netip.PrefixFrom(addr.Unmap(), bits)
	if !slices.ContainsFunc(prefixes, func(p config.Prefix) bool { return p.Prefix == prefix }) {
		return
	}
	hops := max(len(u.MultiPath), 1)
	if u.Type == unix.RTM_DELROUTE {
		hops = 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	key := routeKey{router, prefix}
	if w.held[key].Hops == hops {
		return
	}
	w.held[key] = RouteState{hops, time.Now()}
	close(w.changed)
	w.changed = make(chan struct{})
}

// await waits until what a router does with a prefix is as wanted.
func (w *routes) await(ctx context.Context, router string, prefix netip.Prefix, wanted func(RouteState) bool) (RouteState, error) {
	for {
		w.mu.Lock()
		now, changed := w.held[routeKey{router, prefix}], w.changed
		w.mu.Unlock()
		if wanted(now) {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}

// now is what a router does with a prefix at this moment.
func (w *routes) now(router string, prefix netip.Prefix) RouteState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held[routeKey{router, prefix}]
}

func (w *routes) close() {
	if w != nil {
		select {
		case <-w.done:
		default:
			close(w.done)
		}
	}
}
