package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// A Path is one route in the table.
type Path struct {
	Prefix netip.Prefix // masked

	// Of local paths only: who hears what; nobody else hears anything.
	Exports []Export

	// Of received paths only.
	Attributes
	From   netip.Addr // the neighbor; zero = local
	ASPath []uint32
}

// Reaches reports whether neighbors that are named so hear a local path.
func (p Path) Reaches(neighbors netip.Prefix) bool {
	return slices.ContainsFunc(p.Exports, func(x Export) bool { return slices.Contains(x.Neighbors, neighbors) })
}

// Equal reports whether two local paths are the same.
func (p Path) Equal(o Path) bool {
	return p.Prefix == o.Prefix && slices.EqualFunc(p.Exports, o.Exports, Export.Equal)
}

func family(p netip.Prefix) *api.Family {
	if p.Addr().Is4() {
		return unicast()[0]
	}
	return unicast()[1]
}

// Announce puts a local path into the table, replacing the one of the same prefix.
func (e *Engine) Announce(p Path) error {
	tag, err := e.tagOf(p.Exports)
	if err != nil {
		return fmt.Errorf("announce %s: %w", p.Prefix, err)
	}
	// Exports that name another next hop replace this one.
	hop := unspecified(p.Prefix)
	for _, x := range p.Exports {
		if x.NextHop.IsValid() {
			hop = x.NextHop
			break
		}
	}
	path, err := apiPath(p.Prefix, hop, tag)
	if err != nil {
		return fmt.Errorf("announce %s: %w", p.Prefix, err)
	}
	_, err = e.server.AddPath(context.Background(), &api.AddPathRequest{TableType: api.TableType_GLOBAL, Path: path})
	if err != nil {
		return fmt.Errorf("announce %s: %w", p.Prefix, err)
	}
	return nil
}

// Withdraw takes a local path out of the table.
func (e *Engine) Withdraw(prefix netip.Prefix) error {
	if !prefix.IsValid() {
		// GoBGP takes a request without a path for "all".
		return fmt.Errorf("withdraw: invalid prefix")
	}
	// An unspecified next hop satisfies GoBGP's parser; the match is by prefix.
	path, err := apiPath(prefix, unspecified(prefix), 0)
	if err != nil {
		return fmt.Errorf("withdraw %s: %w", prefix, err)
	}
	path.IsWithdraw = true
	err = e.server.DeletePath(context.Background(), &api.DeletePathRequest{TableType: api.TableType_GLOBAL, Path: path})
	if err != nil {
		return fmt.Errorf("withdraw %s: %w", prefix, err)
	}
	return nil
}

// WithdrawAll takes every local path out of the table.
func (e *Engine) WithdrawAll() error {
	// Neither path nor UUID: every local path.
	if err := e.server.DeletePath(context.Background(), &api.DeletePathRequest{}); err != nil {
		return fmt.Errorf("withdraw all: %w", err)
	}
	return nil
}

