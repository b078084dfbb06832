package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A Question is one DNS query from the lab's client.
type Question struct {
	Name string
	IPv6 bool
	// From is the client's address, which can be any; invalid = the client's own.
	From netip.Addr
	// Node is whom to ask; "" = every node.
	Node string
	// Resolver asks the lab's resolver instead.
	Resolver bool
}

// An Answer is what one node said.
type Answer struct {
	Node      string        `json:"node"`
	RCode     string        `json:"rcode"` // "" = no answer
	Addresses []netip.Addr  `json:"addresses"`
	Sites     []string      `json:"sites"` // whose VIPs they are
	Latency   time.Duration `json:"latency"`
	Error     string        `json:"error,omitempty"`
}

// askTimeout is how long one query waits for its answer.
const askTimeout = 700 * time.Millisecond

// Query asks one node, or each.
func (l *Lab) Query(ctx context.Context, q Question) ([]Answer, error) {
	if q.Resolver {
		a, err := l.Resolve(ctx, q)
		if err != nil {
			return nil, err
		}
		return []Answer{a}, nil
	}
	if q.Node != "" {
		if _, err := l.layout.node(q.Node); err != nil {
			return nil, err
		}
	}
	if _, err := newQuery(0, q); err != nil {
		return nil, err
	}
	var out []Answer
	var servers []int
	for i, name := range l.layout.Nodes() {
		if q.Node == "" || q.Node == name {
			out, servers = append(out, Answer{Node: name}), append(servers, i)
		}
	}
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() {
			conn, err := l.dialDNS(servers[i], q.From)
			if err != nil {
				out[i].Error = err.Error()
				return
			}
			a := ask(ctx, conn, q)
			a.Node, a.Sites = out[i].Node, l.sitesOf(a.Addresses)
			out[i] = a
		})
	}
	wg.Wait()
	return out, nil
}

// dialDNS opens a socket to a node's DNS, from a client's address or, for a
// node that can be asked from nowhere else, from its own.
func (l *Lab) dialDNS(node int, from netip.Addr) (conn *net.UDPConn, err error) {
	server := l.layout.DNS[node]
	var space *namespace
	if server.Inside {
		if from.IsValid() {
			return nil, fmt.Errorf("%s is no address of this node alone, so it is asked from inside and not from %s", server, from)
		}
		space = l.nodes[node].space
	} else if space, err = l.net.client(from); err != nil {
		return nil, err
	}
	err = space.do(func() (err error) {
		var local *net.UDPAddr
		if from.IsValid() {
			local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		conn, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(server.AddrPort))
		return err
	})
	return conn, err
}

// sitesOf names the sites whose VIPs are among the addresses; an anycast
// address is of no site.
func (l *Lab) sitesOf(addrs []netip.Addr) (sites []string) {
	for _, svc := range l.layout.Config.Services {
		for _, v := range svc.VIPs {
			for _, a := range v.Addresses {
				for _, b := range addrs {
					if a == b {
						sites = appendNew(sites, v.Site)
					}
				}
			}
		}
	}
	return sites
}

func appendNew(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

// ask sends one query, waits for its answer and closes the socket.
func ask(ctx context.Context, conn *net.UDPConn, q Question) Answer {
	return askWithin(ctx, conn, q, askTimeout)
}

// askWithin is ask with another patience.
func askWithin(ctx context.Context, conn *net.UDPConn, q Question, within time.Duration) Answer {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	start := time.Now()
	id := uint16(rand.Uint32())
	query, err := newQuery(id, q)
	if err != nil {
		return Answer{Error: err.Error()}
	}
	a := exchange(conn, query, id, start.Add(within))
	a.Latency = time.Since(start)
	return a
}

// exchange writes a query and reads until its answer comes.
func exchange(conn *net.UDPConn, query []byte, id uint16, deadline time.Time) Answer {
	conn.SetDeadline(deadline) // fails only on a closed connection, as the next line does
	if _, err := conn.Write(query); err != nil {
		return Answer{Error: err.Error()}
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return Answer{Error: err.Error()}
		}
		if a, mine := readAnswer(buf[:n], id); mine {
			return a
		}
	}
}

// newQuery writes a query.
func newQuery(id uint16, q Question) ([]byte, error) {
	name, err := dnsmessage.NewName(strings.TrimSuffix(q.Name, ".") + ".")
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", q.Name, err)
	}
	kind := dnsmessage.TypeA
	if q.IPv6 {
		kind = dnsmessage.TypeAAAA
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: q.Resolver},
		Questions: []dnsmessage.Question{{Name: name, Type: kind, Class: dnsmessage.ClassINET}},
	}
	text, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", q.Name, err)
	}
	return text, nil
}

// readAnswer reads a response; mine is false for one that answers another query.
func readAnswer(text []byte, id uint16) (a Answer, mine bool) {
	var p dnsmessage.Parser
	h, err := p.Start(text)
	if err != nil || h.ID != id || !h.Response {
		return a, false
	}
	a.RCode = strings.TrimPrefix(h.RCode.String(), "RCode")
	if err := p.SkipAllQuestions(); err != nil {
		return Answer{Error: err.Error()}, true
	}
	for {
		r, err := p.Answer()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return a, true
		}
		if err != nil {
			return Answer{Error: err.Error()}, true
		}
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			a.Addresses = append(a.Addresses, netip.AddrFrom4(body.A))
		case *dnsmessage.AAAAResource:
			a.Addresses = append(a.Addresses, netip.AddrFrom16(body.AAAA))
		}
	}
}
