package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

// maxFrame is the largest HTTP/2 frame that a check takes.
const maxFrame = 16 << 10

// ask2 asks over HTTP/2, over TLS by ALPN and else with prior knowledge.
func ask2(ctx context.Context, conn net.Conn, c *Check) (response, phase, error) {
	scheme := "http"
	if c.secure() {
		scheme = "https"
	}
	r, err := newRequest(ctx, c, scheme)
	if err != nil {
		return response{}, sending, err
	}
	got, at, err := roundTrip2(ctx, conn, r)
	if err != nil {
		return response{}, at, err
	}
	return response{code: got.StatusCode, header: got.Header, body: got.Body}, reading, nil
}

// roundTrip2 sends r over conn in HTTP/2. What it starts ends when conn is closed.
func roundTrip2(ctx context.Context, conn net.Conn, r *http.Request) (*http.Response, phase, error) {
	if secure, ok := conn.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol != "h2" {
		return nil, securing, finding{errors.New("the target does not speak HTTP/2 (it chose another protocol in the TLS handshake)")}
	}
	seen := &watched{Conn: conn}
	t := &http.Transport{
		// Clear text is what the library is told, since the TLS is ours.
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return seen, nil },
		Protocols:              new(http.Protocols),
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxReadFrameSize: maxFrame, MaxReceiveBufferPerStream: maxBodyBytes, MaxReceiveBufferPerConnection: maxBodyBytes,
		},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	client, err := t.NewClientConn(ctx, "http", r.URL.Host)
	if err != nil {
		return nil, sending, seen.cause(err)
	}
	got, err := client.RoundTrip(r)
	if err != nil {
		return nil, waiting, seen.cause(err)
	}
	return got, reading, nil
}

// watched is a connection that remembers how its other side began and ended, which
// the library tells only if it learns of it at the right moment.
type watched struct {
	net.Conn

	mu    sync.Mutex // guards the rest
	start []byte     // the first bytes read
	err   error      // the first error of reading
}

// beginning is how much a watched connection remembers of what it read.
const beginning = len("HTTP/1.")

// Read reads from the connection.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.start = append(w.start, b[:min(n, beginning-len(w.start))]...)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// cause returns the reason why the library failed with err. Where the library has
// no error values its texts must do.
func (w *watched) cause(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := err.Error()
	switch {
	case string(w.start) == "HTTP/1.":
		return finding{errors.New("not HTTP/2: the target speaks HTTP/1")}
	case strings.Contains(text, "header list larger"):
		return errTooLarge
	case strings.Contains(text, "PROTOCOL_ERROR"):
		return finding{errors.New("HTTP/2 protocol error, or headers larger than 64 KiB")}
	case w.err != nil && !errors.Is(w.err, net.ErrClosed) && !errors.Is(w.err, os.ErrClosed):
		return w.err
	}
	return err
}
