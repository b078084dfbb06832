package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// at a time, of a workload.
const connections = 16

// patience is how long one answer may take.
const patience = 30 * time.Second

// A workload is one way to ask.
type workload struct {
	name  string
	path  string
	tls   bool
	h2    bool
	fresh bool // a connection for each request
}

var workloads = []workload{
	{name: "h1", path: "/1k"},
	{name: "h1 new connection", path: "/1k", fresh: true},
	{name: "TLS h1", path: "/1k", tls: true},
	{name: "TLS h2", path: "/1k", tls: true, h2: true},
	{name: "full handshake", path: "/1k", tls: true, fresh: true},
	{name: "h1 1 MiB", path: "/1m"},
	{name: "TLS h1 1 MiB", path: "/1m", tls: true},
}

// tlsConfig has no session cache: each handshake is a full one.
func tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "bench.test", NextProtos: protocols}
}

func (w workload) dial(p peer) (net.Conn, error) {
	if !w.tls {
		return net.DialTimeout("tcp", p.plain, 5*time.Second)
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", p.tls, tlsConfig("http/1.1"))
}

// play asks for as long as span and returns how many answers came.
func (w workload) play(p peer, span time.Duration) (int64, error) {
	end := time.Now().Add(span)
	var n atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, connections)
	one := w.ask
	if w.h2 {
		tr := &http.Transport{TLSClientConfig: tlsConfig("h2"), DisableCompression: true, Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP2(true)
		defer tr.CloseIdleConnections()
		one = func(ctx context.Context, p peer, end time.Time, n *atomic.Int64) error {
			return ask2(ctx, tr, p, w.path, end, n)
		}
	}
	ctx, cancel := context.WithDeadline(context.Background(), end.Add(patience))
	defer cancel()
	for range connections {
		wg.Go(func() {
			if err := one(ctx, p, end, &n); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
		return max(n.Load(), 1), nil
	}
}

// ask asks over HTTP/1.1.
func (w workload) ask(_ context.Context, p peer, end time.Time, n *atomic.Int64) error {
	request := "GET " + w.path + " HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n"
	if w.fresh {
		request += "Connection: close\r\n"
	}
	request += "\r\n"
	var c net.Conn
	var r *bufio.Reader
	for time.Now().Before(end) {
		if c == nil {
			var err error
			if c, err = w.dial(p); err != nil {
				return err
			}
			c.SetDeadline(end.Add(patience))
			r = bufio.NewReaderSize(c, 64<<10)
		}
		if _, err := io.WriteString(c, request); err != nil {
			return err
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		if err := whole(res, w.path); err != nil {
			return err
		}
		n.Add(1)
		if w.fresh {
			c.Close()
			c = nil
		}
	}
	if c != nil {
		return c.Close()
	}
	return nil
}

func ask2(ctx context.Context, tr *http.Transport, p peer, path string, end time.Time, n *atomic.Int64) error {
	for time.Now().Before(end) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.tls+path, nil)
		if err != nil {
			return err
		}
		req.Host = "bench.test"
		res, err := tr.RoundTrip(req)
		if err != nil {
			return err
		}
		err = whole(res, path)
		res.Body.Close()
		if err != nil {
			return err
		}
		n.Add(1)
	}
	return nil
}

// sizes are those of the files.
var sizes = map[string]int64{"/1k": 1 << 10, "/1m": 1 << 20}

// whole reads an answer and says what is wrong with it.
func whole(res *http.Response, path string) error {
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != 200 || n != sizes[path] {
		return fmt.Errorf("status %d with %d bytes", res.StatusCode, n)
	}
	return nil
}

// probe asks once over each protocol.
func probe(p peer) error {
	for _, w := range workloads {
		if _, err := w.play(p, time.Millisecond); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// weigh returns how many KiB the proxy's memory grows by for each of n connections that
// have carried a request and wait.
func weigh(r *result, secure bool, n int) (float64, error) {
	w := workload{path: "/1k", tls: secure}
	before, err := r.process.Memory()
	if err != nil {
		return 0, err
	}
	open := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range n {
		c, err := w.dial(r.peer)
		if err != nil {
			return 0, err
		}
		open = append(open, c)
		c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.WriteString(c, "GET /1k HTTP/1.1\r\nHost: bench.test\r\n\r\n"); err != nil {
			return 0, err
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return 0, err
		}
		if err := whole(res, w.path); err != nil {
			return 0, err
		}
	}
	after, err := r.process.Memory()
	if err != nil {
		return 0, err
	}
	return float64(after.PSS-before.PSS) / 1024 / float64(n), nil
}
