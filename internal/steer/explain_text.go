package steer

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
)

// headWidth aligns the parts of the text: the longest head is "service".
const headWidth = 7

// Text returns the trace for people, as WriteTo writes it.
func (e *Explanation) Text() string {
	var b strings.Builder
	e.render(&b)
	return b.String()
}

// WriteTo writes the trace for people: client, policy, sites, answer.
func (e *Explanation) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, e.Text())
	return int64(n), err
}

func (e *Explanation) render(b *strings.Builder) {
	fmt.Fprintf(b, "%s %s\n", e.Name, e.Type)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	line := func(head, text string) { fmt.Fprintf(w, "%-*s\t%s\n", headWidth, head, text) }
	line("service", e.Service+e.serviceNote())
	line("client", e.Client.String())
	for i, step := range e.Steps {
		head := ""
		if i == 0 {
			head = "policy"
		}
		line(head, fmt.Sprintf("%d. %s", i+1, step))
	}
	w.Flush()
	e.renderSites(b)
	w = tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, r := range e.Routes {
		line("route", r.String())
	}
	for _, note := range e.Notes {
		line("note", note)
	}
	line("answer", e.answerText())
	line("ttl", fmt.Sprintf("%ds%s", e.TTL, parenthesis(e.TTLWhy)))
	line("scope", fmt.Sprintf("/%d%s", e.Scope, parenthesis(e.ScopeWhy)))
	line("plan", fmt.Sprintf("generation %d, config %s%s", e.Generation, e.Config, prefixed(", node ", e.Node)))
	w.Flush()
}

func (e *Explanation) serviceNote() string {
	var notes []string
	if e.Matched != "" {
		notes = append(notes, "by wildcard "+e.Matched)
	}
	if e.Anycast {
		notes = append(notes, "anycast: the network chooses the site")
	}
	return parenthesis(strings.Join(notes, "; "))
}

func (e *Explanation) renderSites(b *strings.Builder) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for i, s := range e.Sites {
		head := ""
		if i == 0 {
			head = "sites"
		}
		state := "out"
		switch {
		case s.Chosen && s.Share < 1:
			state = fmt.Sprintf("answer %.1f%%", 100*s.Share)
		case s.Chosen:
			state = "answer"
		case s.Eligible && e.Anycast:
			state = "serves"
		case s.Eligible:
			state = "standby"
		}
		why := s.Reason.String()
		if s.Detail != "" {
			why += "; " + s.Detail
		}
		fmt.Fprintf(w, "%-*s\t%s\t%s\t%s\n", headWidth, head, s.Site, state, why)
	}
	w.Flush()
}

func (e *Explanation) answerText() string {
	switch {
	case e.NoData != "":
		return "NODATA: " + e.NoData
	case e.FailOpen:
		return e.picked() + " (fail-open: no site is fit)"
	}
	return e.picked()
}

// picked lists what may be answered, with the shares if there are several.
func (e *Explanation) picked() string {
	var texts []string
	for _, s := range e.Sites {
		if s.Chosen && s.Share < 1 {
			texts = append(texts, fmt.Sprintf("%s (%.1f%%)", joined(s.Addresses), 100*s.Share))
		}
	}
	if len(texts) == 0 {
		return joined(e.Answer)
	}
	return strings.Join(texts, " or ")
}

// String returns the client in one line.
func (c Client) String() string {
	var place []string
	if c.Network != "" {
		place = append(place, "network "+c.Network)
	}
	if c.Country != "" {
		place = append(place, c.Country+prefixed("-", c.Region))
	}
	if c.Continent != "" {
		place = append(place, c.Continent)
	}
	if c.ASN != 0 {
		place = append(place, fmt.Sprintf("AS%d", c.ASN))
	}
	if len(place) == 0 {
		place = append(place, "place unknown")
	}
	text := strings.Join(place, ", ")
	if c.Source != "" {
		text = c.Source + " → " + text
	}
	if c.Data == "" {
		return text
	}
	data := c.Data
	if !c.Built.IsZero() {
		data += " of " + c.Built.UTC().Format("2006-01-02")
	}
	return text + parenthesis(data+prefixed(", ", c.Age)+suffixed(c.Age, " old")+prefixed(", for ", c.Prefix))
}

// String returns the step in one line: "geo: fra (same country) > iad, sin (elsewhere)".
func (s ExplainedStep) String() string {
	var groups []string
	for _, g := range s.Groups {
		groups = append(groups, strings.Join(g.Sites, ", ")+parenthesis(g.Value))
	}
	return s.Policy + prefixed(", ", s.Note) + ": " + strings.Join(groups, " > ")
}

// String returns the route in one line.
func (r ExplainedPath) String() string {
	if r.Announced {
		return fmt.Sprintf("%s announced by this node%s", r.Prefix, prefixed("; ", r.Order))
	}
	return fmt.Sprintf("%s not announced by this node: %s%s%s%s", r.Prefix, r.Reason, prefixed(", service ", r.Blame), prefixed(": ", r.Lacks), prefixed("; ", r.Order))
}

func joined(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

func parenthesis(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func suffixed(text, suffix string) string {
	if text == "" {
		return ""
	}
	return suffix
}
