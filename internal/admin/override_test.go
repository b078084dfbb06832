package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/health"
)

// over sends one request to the unix socket and returns what comes back.
func over(t *testing.T, socket, method, path, body string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://pharos"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestOverrideRoundTrip(t *testing.T) {
	t.Setenv("SUDO_USER", "anna")
	opts := testOptions(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	standing := OverrideStatus{
		Scope: "site/fra", Order: health.OrderDrain, By: "anna (unix)", Reason: "power",
		At: at, Until: at.Add(2 * time.Hour), Writer: "fra1", Keeper: "fra", Counter: 7,
	}
	want := &OverrideResult{
		Order: health.OrderDrain, Matched: []OverrideMatch{{Scope: "site/fra", Standing: &standing}, {Scope: "site/iad"}},
		Effects: []string{"web at fra is no longer answered"}, Breaks: []string{"web: no site left"}, Written: []OverrideStatus{standing},
		Acknowledged: 3, Of: 5, TookMS: 12.5,
	}
	var asked OverrideRequest
	opts.Override = func(_ context.Context, r OverrideRequest) (*OverrideResult, error) {
		asked = r
		return want, nil
	}
	opts.Overrides = func(cleared bool) *OverrideList {
		list := &OverrideList{Overrides: []OverrideStatus{standing}, Acknowledged: 4, Of: 5}
		if cleared {
			list.Overrides = append(list.Overrides, OverrideStatus{Scope: "site/iad", Writer: "iad1", Counter: 3})
		}
		return list
	}
	serve(t, opts)
	c := NewClient(opts.Socket)
	request := OverrideRequest{
		Scopes: []string{"site/*", "pool/web/fra"}, Order: health.OrderDrain, For: 2 * time.Hour,
		Reason: "power", Local: true, Force: true, DryRun: true,
	}
	got, err := c.Override(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" || !got.Majority() {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	request.By = "anna (unix)"
	if diff := cmp.Diff(request, asked); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if list, err := c.Overrides(t.Context(), false); err != nil || cmp.Diff(opts.Overrides(false), list) != "" {
		t.Errorf("standing: %+v, %v", list, err)
	}
	if list, err := c.Overrides(t.Context(), true); err != nil || cmp.Diff(opts.Overrides(true), list) != "" {
		t.Errorf("all: %+v, %v", list, err)
	}
}

func TestOverrideText(t *testing.T) {
	until := time.Date(2026, 3, 1, 14, 0, 0, 0, time.FixedZone("", 3600))
	for want, v := range map[string]health.Override{
		"drained by anna (unix): power, until 2026-03-01T13:00:00Z": {Order: health.OrderDrain, By: "anna (unix)", Reason: "power", Until: until},
		"taken down by anna": {Order: health.OrderDown, By: "anna"},
		"held up: test":      {Order: health.OrderUp, Reason: "test"},
		"cleared":            {},
	} {
		if got := NewOverrideStatus(v).Text(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestMajority(t *testing.T) {
	for _, tt := range []struct {
		have, of int
		want     bool
	}{{0, 0, false}, {0, 1, false}, {1, 1, true}, {1, 2, false}, {2, 3, true}, {2, 4, false}, {3, 5, true}} {
		r := OverrideResult{Acknowledged: tt.have, Of: tt.of}
		if got := r.Majority(); got != tt.want {
			t.Errorf("%d of %d: got %v", tt.have, tt.of, got)
		}
	}
}

// TestOverrideRefused: what is not wholly understood never reaches the node.
func TestOverrideRefused(t *testing.T) {
	opts := testOptions(t)
	calls := 0
	opts.Override = func(_ context.Context, r OverrideRequest) (*OverrideResult, error) {
		calls++
		if r.By != "somebody (unix)" {
			t.Errorf("by %q", r.By)
		}
		return nil, errors.New("prefix 192.0.2.0/24 would have no site")
	}
	serve(t, opts)
	for name, tt := range map[string]struct {
		body string
		want int
		say  string
	}{
		"nothing":              {"", 400, "request body"},
		"not JSON":             {"drain", 400, "request body"},
		"no scopes":            {`{"order":"drain"}`, 400, "none never means all"},
		"empty scopes":         {`{"scopes":[],"order":"drain"}`, 400, "none never means all"},
		"an empty scope":       {`{"scopes":[""],"order":"drain"}`, 400, "never means everything"},
		"everything":           {`{"scopes":["*"],"order":"drain"}`, 400, "begins with site/"},
		"many":                 {`{"scopes":["site/a"` + strings.Repeat(`,"site/a"`, MaxPatterns) + `],"order":"drain"}`, 400, "want 1 to 4096"},
		"no order":             {`{"scopes":["site/fra"]}`, 400, "order: missing"},
		"unknown order":        {`{"scopes":["site/fra"],"order":"stop"}`, 400, "not an order"},
		"unknown key":          {`{"scopes":["site/fra"],"order":"drain","dryrun":true}`, 400, "dryrun"},
		"two values":           {`{"scopes":["site/fra"],"order":"drain"}{"dry_run":true}`, 400, "more than one"},
		"no duration":          {`{"scopes":["site/fra"],"order":"drain","for":"2"}`, 400, "not a duration"},
		"negative":             {`{"scopes":["site/fra"],"order":"drain","for":"-2h"}`, 400, "want 1s to"},
		"clearing for a while": {`{"scopes":["site/fra"],"order":"none","for":"2h"}`, 400, "for good"},
		"control characters":   {`{"scopes":["site/fra"],"order":"drain","reason":"a\u001b[2J"}`, 400, "cannot be printed"},
		"a long name":          {`{"scopes":["site/fra"],"order":"drain","by":"` + strings.Repeat("a", 128) + `"}`, 400, "by of"},
		"large":                {`{"scopes":["site/fra"],"order":"drain","reason":"` + strings.Repeat("a", maxBody) + `"}`, 400, "too large"},
		"two mistakes":         {`{"scopes":["sites/fra"],"order":"stop"}`, 400, "not an order"},
	} {
		if code, text := over(t, opts.Socket, "POST", "/v1/overrides", tt.body); code != tt.want || !strings.Contains(text, tt.say) {
			t.Errorf("%s: got %d %q, want %d with %q", name, code, text, tt.want, tt.say)
		}
	}
	if calls != 0 {
		t.Errorf("%d of them reached the node", calls)
	}
	code, text := over(t, opts.Socket, "POST", "/v1/overrides", `{"scopes":["site/fra"],"order":"drain"}`)
	if code != 422 || !strings.Contains(text, "would have no site") || calls != 1 {
		t.Errorf("refused by the node: %d %q", code, text)
	}
}

func TestCheckRoundTrip(t *testing.T) {
	opts := testOptions(t)
	half := 50
	want := &CheckResult{
		Node: "a1", Matching: 2000, Targets: []TargetCheck{{
			Target: "web/fra/backend/10.0.1.10:80", Service: "web", Site: "fra", Address: netip.MustParseAddrPort("10.0.1.10:80"),
			Status: "down", Why: "probes agree", Down: 1, Abstain: 1, Override: "drained by anna",
			Observers: []Observation{
				{Node: "fra1", Site: "fra", Statement: "down", Fresh: true, AgeSeconds: 0.5, Evidence: &Evidence{Error: "connection refused", AgeSeconds: 1, LatencyMS: 0.3, Streak: 9, Weight: &half}},
				{Node: "fra2", Site: "fra", Statement: "none", AgeSeconds: -1, Abstains: "not heard", NoAnswer: true},
			},
		}},
	}
	var asked CheckRequest
	opts.Check = func(_ context.Context, r CheckRequest) (*CheckResult, error) {
		asked = r
		if r.Target == "nothing" {
			return nil, errors.New("no target matches")
		}
		return want, nil
	}
	serve(t, opts)
	c := NewClient(opts.Socket)
	request := CheckRequest{Target: "web/fra/*", Local: true}
	got, err := c.Check(t.Context(), request)
	if err != nil || asked != request {
		t.Fatalf("asked %+v, %v", asked, err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := c.Check(t.Context(), CheckRequest{}); err != nil || asked != (CheckRequest{}) {
		t.Errorf("all: %+v, %v", asked, err)
	}
	if _, err := c.Check(t.Context(), CheckRequest{Target: "nothing"}); err == nil || err.Error() != "no target matches" {
		t.Errorf("nothing: %v", err)
	}
	if code, text := over(t, opts.Socket, "GET", "/v1/check?target=", ""); code != 400 {
		t.Errorf("an empty pattern: %d %s", code, text)
	}
}

func TestMatchTarget(t *testing.T) {
	const target = "web/fra/backend/10.0.1.10:8080"
	for pattern, want := range map[string]bool{
		"":                               false,
		"web":                            true,
		"we":                             false,
		"w*":                             true,
		"*":                              true,
		"web/fra":                        true,
		"web/fra/*":                      true,
		"web/*/vip":                      false,
		"*/*/backend":                    true,
		target:                           true,
		"web/fra/backend/10.0.1.1?:8080": true,
		"web/fra/backend/10.0.1.10:80":   false,
		target + "/":                     false,
		"web/":                           false,
		"web/*/10.0.1.10:8080":           false,
	} {
		if got := MatchTarget(pattern, target); got != want {
			t.Errorf("%q: got %v", pattern, got)
		}
	}
}

func TestKeys(t *testing.T) {
	opts := testOptions(t)
	want := &KeyStatus{File: "gossip.key", Keys: []string{"01234567", "89abcdef"}, Members: []MemberKeys{{Name: "a1", Self: true, State: "present", Keys: []string{"01234567"}}}}
	var asked KeyChange
	calls := 0
	opts.Keys = func() *KeyStatus { return want }
	opts.ChangeKeys = func(k KeyChange) (*KeyStatus, error) {
		asked = k
		calls++
		return want, nil
	}
	serve(t, opts)
	c := NewClient(opts.Socket)
	if got, err := c.Keys(t.Context()); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("keys: %+v, %v", got, err)
	}
	for _, change := range []KeyChange{{Add: "c2VjcmV0"}, {Use: "01234567", Force: true}, {Remove: "89abcdef"}} {
		if got, err := c.ChangeKeys(t.Context(), change); err != nil || asked != change || cmp.Diff(want, got) != "" {
			t.Errorf("%+v: asked %+v, %v", change, asked, err)
		}
	}
	for _, change := range []KeyChange{{}, {Force: true}, {Add: "c2VjcmV0", Use: "01234567"}, {Use: "0123456"}, {Use: "0123456G"}, {Remove: "*"}} {
		_, err := c.ChangeKeys(t.Context(), change)
		if err == nil || calls != 3 {
			t.Errorf("%+v was accepted", change)
		}
		if change.Add != "" && strings.Contains(err.Error(), change.Add) {
			t.Errorf("the key is in the error: %v", err)
		}
	}
}

// TestAbsent: a node that lacks a function says so, and does not crash.
func TestAbsent(t *testing.T) {
	opts := testOptions(t)
	serve(t, opts)
	for _, call := range []string{"GET /v1/overrides", "POST /v1/overrides", "GET /v1/check", "GET /v1/keys", "POST /v1/keys"} {
		method, path, _ := strings.Cut(call, " ")
		if code, text := over(t, opts.Socket, method, path, "{}"); code != 501 || !strings.Contains(text, "this node has no") {
			t.Errorf("%s: %d %q", call, code, text)
		}
	}
}

func TestOverridesOverTCP(t *testing.T) {
	opts := testOptions(t)
	opts.Listen, opts.Token = netip.MustParseAddrPort("127.0.0.1:0"), testToken
	var by string
	opts.Override = func(_ context.Context, r OverrideRequest) (*OverrideResult, error) {
		by = r.By
		return &OverrideResult{}, nil
	}
	opts.Keys = func() *KeyStatus { return &KeyStatus{} }
	s := serve(t, opts)
	for _, tt := range []struct {
		method, path, token string
		want                int
	}{
		{"POST", "/v1/overrides", "", 401},
		{"GET", "/v1/overrides", "", 401},
		{"GET", "/v1/check", "", 401},
		{"GET", "/v1/keys", "", 401},
		{"POST", "/v1/keys", "", 401},
		{"GET", "/v1/keys", testToken, 200},
		{"POST", "/v1/overrides", testToken, 200},
		{"DELETE", "/v1/overrides", testToken, 405},
	} {
		req, err := http.NewRequest(tt.method, "http://"+s.Addr().String()+tt.path, strings.NewReader(`{"scopes":["site/fra"],"order":"up","by":"ci"}`))
		if err != nil {
			t.Fatal(err)
		}
		if tt.token != "" {
			req.Header.Set("Authorization", "Bearer "+tt.token)
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s %s: got %d, want %d", tt.method, tt.path, resp.StatusCode, tt.want)
		}
	}
	if by != "ci (tcp)" {
		t.Errorf("by %q", by)
	}
}
