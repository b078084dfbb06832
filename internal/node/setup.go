package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/dnslb/zone"
	"github.com/pharos-lb/pharos/geo"
	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

// A Setup is one configuration made ready for use: validated, its zones and
// geo data read, its topology compiled. Immutable.
type Setup struct {
	Config   *config.Config
	Geo      *geo.Database
	Topology *steer.Topology
	Zones    *zone.Set
	// Self is this node; nil for a Setup without a node.
	Self *Self
	// Loaded is when it was made.
	Loaded time.Time
	// Warnings are what is odd but works, one line each.
	Warnings []string

	geoStamps map[string]stamp // of the files that Geo was read from
}

// Self is the part of the configuration that speaks of one node.
type Self struct {
	Node config.Node
	Site *config.Site
}

// Load makes a Setup from a file. name is the node's name, "" for none (a
// setup that can explain and validate, not run). The error holds everything
// that is wrong, not only the first thing.
func Load(file, name string) (*Setup, error) { return loadBy(file, name, zone.Compile) }

func loadBy(file, name string, compile compiler) (*Setup, error) {
	cfg, err := config.Load(file, config.Sources{ReadFile: readFile, Stat: statFile, Getenv: os.LookupEnv})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (name the configuration: pharos run --config FILE, pharos validate FILE)", err)
	}
	if err != nil {
		return nil, err
	}
	s := &Setup{Config: cfg, Loaded: time.Now()}
	if name != "" {
		if s.Self, err = findSelf(cfg, name); err != nil {
			return nil, err
		}
	}
	if err := s.readGeo(); err != nil {
		return nil, fmt.Errorf("geo.databases: %w", err)
	}
	var zoneErr, steerErr error
	s.Zones, s.Warnings, zoneErr = compileZones(cfg, compile)
	s.Warnings = append(s.Warnings, s.Geo.Warnings()...)
	if d := cfg.BGP.Restart; d > 0 {
		s.Warnings = append(s.Warnings, fmt.Sprintf("bgp.graceful_restart: routers keep sending here for %s after pharos has died", d))
	}
	s.Topology, steerErr = steer.Compile(cfg, s.Geo, name)
	if err := errors.Join(zoneErr, steerErr); err != nil {
		return nil, err
	}
	return s, s.checkTiers()
}

func findSelf(cfg *config.Config, name string) (*Self, error) {
	var all []string
	for i := range cfg.Sites {
		site := &cfg.Sites[i]
		for _, n := range site.Nodes {
			if n.Name == name {
				return &Self{Node: n, Site: site}, nil
			}
			all = append(all, n.Name)
		}
	}
	slices.Sort(all)
	const show = 10
	more := ""
	if len(all) > show {
		more = fmt.Sprintf(" and %d more", len(all)-show)
		all = all[:show]
	}
	return nil, fmt.Errorf("%s has no node named %q (it has %s%s); name this one with --node, or add it under sites.<site>.nodes",
		cfg.File, name, strings.Join(all, ", "), more)
}

// statFile says why a name cannot be a file to read.
func statFile(name string) error {
	info, err := os.Stat(name)
	if err == nil && info.IsDir() {
		return errors.New("is a directory")
	}
	return err
}

// readGeoFile reads a database, unless it is too large to be one.
func readGeoFile(name string) ([]byte, error) { return readFileOf(name, geo.MaxFileBytes) }

// steeredNames translates the steered names of a zone for the DNS tier.
func steeredNames(names []config.Name) []zone.Steered {
	out := make([]zone.Steered, len(names))
	for i, n := range names {
		out[i] = zone.Steered{FQDN: n.FQDN, Service: n.Service, TTL: uint32(n.TTL / time.Second), Anycast: n.Anycast}
	}
	return out
}

func compileZones(cfg *config.Config, compile compiler) (*zone.Set, []string, error) {
	specs := make([]zone.Spec, len(cfg.Zones))
	for i, z := range cfg.Zones {
		specs[i] = zone.Spec{Name: z.Name, Master: z.Master, MasterFile: z.MasterFile, Steered: steeredNames(z.Names)}
	}
	set, err := compile(specs)
	if err != nil {
		return nil, nil, err
	}
	return set, set.Warnings(), nil
}

// addresses resolves a bind at this node. services are those whose VIPs
// "vip:PORT" stands for. An invalid address with a port stands for every address.
func (s *Setup) addresses(b config.Bind, services []string) (out []netip.AddrPort) {
	all, every := s.Config.Addresses(b, services, s.Self.Site.Name, s.Self.Node)
	if every {
		all = []netip.Addr{{}} // of both families
	}
	for _, a := range all {
		out = append(out, netip.AddrPortFrom(a, b.Port))
	}
	return out
}
