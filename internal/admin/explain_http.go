package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"text/tabwriter"
)

// An HTTPQuestion is a request to explain.
type HTTPQuestion struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	// Headers are "Name: value" lines.
	Headers []string `json:"headers,omitempty"`
	// Client is who connects.
	Client netip.Addr `json:"client"`
	// Listener is the bind of the listener meant, where several are possible; "" = the first.
	Listener string `json:"listener,omitempty"`
}

// An HTTPExplanation is what a node does with a request, and why.
type HTTPExplanation struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	Node   string `json:"node"`
	// Listener takes the request; Others would as well, on other addresses.
	Listener string   `json:"listener"`
	Others   []string `json:"others,omitempty"`
	// Client is who asks, as far as it is believed.
	Client    netip.Addr `json:"client"`
	ClientWhy string     `json:"client_why"`
	// Routes in the order of the file.
	Routes []ExplainedHTTPRoute `json:"routes"`
	// Result in one line, like "service web" or "404 no route for this request".
	Result string `json:"result"`
	// Service, Policy and Backends of a request that reaches one.
	Service  string             `json:"service,omitempty"`
	Policy   string             `json:"policy,omitempty"`
	Backends []ExplainedBackend `json:"backends,omitempty"`
	// Upstream is the head that the backend gets.
	Upstream []string `json:"upstream,omitempty"`
}

// An ExplainedHTTPRoute is what one route says to the request.
type ExplainedHTTPRoute struct {
	Number int    `json:"number"` // from 1
	Title  string `json:"title"`
	Taken  bool   `json:"taken"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// An ExplainedBackend is one backend of the service at this site.
type ExplainedBackend struct {
	Address   netip.AddrPort `json:"address"`
	Candidate bool           `json:"candidate"`
	Weight    int            `json:"weight"`
	Why       string         `json:"why"`
}

// maxShownRoutes is how many routes that do not take the request the text shows.
const maxShownRoutes = 20

// Text returns the trace for people.
func (e *HTTPExplanation) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", e.Method, e.URL)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(head string, cells ...string) {
		fmt.Fprintf(w, "%-8s\t%s\n", head, strings.Join(cells, "\t"))
	}
	line("listener", e.Listener)
	for _, o := range e.Others {
		line("", o)
	}
	line("client", fmt.Sprintf("%s (%s)", e.Client, e.ClientWhy))
	w.Flush()
	head, left := "routes", 0
	for _, r := range e.Routes {
		if !r.Taken && r.Number > maxShownRoutes {
			left++
			continue
		}
		state := "no"
		if r.Taken {
			state = "TAKEN"
		}
		detail := r.Reason + ": " + r.Detail
		if r.Taken {
			detail = r.Detail
		}
		line(head, fmt.Sprintf("%d. %s", r.Number, r.Title), state, detail)
		head = ""
	}
	if left > 0 {
		line("", fmt.Sprintf("and %d more that do not", left), "", "")
	}
	w.Flush()
	line("result", e.Result)
	if e.Policy != "" {
		line("policy", e.Policy)
	}
	w.Flush()
	head = "backends"
	for _, be := range e.Backends {
		state := "out"
		if be.Candidate {
			state = "candidate"
		}
		line(head, be.Address.String(), state, be.Why)
		head = ""
	}
	w.Flush()
	head = "upstream"
	for _, l := range e.Upstream {
		line(head, l)
		head = ""
	}
	line("node", e.Node)
	w.Flush()
	return b.String()
}

// ExplainHTTP traces one request on the running node.
func (c *Client) ExplainHTTP(ctx context.Context, q HTTPQuestion) (*HTTPExplanation, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var out HTTPExplanation
	return &out, c.post(ctx, "/v1/explain/http", q, &out)
}

func (s *Server) explainHTTP(w http.ResponseWriter, r *http.Request) {
	if s.opts.ExplainHTTP == nil {
		http.Error(w, "not offered here", http.StatusNotImplemented)
		return
	}
	var q HTTPQuestion
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&q); err != nil {
		http.Error(w, "body: "+err.Error(), http.StatusBadRequest)
		return
	}
	e, err := s.opts.ExplainHTTP(q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	reply(w, e)
}
