package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pharos-lb/pharos/internal/config"
	"github.com/pharos-lb/pharos/internal/steer"
)

const testToken = "0123456789abcdef"

// testOptions answer with fixed values.
func testOptions(t *testing.T) Options {
	t.Helper()
	return Options{
		Socket: filepath.Join(t.TempDir(), "a.sock"),
		Status: func() *Status {
			return &Status{
				Node: "a1", State: "serving", Degraded: []string{},
				Services: []ServiceStatus{{Name: "web", Sites: []SiteStatus{{Site: "a", Why: steer.ReasonBackendsDown}}}},
			}
		},
		Explain: func(r ExplainRequest) (*steer.Explanation, error) {
			if r.Name != "www.t.test" {
				return nil, errors.New("no such name")
			}
			return &steer.Explanation{Name: r.Name, Answer: []netip.Addr{r.From}, NoData: strings.Join(r.Down, "+")}, nil
		},
		Reload: func(_ context.Context, allow Allowed) (*ReloadResult, error) {
			if !allow.Withdraw {
				return nil, config.Errors{{File: "x.yaml", Line: 3, Column: 5, Path: "a.b", Message: "is wrong", Source: "  a: b"}}
			}
			return &ReloadResult{Hash: "abc", Changes: []string{"added service web"}}, nil
		},
		Ready:    func() error { return nil },
		Gatherer: prometheus.NewRegistry(),
		Log:      slog.New(slog.DiscardHandler),
	}
}

func serve(t *testing.T, opts Options) *Server {
	t.Helper()
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		s.Close()
	})
	return s
}

func TestClientRoundTrip(t *testing.T) {
	opts := testOptions(t)
	serve(t, opts)
	c := NewClient(opts.Socket)
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(opts.Status(), got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	e, err := c.Explain(t.Context(), ExplainRequest{Name: "www.t.test", From: netip.MustParseAddr("2001:db8::1"), Down: []string{"a", "b"}})
	if err != nil || e.Answer[0].String() != "2001:db8::1" || e.NoData != "a+b" {
		t.Errorf("explain: got %+v, %v", e, err)
	}
	if _, err := c.Explain(t.Context(), ExplainRequest{Name: "x", From: netip.IPv6Loopback()}); err == nil || err.Error() != "no such name" {
		t.Errorf("explain of an unknown name: got %v", err)
	}
	if _, err := c.Reload(t.Context(), Allowed{Remove: true}); err == nil || !strings.Contains(err.Error(), "x.yaml:3:5") || !strings.Contains(err.Error(), "^") {
		t.Errorf("a refused reload must show each mistake with its place and caret, got %v", err)
	}
	if r, err := c.Reload(t.Context(), Allowed{Remove: true, Withdraw: true}); err != nil || r.Hash != "abc" {
		t.Errorf("reload: got %+v, %v", r, err)
	}
}

func TestClientWithoutNode(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none.sock")).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no node is running") {
		t.Errorf("got %v", err)
	}
}

func TestSocketOfARunningNodeIsKept(t *testing.T) {
	opts := testOptions(t)
	serve(t, opts)
	if _, err := New(opts); err == nil || !strings.Contains(err.Error(), "another pharos answers on it") {
		t.Errorf("second server: got %v", err)
	}
	if _, err := NewClient(opts.Socket).Status(t.Context()); err != nil {
		t.Errorf("the first one suffered: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	opts := testOptions(t)
	l, err := net.Listen("unix", opts.Socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after kill -9
	l.Close()
	serve(t, opts)
	if _, err := NewClient(opts.Socket).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOrdinaryFileIsNotRemoved(t *testing.T) {
	opts := testOptions(t)
	if err := os.WriteFile(opts.Socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(opts); err == nil {
		t.Error("a file in the way was accepted")
	}
	if data, err := os.ReadFile(opts.Socket); err != nil || string(data) != "precious" {
		t.Errorf("the file was touched: %q, %v", data, err)
	}
}

func TestTCPNeedsTheToken(t *testing.T) {
	opts := testOptions(t)
	opts.Listen, opts.Token = netip.MustParseAddrPort("127.0.0.1:0"), testToken
	s := serve(t, opts)
	tests := []struct {
		name, method, path, auth string
		want                     int
	}{
		{"status without", "GET", "/v1/status", "", 401},
		{"status with a wrong one", "GET", "/v1/status", "Bearer 0123456789abcdee", 401},
		{"status with a part", "GET", "/v1/status", "Bearer 0123", 401},
		{"status with it", "GET", "/v1/status", "Bearer " + testToken, 200},
		{"status with it, not as a bearer", "GET", "/v1/status", testToken, 401},
		{"reload without", "POST", "/v1/reload?allow_remove=true", "", 401},
		{"reload by GET", "GET", "/v1/reload", "Bearer " + testToken, 405},
		{"a path that only looks open", "GET", "/livez/../v1/status", "", 401},
		{"livez is open", "GET", "/livez", "", 200},
		{"readyz is open", "GET", "/readyz", "", 200},
		{"metrics without", "GET", "/metrics", "", 401},
		{"metrics with it", "GET", "/metrics", "Bearer " + testToken, 200},
		{"bad address", "GET", "/v1/explain?name=www.t.test&from=here", "Bearer " + testToken, 400},
		{"bad type", "GET", "/v1/explain?name=www.t.test&from=::1&type=MX", "Bearer " + testToken, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequest(tt.method, "http://"+s.Addr().String()+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			path, query, _ := strings.Cut(tt.path, "?")
			req.URL.Path, req.URL.RawQuery = path, query
			if tt.auth != "" {
				req.Header.Set("Authorization", tt.auth)
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("got %d, want %d", resp.StatusCode, tt.want)
			}
		})
	}
}

func TestTCPWithoutATokenIsRefused(t *testing.T) {
	opts := testOptions(t)
	opts.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	if _, err := New(opts); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestReadyzSaysWhyNot(t *testing.T) {
	opts := testOptions(t)
	opts.Ready = func() error { return errors.New("starting") }
	serve(t, opts)
	var dialer net.Dialer
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", opts.Socket)
	}}}
	resp, err := client.Get("http://pharos/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 503 || !strings.Contains(string(body), "starting") {
		t.Errorf("got %d %s, want 503 with the reason", resp.StatusCode, body)
	}
}
