package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A prober stands outside the fleet, in the client's namespace, and asks it
// without pause. Two kinds of work share it: one asker a node, which asks it
// for every steered name in turn; and resolvers, each of which does for a
// random name what a resolver does: it asks one of the zone's nameservers and,
// if that does not answer in time, another.
type prober struct {
	lab   *Lab
	names []steeredName
	watch *watch

	mu      sync.Mutex // guards figures
	figures Figures
}

// A steeredName is one question that is asked over and over.
type steeredName struct {
	fqdn    string
	service string
	ipv6    bool
}

// How the prober asks.
const (
	askEvery    = 200 * time.Millisecond // of each node, for the next name
	resolvers   = 8
	resolveRate = 5 // queries a second of each resolver
	// resolverTries is how many nameservers a resolver asks before it gives up.
	resolverTries = 3
)

func newProber(l *Lab, w *watch) (*prober, error) {
	p := &prober{lab: l, watch: w}
	p.figures.Nodes = map[string]*NodeFigures{}
	for _, name := range l.layout.Nodes() {
		p.figures.Nodes[name] = &NodeFigures{}
	}
	for _, z := range l.layout.Config.Zones {
		for _, n := range z.Names {
			for _, svc := range l.layout.Config.Services {
				if svc.Name == n.Service && n.FQDN[0] != '*' {
					p.names = append(p.names, steeredName{n.FQDN, n.Service, onlyIPv6(l.answersOf(n.Service, n.Anycast))})
				}
			}
		}
	}
	if len(p.names) == 0 {
		return nil, fmt.Errorf("%s has no steered name to ask for", l.layout.Config.File)
	}
	return p, nil
}

// answersOf are the addresses that a service's names can be answered with.
func (l *Lab) answersOf(service string, anycast bool) (out []netip.Addr) {
	for _, svc := range l.layout.Config.Services {
		if svc.Name != service {
			continue
		}
		if anycast {
			return svc.Anycast
		}
		for _, v := range svc.VIPs {
			out = append(out, v.Addresses...)
		}
	}
	return out
}

func onlyIPv6(addrs []netip.Addr) bool {
	for _, a := range addrs {
		if a.Is4() {
			return false
		}
	}
	return true
}

// Run asks until ctx ends, and joins every asker.
func (p *prober) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	var lines [][]*net.UDPConn
	defer func() {
		wg.Wait()
		for _, line := range lines {
			for _, c := range line {
				c.Close()
			}
		}
	}()
	for range resolvers + 1 {
		line, err := p.dial()
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	for i := range p.lab.nodes {
		wg.Go(func() { p.askNode(ctx, i, lines[resolvers][i]) })
	}
	for i := range resolvers {
		wg.Go(func() { p.resolve(ctx, rand.New(rand.NewPCG(uint64(i), 0)), lines[i]) })
	}
	<-ctx.Done()
	return nil
}

// dial opens a socket to every node.
func (p *prober) dial() (out []*net.UDPConn, err error) {
	for i := range p.lab.nodes {
		c, err := p.lab.dialDNS(i, netip.Addr{})
		if err != nil {
			for _, open := range out {
				open.Close()
			}
			return nil, fmt.Errorf("probe %s: %w", p.lab.nodes[i].name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// askNode asks one node for one name after the other.
func (p *prober) askNode(ctx context.Context, node int, conn *net.UDPConn) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.askOnce(ctx, node, conn, p.names[i%len(p.names)])
	}
}

// askOnce asks a node and books what it says. It reports whether it answered.
func (p *prober) askOnce(ctx context.Context, node int, conn *net.UDPConn, name steeredName) bool {
	id := uint16(rand.Uint32())
	query, err := newQuery(id, Question{Name: name.fqdn, IPv6: name.ipv6})
	if err != nil {
		return false // the configuration's own names are valid
	}
	start := time.Now()
	a := exchange(conn, query, id, start.Add(askTimeout))
	a.Latency = time.Since(start)
	if ctx.Err() != nil {
		return true // the end of the run is nobody's fault
	}
	a.Node = p.lab.nodes[node].name
	a.Sites = p.lab.sitesOf(a.Addresses)
	p.watch.answered(node, name.service, a.Sites, start)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.figures.book(a, name)
	return a.RCode != ""
}

// resolve does what a resolver does, over and over.
func (p *prober) resolve(ctx context.Context, random *rand.Rand, line []*net.UDPConn) {
	tick := time.NewTicker(time.Second / resolveRate)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		name := p.names[random.IntN(len(p.names))]
		tried := p.nameservers(random)
		answered := false
		for _, node := range tried {
			if answered = p.askOnce(ctx, node, line[node], name); answered {
				break
			}
		}
		p.mu.Lock()
		p.figures.Resolved++
		if !answered {
			p.figures.Unresolved++
			p.figures.note(fmt.Sprintf("%s: %s unanswered by %s", time.Now().Format("15:04:05.000"), name.fqdn, p.namesOf(tried)))
		}
		p.mu.Unlock()
	}
}

// nameservers picks the nodes that a resolver tries, in order: of different
// sites while there are any, as the nameservers of a zone are.
func (p *prober) nameservers(random *rand.Rand) []int {
	order := random.Perm(len(p.lab.nodes))
	var out []int
	for _, again := range []bool{false, true} {
		for _, i := range order {
			if len(out) < resolverTries && !slices.Contains(out, i) && (again || !p.sameSite(out, i)) {
				out = append(out, i)
			}
		}
	}
	return out
}

func (p *prober) sameSite(nodes []int, i int) bool {
	for _, j := range nodes {
		if p.lab.siteOf(i) == p.lab.siteOf(j) {
			return true
		}
	}
	return false
}

// siteOf names a node's site.
func (l *Lab) siteOf(node int) string {
	member, err := l.layout.node(l.nodes[node].name)
	if err != nil {
		return ""
	}
	return l.layout.Members[member].Site
}

func (p *prober) namesOf(nodes []int) string {
	var out []string
	for _, i := range nodes {
		out = append(out, p.lab.nodes[i].name)
	}
	return fmt.Sprint(out)
}

// result returns a copy of the figures so far.
func (p *prober) result() Figures {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.figures.clone()
}
