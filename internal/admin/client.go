package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
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

// Reload makes the node read its configuration again.
func (c *Client) Reload(ctx context.Context, allowRemove bool) (*ReloadResult, error) {
	q := url.Values{}
	if allowRemove {
		q.Set("allow_remove", "true")
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

// explainDial turns the two ways a socket fails into what to do about it.
func (c *Client) explainDial(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no node is running behind %s; start one with `pharos run`, or name its socket with --socket", c.socket)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the node behind %s does not answer; is its process stopped or overloaded?", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("not allowed to use %s; be in its group, or use sudo", c.socket)
	}
	return fmt.Errorf("ask the node behind %s: %w", c.socket, err)
}
