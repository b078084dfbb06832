package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/internal/config"
)

// users are clients of a place behind the lab's resolver: what a failover looks like to them.
type users struct {
	lab  *Lab
	name string
	ipv6 bool
	from netip.Addr
	site string
	ttl  time.Duration
}

// places are addresses all over the world, one of which may be led to a site.
var places = []string{
	"46.4.0.1", "81.2.69.142", "8.8.8.8", "200.160.0.1", "203.116.0.1", "133.0.0.1", "1.128.0.1", "196.4.160.1", "49.32.0.1",
}

// findUsers finds clients that the resolver leads to a site by a name of a service; nil if there are none, or
// no resolver.
func (l *Lab) findUsers(ctx context.Context, service, site string) *users {
	u := &users{lab: l, site: site}
	for _, z := range l.layout.Config.Zones {
		for _, n := range z.Names {
			if n.Service == service && !n.Anycast && n.FQDN[0] != '*' && u.name == "" {
				u.name, u.ttl = strings.TrimSuffix(n.FQDN, "."), n.TTL
			}
		}
	}
	if l.resolver == nil || u.name == "" {
		return nil
	}
	u.ipv6 = l.isIPv6(u.name)
	candidates := make([]netip.Addr, 0, len(places))
	for _, t := range l.layout.Config.Tests {
		if a, ok := clientOf(t.From); ok {
			candidates = append(candidates, a)
		}
	}
	for _, p := range places {
		candidates = append(candidates, netip.MustParseAddr(p))
	}
	for _, from := range candidates {
		u.from = from
		if slices.Equal(u.resolve(ctx).Sites, []string{site}) {
			return u
		}
	}
	return nil
}

func (u *users) resolve(ctx context.Context) Answer {
	a, err := u.lab.Resolve(ctx, Question{Name: u.name, IPv6: u.ipv6, From: u.from})
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// await waits until the resolver leads the users to the site, or away from it: an answer that it holds lives on
// for its TTL. It says what happened, and counts what was not answered.
func (u *users) await(ctx context.Context, here bool, report *FailoverReport) {
	if u == nil {
		return
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, u.ttl+10*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		a := u.resolve(ctx)
		if ctx.Err() == nil {
			report.Resolved++
			if a.RCode != "Success" || len(a.Addresses) == 0 {
				report.Unresolved++
			}
		}
		if len(a.Sites) > 0 && slices.Contains(a.Sites, u.site) == here {
			u.lab.say("a client at %s resolves %s through the resolver to %s (%s), %s later", u.from, u.name,
				strings.Trim(fmt.Sprint(a.Addresses), "[]"), strings.Join(a.Sites, " "), time.Since(began).Round(100*time.Millisecond))
			if !here {
				report.Moved = time.Since(began)
			}
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			report.Failed = append(report.Failed, fmt.Sprintf("%s from %s through the resolver: still %v after %s", u.name, u.from, a.Sites, time.Since(began).Round(time.Second)))
			return
		}
	}
}

// introduce says who the users are.
func (u *users) introduce(ctx context.Context) {
	if u != nil {
		u.lab.say("a client at %s resolves %s through the resolver (%s) to %v; answers live for %s, half of it while a site is out",
			u.from, u.name, clientAddrs[0], u.resolve(ctx).Addresses, u.ttl)
	}
}

// warmUp is how long what comes back has to be well before it is announced.
func warmUp(c *config.Config, prefix netip.Prefix) time.Duration {
	for _, p := range c.BGP.Prefixes {
		if p.Prefix == prefix {
			return p.WarmUp
		}
	}
	return 0
}
