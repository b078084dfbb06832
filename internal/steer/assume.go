package steer

import (
	"fmt"
	"net/netip"
)

// CheckAssumptions reports the first of the things to be assumed down that is neither a site
// nor a backend of this topology.
func (t *Topology) CheckAssumptions(assumeDown []string) error {
	for _, text := range assumeDown {
		if _, ok := t.sites[text]; ok {
			continue
		}
		if addr, err := netip.ParseAddrPort(text); err == nil {
			if _, ok := t.backends[addr]; ok {
				continue
			}
			return fmt.Errorf("assume %q down: no service has a backend of this address", text)
		}
		var sites []string
		for i := range t.Config.Sites {
			sites = append(sites, t.Config.Sites[i].Name)
		}
		return fmt.Errorf("assume %q down: neither a site nor the address:port of a backend%s", text, didYouMean(text, sites))
	}
	return nil
}
