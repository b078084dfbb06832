package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// A control is the demo's own unix socket, where the verbs under `pharos demo`
// reach it.
type control struct {
	listener net.Listener
	server   *http.Server
}

func newControl(d *Demo, path string) (*control, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("demo control: %w", err)
	}
	mux := http.NewServeMux()
	act := func(f func(string) (string, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			did, err := f(r.FormValue("what"))
			if err != nil {
				http.Error(w, err.Error(), http.StatusUnprocessableEntity)
				return
			}
			fmt.Fprintln(w, did)
		}
	}
	mux.HandleFunc("POST /break", act(d.Break))
	mux.HandleFunc("POST /heal", act(d.Heal))
	mux.HandleFunc("POST /stop", act(func(string) (string, error) { d.Stop(); return "stopping", nil }))
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(d.Status(r.Context())) // the caller has gone
	})
	return &control{l, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}, nil
}

// Run serves until ctx ends.
func (c *control) Run(ctx context.Context) error {
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ctx.Done():
		case <-ended:
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		c.server.Shutdown(stop) // whoever is still asking is cut
	}()
	if err := c.server.Serve(c.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A Client reaches this user's running demo.
type Client struct{ http *http.Client }

// NewClient returns a client; it connects with the first call.
func NewClient() *Client {
	path := filepath.Join(folderPath(), controlName)
	return &Client{&http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}}
}

// Break, Heal and Stop do what the methods of Demo do and say what was done.
func (c *Client) Break(ctx context.Context, what string) (string, error) {
	return c.post(ctx, "/break", what)
}

// Heal brings something, or with "" everything, back.
func (c *Client) Heal(ctx context.Context, what string) (string, error) {
	return c.post(ctx, "/heal", what)
}

// Stop ends the demo and waits until it has gone.
func (c *Client) Stop(ctx context.Context) error {
	if _, err := c.post(ctx, "/stop", ""); err != nil {
		return err
	}
	return awaitGone(ctx)
}

// Status asks the demo.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	body, err := c.do(ctx, http.MethodGet, "/status", "")
	if err != nil {
		return nil, err
	}
	var st Status
	if err := json.Unmarshal(body, &st); err != nil {
		return nil, fmt.Errorf("read the demo's answer: %w", err)
	}
	return &st, nil
}

func (c *Client) post(ctx context.Context, path, what string) (string, error) {
	body, err := c.do(ctx, http.MethodPost, path, what)
	return strings.TrimSpace(string(body)), err
}

const maxAnswer = 1 << 20

func (c *Client) do(ctx context.Context, method, path, what string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://demo"+path+"?"+url.Values{"what": {what}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no demo of yours is running; start one with `pharos demo` (%w)", errors.Unwrap(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the demo's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}
