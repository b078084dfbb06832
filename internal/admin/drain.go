package admin

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DrainStatus is how far something has come that was ordered out gently, at one node, or is on its way back.
type DrainStatus struct {
	Node string `json:"node"`
	Site string `json:"site"`
	// Scope is what the order is on; "" on the way back.
	Scope string `json:"scope,omitempty"`
	// What is taken out: "prefix 198.18.0.0/24", "service web", "backend 10.0.1.10:8080 of web".
	What string `json:"what"`
	// Stage is "unanswered", "depreferred", "waiting", "finishing", "done" or "returning".
	Stage string `json:"stage"`
	// Why says it in words.
	Why string `json:"why"`
	// LeftMS is how long the stage still lasts at most; 0 = it does not go by time.
	LeftMS int64 `json:"left_ms,omitempty"`
	// Open counts the connections that it waits for, or that are left.
	Open int `json:"open,omitempty"`
}

// StageDone is the last stage of a drain, StageReturning that of what comes back.
const (
	StageDone      = "done"
	StageReturning = "returning"
)

// Text is the stage for people: what, then how long or how many.
func (d DrainStatus) Text() string {
	text := d.Why
	if d.Open > 0 && d.Stage == StageDone {
		text += ", " + connections(d.Open) + " left to end by themselves"
	} else if d.Open > 0 {
		text += ", " + connections(d.Open) + " open"
	}
	if left := time.Duration(d.LeftMS) * time.Millisecond; left > 0 {
		text += ", at most " + left.Round(time.Second).String() + " left"
	}
	return text
}

func connections(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return strconv.Itoa(n) + " connections"
}

// DrainList is what all nodes say of what is drained.
type DrainList struct {
	// Drains are sorted by node and what.
	Drains []DrainStatus `json:"drains"`
	// Silent are the nodes that did not answer, Behind those that do not hold the same orders yet,
	// or have more to say than fits.
	Silent []string `json:"silent"`
	Behind []string `json:"behind"`
}

// Sort puts the list in order.
func (l *DrainList) Sort() {
	slices.SortFunc(l.Drains, func(a, b DrainStatus) int {
		return strings.Compare(a.Node+"\x00"+a.What, b.Node+"\x00"+b.What)
	})
	slices.Sort(l.Silent)
	slices.Sort(l.Behind)
}

// Of returns what orders on these scopes do, in the order of the list.
func (l *DrainList) Of(scopes []string) (out []DrainStatus) {
	for _, d := range l.Drains {
		if slices.Contains(scopes, d.Scope) {
			out = append(out, d)
		}
	}
	return out
}

// drains asks all nodes.
func (s *Server) drains(w http.ResponseWriter, r *http.Request) {
	if s.opts.Drains == nil {
		absent(w, "drains")
		return
	}
	reply(w, s.opts.Drains(r.Context()))
}

// Drains returns how far what is drained has come, at every node.
func (c *Client) Drains(ctx context.Context) (*DrainList, error) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	var out DrainList
	return &out, c.call(ctx, http.MethodGet, "/v1/drains", nil, &out)
}
