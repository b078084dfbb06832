package node

import (
	"context"
	"encoding/json"
	"strings"
	"time"
	"unicode"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health/probe"
)

// What two nodes say to each other when one is asked for the evidence behind
// the verdicts. Reports carry two bits a target; the error, the latency and the
// time stay with whoever probed, until somebody asks.

const (
	// maxEvidence is the longest answer, in bytes: what the cluster tier carries.
	// What does not fit is left out.
	maxEvidence = 64 << 10
	// maxEvidencePattern is the longest pattern that is looked at, in bytes.
	maxEvidencePattern = 512
	// maxEvidenceError is the longest error text that is passed on, in bytes.
	maxEvidenceError = 200
	// evidenceWithin bounds the wait for the others.
	evidenceWithin = time.Second
)

// A question names targets by a pattern, as `pharos check` takes it; "" = all.
type question struct {
	Pattern string `json:"pattern"`
	// Routes asks for what the node's routers send of our prefixes instead.
	Routes bool `json:"routes,omitempty"`
	// Drains asks how far what is drained has come there.
	Drains bool `json:"drains,omitempty"`
}

// A finding is what a node's own probes hold of one target.
type finding struct {
	Target string `json:"target"`
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
	Code   int    `json:"code,omitempty"`
	// AgeMS is how long ago the newest probe ended: no clock is compared.
	AgeMS     int64 `json:"age_ms"`
	LatencyUS int64 `json:"latency_us"`
	Streak    int   `json:"streak"`
	Weight    uint8 `json:"weight"`
	Flapping  bool  `json:"flapping,omitempty"`
}

// answer is what this node says to another's question; nil to nonsense.
func (n *Node) answer(_ string, raw []byte) []byte {
	var q question
	if json.Unmarshal(raw, &q) != nil || len(q.Pattern) > maxEvidencePattern {
		return nil
	}
	if q.Routes {
		return encodeOutlook(n.outlook())
	}
	if q.Drains {
		return encodeDrains(n.drainAnswer())
	}
	return encodeFindings(n.findings(q.Pattern))
}

// encodeFindings returns a list of as many as fit into an answer.
func encodeFindings(all []finding) []byte {
	out := []byte{'['}
	for _, f := range all {
		one, err := json.Marshal(f)
		if err != nil || len(out)+len(one)+len(",]") > maxEvidence {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, one...)
	}
	return append(out, ']')
}

// findings are this node's own on the targets that match.
func (n *Node) findings(pattern string) []finding {
	now := time.Now()
	out := []finding{}
	for _, s := range n.runner.States(nil) {
		if matches(pattern, s.Target.String()) {
			out = append(out, findingOf(s, now))
		}
	}
	return out
}

// matches reports whether a pattern, "" for all, names a target.
func matches(pattern, target string) bool {
	return pattern == "" || admin.MatchTarget(pattern, target)
}

func findingOf(s probe.State, now time.Time) finding {
	f := finding{
		Target: s.Target.String(), Status: s.Status.String(), Code: s.Last.Code, AgeMS: -1,
		LatencyUS: s.Last.Latency.Microseconds(), Streak: s.Streak, Weight: s.Weight, Flapping: s.Flapping,
	}
	f.Error = onOneLine(s.Last.Err)
	if !s.Last.At.IsZero() {
		f.AgeMS = now.Sub(s.Last.At).Milliseconds()
	}
	return f
}

// onOneLine returns the beginning of a text without what would not show as what
// it is: it ends on the operator's terminal.
func onOneLine(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxEvidenceError)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, s)
}

// ask collects the findings of other nodes on the targets that match, by node;
// who does not answer in time is missing.
func (n *Node) ask(ctx context.Context, nodes []string, pattern string) map[string]map[string]finding {
	out := map[string]map[string]finding{}
	raw, err := json.Marshal(question{Pattern: pattern})
	if err != nil || len(nodes) == 0 {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, evidenceWithin)
	defer cancel()
	for node, reply := range n.gossip.Ask(ctx, nodes, raw) {
		if all, ok := parseFindings(reply); ok {
			out[node] = byTarget(all)
		}
	}
	return out
}

// maxEvidenceTime bounds ages and latencies that others name.
const maxEvidenceTime = 24 * time.Hour

// parseFindings reads an answer; ok is false if it is none. What is out of range
// in it is brought into it: it is only shown.
func parseFindings(reply []byte) (all []finding, ok bool) {
	if json.Unmarshal(reply, &all) != nil {
		return nil, false
	}
	for i := range all {
		f := &all[i]
		f.Error = onOneLine(f.Error)
		f.AgeMS = min(max(f.AgeMS, -1), maxEvidenceTime.Milliseconds())
		f.LatencyUS = min(max(f.LatencyUS, 0), maxEvidenceTime.Microseconds())
		f.Weight = min(f.Weight, fullWeight)
	}
	return all, true
}

func byTarget(all []finding) map[string]finding {
	out := make(map[string]finding, len(all))
	for _, f := range all {
		out[f.Target] = f
	}
	return out
}
