package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// The bounds on what a probe reads.
const (
	maxHeaderBytes = 64 << 10
	maxBodyBytes   = 64 << 10
	// maxInterim is how many 1xx answers may precede the real one.
	maxInterim = 5
)

// userAgent is what HTTP checks call themselves.
const userAgent = "pharos-check/1"

// prober looks at targets for real. Each probe has a connection of its own and
// ends with its context, in every phase.
type prober struct {
	source func(health.Target) netip.Addr
	roots  *x509.CertPool
}

// phase is what a probe is doing, in the words of its errors.
type phase string

// The phases of a probe.
const (
	connecting phase = "connecting"
	securing   phase = "in the TLS handshake"
	sending    phase = "sending the request"
	waiting    phase = "waiting for headers"
	reading    phase = "reading the body"
)

// probe runs c once.
func (p *prober) probe(ctx context.Context, c Check) Result {
	result := func(at phase, code int, err error) Result {
		r := explain(err, at, c.Timeout)
		r.Code = code
		return r
	}
	conn, err := p.dial(ctx, c)
	if err != nil {
		return result(connecting, 0, err)
	}
	defer conn.Close()
	defer bound(ctx, conn)()
	switch c.Kind {
	case TCP:
		return Result{}
	case HTTPS:
		secure := tls.Client(conn, p.tlsConfig(c))
		if err := secure.HandshakeContext(ctx); err != nil {
			return result(securing, 0, err)
		}
		conn = secure
	}
	code, at, err := ask(conn, c)
	if err != nil {
		return result(at, code, err)
	}
	return Result{Code: code}
}

// dial connects to the target.
func (p *prober) dial(ctx context.Context, c Check) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1, Control: controlDial}
	if p.source != nil {
		if from := p.source(c.Target); from.IsValid() && from.Unmap().Is4() == c.Target.Addr.Addr().Unmap().Is4() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
	}
	conn, err := d.DialContext(ctx, "tcp", c.Target.Addr.String())
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Close with a reset: thousands of probes a second would otherwise leave
		// their ports in TIME_WAIT until none is left.
		tcp.SetLinger(0)
	}
	return conn, nil
}

// bound makes conn end with ctx; the function it returns undoes that and waits
// until it is undone.
func bound(ctx context.Context, conn net.Conn) (undo func()) {
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		conn.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// tlsConfig is what an HTTPS check accepts.
func (p *prober) tlsConfig(c Check) *tls.Config {
	return &tls.Config{
		ServerName:         c.SNI,
		RootCAs:            p.roots,
		InsecureSkipVerify: c.Insecure,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
	}
}

// ask sends the request and holds the answer against the check.
func ask(conn net.Conn, c Check) (code int, at phase, err error) {
	if _, err := conn.Write(request(c)); err != nil {
		return 0, sending, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHeaderBytes}
	buffered := bufio.NewReader(limited)
	answer, err := readHead(buffered, c.Method)
	if err != nil {
		if limited.N <= 0 {
			err = fmt.Errorf("headers larger than %d KiB", maxHeaderBytes>>10)
			return 0, waiting, finding{err}
		}
		return 0, waiting, err
	}
	// Not closing the body: that would read on for the next answer on this
	// connection, of which there is none.
	if !good(answer.StatusCode, c.Status) {
		return answer.StatusCode, waiting, finding{fmt.Errorf("status %d, want %s", answer.StatusCode, ranges(c.Status))}
	}
	if c.Body == "" {
		return answer.StatusCode, reading, nil
	}
	limited.N = 2 * maxBodyBytes // room for chunk headers and the like
	return answer.StatusCode, reading, find(io.LimitReader(answer.Body, maxBodyBytes), []byte(c.Body))
}

// readHead reads up to the end of the headers of the final answer.
func readHead(r *bufio.Reader, method string) (*http.Response, error) {
	for range maxInterim {
		answer, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if answer.StatusCode >= 200 || answer.StatusCode == http.StatusSwitchingProtocols {
			return answer, nil
		}
	}
	return nil, finding{fmt.Errorf("more than %d interim answers", maxInterim-1)}
}

// request is the bytes that c sends.
func request(c Check) []byte {
	var b bytes.Buffer
	agent := userAgent
	for _, h := range c.Headers {
		if http.CanonicalHeaderKey(h.Name) == "User-Agent" {
			agent = h.Value
		}
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nConnection: close\r\n", c.Method, c.Path, c.Host, agent)
	for _, h := range c.Headers {
		if http.CanonicalHeaderKey(h.Name) != "User-Agent" {
			fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
		}
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// good reports whether code is in one of the ranges.
func good(code int, want []StatusRange) bool {
	for _, r := range want {
		if r.From <= code && code <= r.To {
			return true
		}
	}
	return false
}

// ranges writes status ranges as "200-299 or 404".
func ranges(want []StatusRange) string {
	var b bytes.Buffer
	for i, r := range want {
		if i > 0 {
			b.WriteString(" or ")
		}
		fmt.Fprint(&b, r.From)
		if r.To != r.From {
			fmt.Fprintf(&b, "-%d", r.To)
		}
	}
	return b.String()
}

// find reads until want has occurred.
func find(r io.Reader, want []byte) error {
	var seen []byte
	for chunk := make([]byte, 4<<10); ; {
		n, err := r.Read(chunk)
		from := max(len(seen)-len(want)+1, 0)
		seen = append(seen, chunk[:n]...)
		if bytes.Contains(seen[from:], want) {
			return nil
		}
		switch {
		case errors.Is(err, io.EOF) && len(seen) >= maxBodyBytes:
			return finding{fmt.Errorf("body does not contain %.60q in its first %d KiB", want, maxBodyBytes>>10)}
		case errors.Is(err, io.EOF):
			return finding{fmt.Errorf("body does not contain %.60q", want)}
		case err != nil:
			return err
		}
	}
}
