package bgp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// table is where routes are installed.
type table interface {
	Paths() ([]engine.Path, error)
	Prepare(desired, installed []engine.Path) error
	Announce(engine.Path) error
	Withdraw(netip.Prefix) error
}

// reconcile makes installed equal to desired: it walks desired ∪ installed, so that a route installed by mistake goes
// too. Announcements go first: when a prefix is replaced by a more specific one, it is
// never missing in between. One route's failure stops no other; it is in that route's status. changes counts
// what was attempted. An error means that installed could not be read and nothing was done.
func reconcile(t table, desired []engine.Path) (status []RouteStatus, changes int, err error) {
	installed, err := t.Paths()
	if err != nil {
		return nil, 0, fmt.Errorf("read installed routes: %w", err)
	}
	// What cannot be prepared fails again with the route that it belongs to.
	_ = t.Prepare(desired, installed)
	have := make(map[netip.Prefix]engine.Path, len(installed))
	for _, r := range installed {
		have[r.Prefix] = r
	}
	status = make([]RouteStatus, 0, len(desired))
	for _, want := range desired {
		s := RouteStatus{Prefix: want.Prefix, Installed: true}
		got, ok := have[want.Prefix]
		delete(have, want.Prefix)
		if !ok || !got.Equal(want) {
			changes++
			if err := t.Announce(want); err != nil {
				s.Installed, s.Error = ok, err.Error()
			}
		}
		status = append(status, s)
	}
	for prefix := range have {
		changes++
		if err := t.Withdraw(prefix); err != nil {
			status = append(status, RouteStatus{Prefix: prefix, Installed: true, Error: err.Error()})
		}
	}
	sortRoutes(status)
	return status, changes, nil
}

func sortRoutes(status []RouteStatus) {
	slices.SortStableFunc(status, func(a, b RouteStatus) int { return a.Prefix.Compare(b.Prefix) })
}
