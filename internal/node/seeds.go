package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
)

// maxSeedsFile is the longest seeds file that is read, in bytes.
const maxSeedsFile = 64 << 10

// discover returns the addresses that the configuration's further sources name
// now: a DNS name and a file. What cannot be read names none, for now.
func (n *Node) discover(ctx context.Context) []netip.AddrPort {
	c := n.setup.Load().Config.Cluster
	var out []netip.AddrPort
	if c.SeedsDNS != "" {
		found, err := lookupSeeds(ctx, net.DefaultResolver, c.SeedsDNS, c.Port)
		if err != nil {
			n.log.Warn("cannot look for nodes in DNS", "name", c.SeedsDNS, "error", err)
		}
		out = append(out, found...)
	}
	if c.SeedsFile != "" {
		found, err := readSeeds(c.SeedsFile, c.Port)
		if err != nil {
			n.log.Warn("cannot look for nodes in a file", "file", c.SeedsFile, "error", err)
		}
		out = append(out, found...)
	}
	return out
}

// A resolver is what is asked for names; a *net.Resolver.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
}

// lookupSeeds resolves a name: SRV records when it begins with "_", else
// addresses, which then have the cluster's own port.
func lookupSeeds(ctx context.Context, r resolver, name string, port uint16) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	if !strings.HasPrefix(name, "_") {
		addrs, err := r.LookupNetIP(ctx, "ip", name)
		for _, a := range addrs {
			out = append(out, netip.AddrPortFrom(a.Unmap(), port))
		}
		return out, err
	}
	_, records, err := r.LookupSRV(ctx, "", "", name)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, srv := range records {
		addrs, err := r.LookupNetIP(ctx, "ip", srv.Target)
		errs = append(errs, err) // the other targets may be found all the same
		for _, a := range addrs {
			out = append(out, netip.AddrPortFrom(a.Unmap(), srv.Port))
		}
	}
	return out, errors.Join(errs...)
}

// readSeeds reads one address or address:port a line; # begins a comment.
func readSeeds(file string, port uint16) ([]netip.AddrPort, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSeedsFile {
		return nil, &os.PathError{Op: "read", Path: file, Err: os.ErrInvalid}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseSeeds(data, port), nil
}

// parseSeeds returns the addresses in data. A line that is none is passed over:
// half a list of places to look is better than none.
func parseSeeds(data []byte, port uint16) []netip.AddrPort {
	var out []netip.AddrPort
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		text = strings.TrimSpace(text)
		if a, err := netip.ParseAddrPort(text); err == nil {
			out = append(out, a)
		} else if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, netip.AddrPortFrom(a, port))
		}
	}
	return out
}
