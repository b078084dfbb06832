package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strings"
	"syscall"
	"time"

	"github.com/pharos-lb/pharos/internal/steer"
)

// A Client asks one node over its unix socket. Safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// maxReply bounds what a client reads of one answer.
const maxReply = 256 << 20

// NewClient returns a client of the node behind socket; it connects with the
// first call.
func NewClient(socket string) *Client {
	return &Client{
		socket: socket,
		http: &http.Client{
			Transport: &http.Transport{
				DisableKeepAlives: true,
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, "unix", socket)
				},
			},
		},
	}
}

// Bounds of one answer: a node that hangs must not hang its tools. A reload
// waits for verdicts.
const (
	answerWithin = 5 * time.Second
	reloadWithin = time.Minute
	// An order waits for a majority of the nodes, a check for every observer.
	overrideWithin = 20 * time.Second
	checkWithin    = 15 * time.Second
)

// Alive reports whether the node answers at all.
func (c *Client) Alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pharos/livez", nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Status returns the node's state.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var out Status
	return &out, c.call(ctx, http.MethodGet, "/v1/status", nil, &out)
}

// Explain traces one answer on the running node.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (*steer.Explanation, error) {
	kind := "A"
	if r.IPv6 {
		kind = "AAAA"
	}
	q := url.Values{"name": {r.Name}, "type": {kind}, "from": {r.From.String()}, "down": r.Down}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var out steer.Explanation
	return &out, c.call(ctx, http.MethodGet, "/v1/explain", q, &out)
}

// Override gives an order, or says what it would do (DryRun). If By is empty, the
// user who called is named: $SUDO_USER, else $USER, else the process's account.
func (c *Client) Override(ctx context.Context, r OverrideRequest) (*OverrideResult, error) {
	body := overrideBody{
		Scopes: r.Scopes, Order: r.Order.String(), By: r.By, Reason: r.Reason,
		Local: r.Local, Force: r.Force, DryRun: r.DryRun,
	}
	if r.For != 0 {
		body.For = r.For.String()
	}
	if body.By == "" {
		body.By = cmp.Or(os.Getenv("SUDO_USER"), os.Getenv("USER"), accountName())
	}
	ctx, cancel := context.WithTimeout(ctx, overrideWithin)
	defer cancel()
	var out OverrideResult
	return &out, c.post(ctx, "/v1/overrides", body, &out)
}

// Overrides lists the orders that stand; with cleared, those too that were.
func (c *Client) Overrides(ctx context.Context, cleared bool) (*OverrideList, error) {
	q := url.Values{}
	if cleared {
		q.Set("all", "true")
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var out OverrideList
	return &out, c.call(ctx, http.MethodGet, "/v1/overrides", q, &out)
}

// Check returns the health opinions on the targets that match.
func (c *Client) Check(ctx context.Context, r CheckRequest) (*CheckResult, error) {
	q := url.Values{}
	if r.Target != "" {
		q.Set("target", r.Target)
	}
	if r.Local {
		q.Set("local", "true")
	}
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	var out CheckResult
	return &out, c.call(ctx, http.MethodGet, "/v1/check", q, &out)
}

// accountName returns the name of the account that this process runs as; "" if
// it has none.
func accountName() string {
	account, err := user.Current()
	if err != nil {
		return ""
	}
	return account.Username
}

// Keys returns who holds which gossip keys.
func (c *Client) Keys(ctx context.Context) (*KeyStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var out KeyStatus
	return &out, c.call(ctx, http.MethodGet, "/v1/keys", nil, &out)
}

// ChangeKeys changes the node's gossip keys.
func (c *Client) ChangeKeys(ctx context.Context, r KeyChange) (*KeyStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var out KeyStatus
	return &out, c.post(ctx, "/v1/keys", r, &out)
}

// Allowed is what a reload may take away.
type Allowed struct {
	// Remove: more than a third of the services, zones, names or sites, or the last
	// listener that an announced route leads to.
	Remove bool
	// Withdraw: a route that is announced now, the last site of a prefix, or more
	// than a third of the prefixes.
	Withdraw bool
}

// Reload makes the node read its configuration again.
func (c *Client) Reload(ctx context.Context, allow Allowed) (*ReloadResult, error) {
	q := url.Values{}
	if allow.Remove {
		q.Set("allow_remove", "true")
	}
	if allow.Withdraw {
		q.Set("allow_withdraw", "true")
	}
	ctx, cancel := context.WithTimeout(ctx, reloadWithin)
	defer cancel()
	var out ReloadResult
	return &out, c.call(ctx, http.MethodPost, "/v1/reload", q, &out)
}

func (c *Client) call(ctx context.Context, method, path string, q url.Values, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://pharos"+path+"?"+q.Encode(), nil)
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	return c.do(req, into)
}

func (c *Client) post(ctx context.Context, path string, body, into any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://pharos"+path, bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	return c.do(req, into)
}

func (c *Client) do(req *http.Request, into any) error {
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explainDial(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return fmt.Errorf("read the node's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(into); err != nil {
		return fmt.Errorf("read the node's answer (is it another version?): %w", err)
	}
	return nil
}

// ErrNotRunning is nobody behind the socket.
var ErrNotRunning = errors.New("no node is running")

// explainDial turns the two ways a socket fails into what to do about it.
func (c *Client) explainDial(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w behind %s; start one with `pharos run`, or name its socket with --socket", ErrNotRunning, c.socket)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the node behind %s does not answer; is its process stopped or overloaded?", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("not allowed to use %s; be in its group, or use sudo", c.socket)
	}
	return fmt.Errorf("ask the node behind %s: %w", c.socket, err)
}
