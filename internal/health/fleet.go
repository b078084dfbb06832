package health

import "slices"

// Fleet says which site each observer belongs to. Reports of others are
// refused. The caller must not change the map after handing it over.
type Fleet struct {
	// Sites maps observer (node) names to site names.
	Sites map[string]string
}

// siteNames returns the sites of the fleet, sorted, each once.
func (f Fleet) siteNames() []string {
	names := make([]string, 0, len(f.Sites))
	for _, site := range f.Sites {
		names = append(names, site)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// observerNames returns the observers of the fleet, sorted.
func (f Fleet) observerNames() []string {
	names := make([]string, 0, len(f.Sites))
	for name := range f.Sites {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
