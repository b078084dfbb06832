package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A control is the lab's own unix socket, where the verbs under `pharos lab`
// reach it.
type control struct {
	listener net.Listener
	server   *http.Server
}

func newControl(l *Lab, path string) (*control, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("lab control: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /do", func(w http.ResponseWriter, r *http.Request) {
		fault, err := ParseFault(strings.Fields(r.FormValue("what")))
		did := ""
		if err == nil {
			did, err = l.Do(fault)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		fmt.Fprintln(w, did) // the caller may be gone
	})
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) { l.Stop() })
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(l.Status(r.Context())) // the caller may be gone
	})
	mux.HandleFunc("GET /query", func(w http.ResponseWriter, r *http.Request) {
		from, err := parseFrom(r.FormValue("from"))
		var answers []Answer
		if err == nil {
			answers, err = l.Query(r.Context(), Question{Name: r.FormValue("name"), IPv6: r.FormValue("type") == "AAAA", From: from, Node: r.FormValue("node"), Resolver: r.FormValue("resolver") == "true"})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		json.NewEncoder(w).Encode(answers) // the caller may be gone
	})
	return &control{listener, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}, nil
}

func parseFrom(text string) (netip.Addr, error) {
	if text == "" || text == clientName {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, fmt.Errorf("client address %q: want an IP address", text)
	}
	return a.Unmap(), nil
}

// Run serves until ctx ends.
func (c *control) Run(ctx context.Context) error {
	ended := make(chan struct{})
	defer close(ended)
	go func() { // ends with Run
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

// A Client reaches a running lab. Safe for concurrent use.
type Client struct {
	id   string
	http *http.Client
}

// NewClient returns a client of the lab of a name; it connects with the first call.
func NewClient(id string) *Client {
	path := filepath.Join(folderPath(id), controlName)
	return &Client{id, &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}}
}

// Do does one thing to the fleet and says what was done.
func (c *Client) Do(ctx context.Context, f Fault) (string, error) {
	body, err := c.call(ctx, http.MethodPost, "/do", url.Values{"what": {f.String()}})
	return strings.TrimSpace(string(body)), err
}

// Status asks the lab.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	body, err := c.call(ctx, http.MethodGet, "/status", nil)
	if err != nil {
		return nil, err
	}
	var st Status
	if err := json.Unmarshal(body, &st); err != nil {
		return nil, fmt.Errorf("read the lab's answer: %w", err)
	}
	return &st, nil
}

// Query asks the fleet's DNS from the lab's client.
func (c *Client) Query(ctx context.Context, q Question) ([]Answer, error) {
	v := url.Values{"name": {q.Name}, "node": {q.Node}}
	if q.IPv6 {
		v.Set("type", "AAAA")
	}
	if q.Resolver {
		v.Set("resolver", "true")
	}
	if q.From.IsValid() {
		v.Set("from", q.From.String())
	}
	body, err := c.call(ctx, http.MethodGet, "/query", v)
	if err != nil {
		return nil, err
	}
	var answers []Answer
	if err := json.Unmarshal(body, &answers); err != nil {
		return nil, fmt.Errorf("read the lab's answer: %w", err)
	}
	return answers, nil
}

// Down ends the lab and waits until nothing of it is left.
func (c *Client) Down(ctx context.Context) error {
	if _, err := c.call(ctx, http.MethodPost, "/down", nil); err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(folderPath(c.id)); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the lab did not end in time: %w", ctx.Err())
		}
	}
}

const maxAnswer = 4 << 20

func (c *Client) call(ctx context.Context, method, path string, v url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+path+"?"+v.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no lab %q is running; start one with `pharos lab up CONFIG` (%w)", c.id, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the lab's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}
