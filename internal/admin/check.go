package admin

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// MaxCheckTargets is how many targets one check shows.
const MaxCheckTargets = 1000

// CheckRequest asks who says what of some targets.
type CheckRequest struct {
	// Target is a pattern as MatchTarget takes it; "" = all, which is only read.
	Target string
	// Local does not ask the other nodes for their evidence.
	Local bool
}

// CheckResult is the matrix of health opinions: targets × observers.
type CheckResult struct {
	// Node is who was asked.
	Node string `json:"node"`
	// Targets are those that match, sorted, at most MaxCheckTargets.
	Targets []TargetCheck `json:"targets"`
	// Matching is how many match; more than Targets means that the rest is cut off.
	Matching int `json:"matching"`
	// Local: only this node's own evidence is shown.
	Local bool `json:"local,omitempty"`
}

// TargetCheck is one target with everybody's opinion.
type TargetCheck struct {
	Target  string         `json:"target"` // health.Target.String
	Service string         `json:"service"`
	Site    string         `json:"site"`
	Address netip.AddrPort `json:"address"`
	// Status is the verdict, Why its reason, Up, Down and Abstain the votes behind it.
	Status  string    `json:"status"`
	Why     string    `json:"why"`
	Since   time.Time `json:"since,omitzero"`
	Up      int       `json:"up"`
	Down    int       `json:"down"`
	Abstain int       `json:"abstain"`
	// Override is the order that stands above the verdict, as OverrideStatus.Text
	// says it; "" = none.
	Override string `json:"override,omitempty"`
	// Observers are the nodes that have a say on the target, sorted by site and name.
	Observers []Observation `json:"observers"`
}

// Observation is what one node says of one target.
type Observation struct {
	Node string `json:"node"`
	Site string `json:"site"`
	// Statement is that of its newest report: "up", "down", "unknown" or "none".
	Statement string `json:"statement"`
	// Fresh: the report is young enough to vote. AgeSeconds is its age; negative:
	// never heard.
	Fresh      bool    `json:"fresh"`
	AgeSeconds float64 `json:"age_seconds"`
	// Abstains is why its statement is not counted; "" = it votes.
	Abstains string `json:"abstains,omitempty"`
	// Evidence is what its newest probe found; nil if it has not probed the target,
	// was not asked or did not answer.
	Evidence *Evidence `json:"evidence,omitempty"`
	// NoAnswer: it was asked for its evidence and did not answer in time.
	NoAnswer bool `json:"no_answer,omitempty"`
}

// Evidence is the newest probe of one observer.
type Evidence struct {
	// Error is what the probe failed with; "" = it succeeded.
	Error string `json:"error,omitempty"`
	// Code is the status that the protocol gave; 0 = none.
	Code int `json:"code,omitempty"`
	// AgeSeconds is how long ago it ended, by the observer's clock alone.
	AgeSeconds float64 `json:"age_seconds"`
	LatencyMS  float64 `json:"latency_ms"`
	// Streak is how many probes in a row ended alike.
	Streak int `json:"streak"`
	// Weight is what the target gave itself, in percent; nil = nothing.
	Weight *int `json:"weight,omitempty"`
	// Flapping: held down because it changed too often.
	Flapping bool `json:"flapping,omitempty"`
}

// MatchTarget reports whether pattern names target, as health.Target.String
// writes it ("web/fra/backend/10.0.1.10:8080"). "*" and "?" stay within one part;
// a pattern of fewer parts names all that begins so: "web", "web/fra",
// "*/*/vip".
func MatchTarget(pattern, target string) bool {
	parts := strings.Split(target, "/")
	if n := strings.Count(pattern, "/") + 1; n < len(parts) {
		parts = parts[:n]
	}
	return pattern != "" && health.MatchGlob(pattern, strings.Join(parts, "/"))
}

func (s *Server) check(w http.ResponseWriter, r *http.Request) {
	if s.opts.Check == nil {
		absent(w, "health opinions to show")
		return
	}
	q := r.URL.Query()
	if q.Has("target") && q.Get("target") == "" {
		badRequest(w, errors.New("target: empty; leave it out for all targets"))
		return
	}
	result, err := s.opts.Check(r.Context(), CheckRequest{Target: q.Get("target"), Local: q.Get("local") == "true"})
	answer(w, result, err)
}
