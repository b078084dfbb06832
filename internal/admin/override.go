package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// MaxPatterns bounds the scope patterns of one request.
const MaxPatterns = health.MaxOverrides

// OverrideRequest orders something for every scope that a pattern names.
type OverrideRequest struct {
	// Scopes are patterns as health.MatchScopes takes them, 1 … MaxPatterns and each
	// well-formed. One that matches nothing must refuse the whole request.
	Scopes []string
	// Order is what to order; OrderNone clears.
	Order health.Order
	// For is how long, 1 s … health.MaxOverrideFor; 0 = until it is cleared.
	For time.Duration
	// By is who asks: the name that the caller gave, and "(unix)" or "(tcp)". Never
	// empty, at most health.MaxOverrideBy bytes; not proven.
	By     string
	Reason string
	// Local returns once this node holds the order on disk, without waiting for others.
	Local bool
	// Force gives an order that would break a minimum.
	Force bool
	// DryRun says what would change, and changes nothing.
	DryRun bool
}

// overrideBody is OverrideRequest as JSON.
type overrideBody struct {
	Scopes []string `json:"scopes"`
	Order  string   `json:"order"` // "drain", "down", "up" or "none"
	For    string   `json:"for,omitempty"`
	By     string   `json:"by,omitempty"`
	Reason string   `json:"reason,omitempty"`
	Local  bool     `json:"local,omitempty"`
	Force  bool     `json:"force,omitempty"`
	DryRun bool     `json:"dry_run,omitempty"`
}

// OverrideResult is what an OverrideRequest did, or would do.
type OverrideResult struct {
	DryRun bool         `json:"dry_run,omitempty"`
	Order  health.Order `json:"order"`
	// Matched are the scopes that the patterns name, sorted.
	Matched []OverrideMatch `json:"matched"`
	// Effects says what changes for users and routers, one line each; empty = nothing.
	Effects []string `json:"effects"`
	// Breaks says which minimums would be broken, one line each. Only a dry run or
	// a forced order returns them: otherwise they are the error.
	Breaks []string `json:"breaks,omitempty"`
	// Written are the orders as they stand now; none for a dry run.
	Written []OverrideStatus `json:"written,omitempty"`
	// Local: nobody else was waited for.
	Local bool `json:"local,omitempty"`
	// Durable: this node is one of those that hold the order on disk.
	Durable bool `json:"durable"`
	// Acknowledged of Of nodes hold the order on disk.
	Acknowledged int `json:"acknowledged"`
	Of           int `json:"of"`
	// TookMS is how long it took until then, in milliseconds.
	TookMS float64 `json:"took_ms"`
}

// Majority reports whether more than half of the nodes hold the order.
func (r *OverrideResult) Majority() bool { return 2*r.Acknowledged > r.Of }

// Held reports whether the order is where it was to be: on the disk of this node
// if it was local, of a majority otherwise.
func (r *OverrideResult) Held() bool { return r.Majority() || r.Local && r.Durable }

// OverrideMatch is one scope that a pattern names.
type OverrideMatch struct {
	Scope string `json:"scope"`
	// Standing is what stands there before; nil = nothing.
	Standing *OverrideStatus `json:"standing,omitempty"`
}

// OverrideStatus is one override.
type OverrideStatus struct {
	Scope   string       `json:"scope"`
	Order   health.Order `json:"order"`
	By      string       `json:"by"`
	Reason  string       `json:"reason,omitempty"`
	At      time.Time    `json:"at,omitzero"`
	Until   time.Time    `json:"until,omitzero"`
	Writer  string       `json:"writer"`
	Keeper  string       `json:"keeper,omitempty"`
	Counter uint64       `json:"counter"`
	// Unknown: this node's configuration has no such thing (any more); the order
	// does nothing here.
	Unknown bool `json:"unknown,omitempty"`
}

// NewOverrideStatus returns v as it is shown.
func NewOverrideStatus(v health.Override) OverrideStatus {
	return OverrideStatus{
		Scope: v.Scope.String(), Order: v.Order, By: v.By, Reason: v.Reason, At: v.At, Until: v.Until,
		Writer: v.Writer, Keeper: v.Keeper, Counter: v.Counter,
	}
}

// Text returns "drained by anna (unix): power, until 2026-03-01T12:00:00Z", without
// what is not known.
func (o OverrideStatus) Text() string {
	var b strings.Builder
	switch o.Order {
	case health.OrderDrain:
		b.WriteString("drained")
	case health.OrderDown:
		b.WriteString("taken down")
	case health.OrderUp:
		b.WriteString("held up")
	default:
		b.WriteString("cleared")
	}
	if o.By != "" {
		b.WriteString(" by " + o.By)
	}
	if o.Reason != "" {
		b.WriteString(": " + o.Reason)
	}
	if !o.Until.IsZero() {
		b.WriteString(", until " + o.Until.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// OverrideList is what stands.
type OverrideList struct {
	// Overrides are sorted by scope.
	Overrides []OverrideStatus `json:"overrides"`
	// Acknowledged of Of nodes hold exactly this set on disk.
	Acknowledged int `json:"acknowledged"`
	Of           int `json:"of"`
}

// override gives an order. via says how the caller came.
func (s *Server) override(w http.ResponseWriter, r *http.Request, via string) {
	if s.opts.Override == nil {
		absent(w, "overrides")
		return
	}
	var body overrideBody
	if err := decode(w, r, &body); err != nil {
		badRequest(w, err)
		return
	}
	request, err := body.request(via)
	if err != nil {
		badRequest(w, err)
		return
	}
	result, err := s.opts.Override(r.Context(), request)
	answer(w, result, err)
}

// request checks all that can be told without knowing the configuration.
func (b *overrideBody) request(via string) (OverrideRequest, error) {
	r := OverrideRequest{Scopes: b.Scopes, Reason: b.Reason, Local: b.Local, Force: b.Force, DryRun: b.DryRun}
	if len(b.Scopes) == 0 || len(b.Scopes) > MaxPatterns {
		return r, fmt.Errorf("scopes: %d given, want 1 to %d; none never means all", len(b.Scopes), MaxPatterns)
	}
	var errs []error
	for _, pattern := range b.Scopes {
		errs = append(errs, health.CheckScopePattern(pattern))
	}
	var err error
	if b.Order == "" {
		err = errors.New("order: missing; write drain, down, up or none")
	} else {
		r.Order, err = health.ParseOrder(b.Order)
	}
	errs = append(errs, err)
	if b.For != "" {
		errs = append(errs, r.setFor(b.For))
	}
	by := b.By
	if by == "" {
		by = "somebody"
	}
	r.By = by + " (" + via + ")"
	return r, errors.Join(append(errs, health.CheckOverrideTexts(r.By, r.Reason))...)
}

func (r *OverrideRequest) setFor(text string) error {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return fmt.Errorf("for: %q is not a duration, like 30m or 2h", text)
	case r.Order == health.OrderNone:
		return errors.New("for: clearing is for good")
	}
	r.For = d
	return health.CheckOverrideFor(d)
}

// overrides lists what stands.
func (s *Server) overrides(w http.ResponseWriter, r *http.Request) {
	if s.opts.Overrides == nil {
		absent(w, "overrides")
		return
	}
	reply(w, s.opts.Overrides(r.URL.Query().Get("all") == "true"))
}
