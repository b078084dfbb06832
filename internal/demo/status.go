package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
)

// Status is what the demo sees: its own parts, and what the fleet answers.
type Status struct {
	Sites   []SiteStatus   `json:"sites"`
	Clients []ClientStatus `json:"clients"`
}

// SiteStatus is one site.
type SiteStatus struct {
	Site     string          `json:"site"`
	Node     string          `json:"node"`
	PID      int             `json:"pid"`   // 0 = not running
	State    string          `json:"state"` // "healthy", or what is wrong
	VIP      string          `json:"vip"`
	Backends []BackendStatus `json:"backends"`
	// Session and Route are what the upstream router sees.
	Session string `json:"session"`
	Route   bool   `json:"route"`
}

// BackendStatus is one backend of the demo.
type BackendStatus struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Up      bool   `json:"up"`
}

// ClientStatus is what clients of one network are answered.
type ClientStatus struct {
	Where  string `json:"where"`
	Prefix string `json:"prefix"`
	Answer string `json:"answer"` // VIPs, or the error
	Site   string `json:"site"`
}

const askWithin = 2 * time.Second

// Status asks every part.
func (d *Demo) Status(ctx context.Context) *Status {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	st := &Status{}
	own := d.askAll(ctx)
	var live *admin.Client
	for i, s := range sites {
		row := SiteStatus{Site: s.name, Node: s.node(), VIP: s.vip().String(), Route: d.routeSeen(i), Session: "none", State: "node not running"}
		for j, b := range d.backends[i] {
			row.Backends = append(row.Backends, BackendStatus{s.backends[j], s.backend(j).String(), b.up()})
		}
		for _, session := range d.routers[i].Sessions() {
			row.Session = session.State
		}
		if pid, ok := d.nodes[i].pid(); ok {
			row.PID, row.State = pid, "does not answer"
			if own[i] != nil {
				row.State = siteState(own[i])
				live = admin.NewClient(d.nodes[i].socket())
			}
		}
		st.Sites = append(st.Sites, row)
	}
	for _, s := range sites {
		st.Clients = append(st.Clients, ask(ctx, live, s))
	}
	return st
}

// askAll asks every node at once; nil for one that does not answer in time, so
// that a hung node does not hide the others.
func (d *Demo) askAll(ctx context.Context) []*admin.Status {
	ctx, cancel := context.WithTimeout(ctx, askWithin/2)
	defer cancel()
	out := make([]*admin.Status, len(sites))
	var wg sync.WaitGroup
	for i, p := range d.nodes {
		wg.Go(func() {
			if st, err := admin.NewClient(p.socket()).Status(ctx); err == nil {
				out[i] = st
			}
		})
	}
	wg.Wait()
	return out
}

// siteState is the site's own view in a few words.
func siteState(own *admin.Status) string {
	if own.State != "serving" {
		return own.State
	}
	for _, svc := range own.Services {
		for _, site := range svc.Sites {
			if site.Site == own.Site && !site.Eligible {
				return site.Why.String()
			}
		}
	}
	return "serving"
}

func ask(ctx context.Context, live *admin.Client, s stageSite) ClientStatus {
	row := ClientStatus{Where: s.country, Prefix: s.client.String(), Answer: "no node is running"}
	if live == nil {
		return row
	}
	e, err := live.Explain(ctx, admin.ExplainRequest{Name: steeredName, From: s.client.Addr()})
	if err != nil {
		row.Answer = err.Error()
		return row
	}
	row.Answer = strings.Trim(fmt.Sprint(e.Answer), "[]")
	for _, other := range sites {
		if row.Answer == other.vip().Addr().String() {
			row.Site = other.name
		}
	}
	return row
}

// Text is the status for people.
func (st *Status) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SITE\tNODE\tBACKENDS\tVIP\tROUTER SEES\tSTATE")
	for _, s := range st.Sites {
		up := 0
		for _, x := range s.Backends {
			if x.Up {
				up++
			}
		}
		node, route := s.Node+" down", "no route (session "+s.Session+")"
		if s.PID != 0 {
			node = fmt.Sprintf("%s pid %d", s.Node, s.PID)
		}
		if s.Route {
			route = routeText
		}
		fmt.Fprintf(w, "%s\t%s\t%d of %d up\t%s\t%s\t%s\n", s.Site, node, up, len(s.Backends), s.VIP, route, s.State)
	}
	fmt.Fprintln(w, "\nCLIENTS IN\tARE ANSWERED\tSITE")
	for _, c := range st.Clients {
		fmt.Fprintf(w, "%s (%s)\t%s\t%s\n", c.Where, c.Prefix, c.Answer, c.Site)
	}
	w.Flush()
	return b.String()
}

// screen is the first thing the user sees.
func (d *Demo) screen() string {
	p, dns := d.opts.Program, dnsAddress
	var b strings.Builder
	fmt.Fprintf(&b, "pharos demo: three sites on this machine, up in %s\n\n", time.Since(d.started).Round(100*time.Millisecond))
	b.WriteString(d.Status(context.Background()).Text())
	fmt.Fprintf(&b, `
Try, in a second terminal:
  dig @%[1]s -p %[2]d www.demo.test +short +subnet=46.4.0.0/24      # a client in Germany
  dig @%[1]s -p %[2]d www.demo.test +short +subnet=8.8.8.0/24       # in the USA
  dig @%[1]s -p %[2]d www.demo.test +short +subnet=203.116.0.0/24   # in Singapore
  curl http://127.1.1.80:8080/                    # the site behind an answer
  %[3]s demo break fra       # its backends crash; or: fra-b1 (one of them), fra1 (kill -9 the node)
  %[3]s explain www.demo.test --from 46.4.0.1
  %[3]s demo heal            # all is well again
  %[3]s demo status
  %[3]s status               # what a node knows
Logs and the configuration are in %[4]s. Ctrl-C or `+"`%[3]s demo stop`"+` ends it all.

`, dns.Addr(), dns.Port(), p, d.folder.path)
	return b.String()
}
