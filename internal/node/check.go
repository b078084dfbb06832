package node

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/forward/l7/route"
)

// checkTiers asks each tier whether it would take what this configuration
// makes of it, so that `validate` refuses what `run` and `reload` would. With
// Self it asks for this node, without for every node. Sockets are not tried.
func (s *Setup) checkTiers() error {
	if s.Self != nil {
		return errors.Join(s.checkRoutes(), s.checkProbes(), s.checkNode())
	}
	errs := []error{s.checkRoutes()}
	for i := range s.Config.Sites {
		site := &s.Config.Sites[i]
		for _, n := range site.Nodes {
			as := *s
			as.Self = &Self{Node: n, Site: site}
			errs = append(errs, as.checkNode())
		}
	}
	return errors.Join(errs...)
}

// checkRoutes compiles the routes of every HTTP listener, which are the same on every node.
func (s *Setup) checkRoutes() error {
	var errs []error
	for i, l := range s.Config.Listeners {
		if l.HTTP == nil {
			continue
		}
		if _, err := route.New(httpListener(l.HTTP).Routes); err != nil {
			errs = append(errs, fmt.Errorf("listeners[%d].http: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// checkProbes is for one node only: over all nodes of a large fleet it would
// look at the same checks thousands of times.
func (s *Setup) checkProbes() error {
	var errs []error
	for _, c := range probeChecks(s) {
		if err := c.WithDefaults().Validate(); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", s.Self.Node.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Setup) checkNode() error {
	node := s.Self.Node
	var errs []error
	if err := s.dnsTunables().Validate(); err != nil {
		errs = append(errs, fmt.Errorf("node %s: %w", node.Name, err))
	}
	cfg, peers, ok := s.speakerConfig()
	if !ok {
		return errors.Join(errs...)
	}
	if err := bgp.Validate(cfg, peers); err != nil {
		errs = append(errs, fmt.Errorf("node %s: %w", node.Name, err))
	}
	for _, p := range s.Config.BGP.Prefixes {
		if !slices.Contains(p.Sites, s.Self.Site.Name) {
			continue
		}
		if !node.Of(p.Prefix.Addr().Is4()).IsValid() {
			errs = append(errs, fmt.Errorf("bgp.prefixes %s: node %s at %s has no next hop of that family; announce it from sites whose nodes have one (sites: […])",
				p.Prefix, node.Name, node.Address))
		}
	}
	return errors.Join(errs...)
}