// Paths returns the whole table, local and received, sorted by prefix and neighbor.
func (e *Engine) Paths() ([]Path, error) {
	var out []Path
	var failed error
	for _, f := range unicast() {
		request := &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: f}
		err := e.server.ListPath(context.Background(), request, func(d *api.Destination) {
			prefix, err := netip.ParsePrefix(d.Prefix)
			if err != nil {
				failed = fmt.Errorf("list paths: %w", err)
				return
			}
			for _, p := range d.Paths {
				path, err := fromAPI(prefix, p)
				if err != nil {
					failed = fmt.Errorf("list paths: %s: %w", prefix, err)
					continue
				}
				if !path.From.IsValid() {
					path = Path{Prefix: prefix, Exports: e.exportsOf(path.Communities)}
				}
				out = append(out, path)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("list paths: %w", err)
		}
	}
	if failed != nil {
		return nil, failed
	}
	slices.SortFunc(out, comparePaths)
	return out, nil
}

// SentTo returns the prefixes that a neighbor with a session is sent (its Adj-RIB-Out).
func (e *Engine) SentTo(neighbor netip.Addr) (map[netip.Prefix]bool, error) {
	out := map[netip.Prefix]bool{}
	for _, f := range unicast() {
		request := &api.ListPathRequest{TableType: api.TableType_ADJ_OUT, Family: f, Name: neighbor.String()}
		err := e.server.ListPath(context.Background(), request, func(d *api.Destination) {
			if prefix, err := netip.ParsePrefix(d.Prefix); err == nil && len(d.Paths) > 0 {
				out[prefix] = true
			}
		})
		if err != nil {
			return nil, fmt.Errorf("list what %s is sent: %w", neighbor, err)
		}
	}
	return out, nil
}

// Heard returns what a neighbor sent of some prefixes, exactly as it came: a sender looks at it and keeps none.
func (e *Engine) Heard(neighbor netip.Addr, prefixes []netip.Prefix) ([]Path, error) {
	var out []Path
	for i, f := range unicast() {
		request := &api.ListPathRequest{TableType: api.TableType_ADJ_IN, Family: f, Name: neighbor.String()}
		for _, p := range prefixes {
			if p.Addr().Is4() == (i == 0) {
				request.Prefixes = append(request.Prefixes, &api.TableLookupPrefix{Prefix: p.String()})
			}
		}
		if len(request.Prefixes) == 0 {
			continue
		}
		err := e.server.ListPath(context.Background(), request, func(d *api.Destination) {
			prefix, err := netip.ParsePrefix(d.Prefix)
			if err != nil {
				return
			}
			for _, p := range d.Paths {
				if path, err := fromAPI(prefix, p); err == nil {
					path.From = neighbor
					out = append(out, path)
				}
			}
		})
		if err != nil {
			return nil, fmt.Errorf("list what %s sent: %w", neighbor, err)
		}
	}
	return out, nil
}

func unspecified(p netip.Prefix) netip.Addr {
	if p.Addr().Is6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// apiPath is a path that says nothing but its tag; 0 = none.
func apiPath(prefix netip.Prefix, hop netip.Addr, tag uint32) (*api.Path, error) {
	f := family(prefix)
	nlri, err := anypb.New(&api.IPAddressPrefix{
		Prefix: prefix.Addr().String(), PrefixLen: uint32(prefix.Bits()),
	})
	if err != nil {
		return nil, err
	}
	attributes := []proto.Message{&api.OriginAttribute{Origin: 0}}
	if f.Afi == api.Family_AFI_IP {
		attributes = append(attributes, &api.NextHopAttribute{NextHop: hop.String()})
	} else {
		attributes = append(attributes, &api.MpReachNLRIAttribute{
			Family: f, NextHops: []string{hop.String()}, Nlris: []*anypb.Any{nlri},
		})
	}
	if tag != 0 {
		attributes = append(attributes, &api.CommunitiesAttribute{Communities: []uint32{tag}})
	}
	path := &api.Path{Family: f, Nlri: nlri}
	for _, a := range attributes {
		packed, err := anypb.New(a)
		if err != nil {
			return nil, err
		}
		path.Pattrs = append(path.Pattrs, packed)
	}
	return path, nil
}

func fromAPI(prefix netip.Prefix, p *api.Path) (Path, error) {
	out := Path{Prefix: prefix}
	// A local path has no neighbor; GoBGP prints that as "<nil>".
	if from, err := netip.ParseAddr(p.NeighborIp); err == nil && from.IsValid() && !from.IsUnspecified() {
		out.From = from
	}
	for _, packed := range p.Pattrs {
		message, err := packed.UnmarshalNew()
		if err != nil {
			return Path{}, err
		}
		switch a := message.(type) {
		case *api.NextHopAttribute:
			out.NextHop, err = netip.ParseAddr(a.NextHop)
		case *api.MpReachNLRIAttribute:
			if len(a.NextHops) > 0 {
				out.NextHop, err = netip.ParseAddr(a.NextHops[0])
			}
		case *api.MultiExitDiscAttribute:
			out.MED = a.Med
		case *api.LocalPrefAttribute:
			out.LocalPref = a.LocalPref
		case *api.CommunitiesAttribute:
			out.Communities = slices.Clone(a.Communities)
		case *api.LargeCommunitiesAttribute:
			for _, l := range a.Communities {
				out.Large = append(out.Large, [3]uint32{l.GlobalAdmin, l.LocalData1, l.LocalData2})
			}
		case *api.ExtendedCommunitiesAttribute:
			out.Extended = extended(a)
		case *api.AsPathAttribute:
			for _, segment := range a.Segments {
				out.ASPath = append(out.ASPath, segment.Numbers...)
			}
		}
		if err != nil {
			return Path{}, err
		}
	}
	return out, nil
}

// extended returns the communities of the two kinds that Attributes has.
func extended(a *api.ExtendedCommunitiesAttribute) (out []string) {
	for _, packed := range a.Communities {
		message, err := packed.UnmarshalNew()
		if err != nil {
			continue
		}
		kinds := map[uint32]string{2: "rt", 3: "soo"} // RFC 4360, sections 4 and 5
		switch c := message.(type) {
		case *api.TwoOctetAsSpecificExtended:
			out = append(out, fmt.Sprintf("%s:%d:%d", kinds[c.SubType], c.Asn, c.LocalAdmin))
		case *api.FourOctetAsSpecificExtended:
			out = append(out, fmt.Sprintf("%s:%d:%d", kinds[c.SubType], c.Asn, c.LocalAdmin))
		case *api.IPv4AddressSpecificExtended:
			out = append(out, fmt.Sprintf("%s:%s:%d", kinds[c.SubType], c.Address, c.LocalAdmin))
		}
	}
	return out
}
