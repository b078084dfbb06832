package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

// maxInterim is how many 1xx answers may precede the real one.
const maxInterim = 5

// reader returns a reader from the pool.
func (p *prober) reader() *bufio.Reader {
	if r, ok := p.readers.Get().(*bufio.Reader); ok {
		return r
	}
	return bufio.NewReader(nil)
}

// ask1 asks over HTTP/1.1 and reads the answer through r. It is our own few lines,
// and not net/http's client, because most checks are of this kind and it costs a
// fraction.
func ask1(conn net.Conn, r *bufio.Reader, c *Check) (response, phase, error) {
	if _, err := conn.Write(request(c)); err != nil {
		return response{}, sending, err
	}
	in := &intake{from: conn, left: maxHeaderBytes}
	r.Reset(in)
	got, err := readHead(r, c.Method)
	if err != nil {
		switch {
		case in.left <= 0:
			err = errTooLarge
		case errors.Is(in.err, os.ErrDeadlineExceeded), errors.Is(in.err, errTooSlow): // what came by then may look malformed
			err = in.err
		}
		return response{}, waiting, err
	}
	in.left = 2 * maxBodyBytes // room for chunk headers and the like
	// Not closing the body: that would read on for the next answer on this
	// connection, of which there is none.
	return response{code: got.StatusCode, header: got.Header, body: got.Body}, reading, nil
}

// intake reads from a connection at most what is left, and remembers why it
// ended: net/textproto takes a line that was cut off for a whole one.
type intake struct {
	from io.Reader
	left int
	err  error
}

func (in *intake) Read(p []byte) (int, error) {
	if in.left <= 0 {
		return 0, io.EOF
	}
	n, err := in.from.Read(p[:min(len(p), in.left)])
	in.left -= n
	in.err = err
	return n, err
}

// readHead reads up to the end of the headers of the final answer.
func readHead(r *bufio.Reader, method string) (*http.Response, error) {
	asked := &http.Request{Method: method}
	for range maxInterim {
		got, err := http.ReadResponse(r, asked)
		if err != nil {
			return nil, err
		}
		if got.StatusCode >= 200 || got.StatusCode == http.StatusSwitchingProtocols {
			return got, nil
		}
	}
	return nil, finding{fmt.Errorf("more than %d interim answers", maxInterim-1)}
}

// request is the bytes that c sends.
func request(c *Check) []byte {
	agent := userAgent
	for _, h := range c.Headers {
		if http.CanonicalHeaderKey(h.Name) == "User-Agent" {
			agent = h.Value
		}
	}
	b := make([]byte, 0, 256)
	for _, part := range [...]string{
		c.Method, " ", c.Path, " HTTP/1.1\r\nHost: ", c.Host, "\r\nUser-Agent: ", agent, "\r\nConnection: close\r\n",
	} {
		b = append(b, part...)
	}
	for _, h := range c.Headers {
		if http.CanonicalHeaderKey(h.Name) != "User-Agent" {
			b = append(append(append(append(b, h.Name...), ": "...), h.Value...), "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}
