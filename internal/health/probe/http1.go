package probe

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
)

// maxInterim is how many 1xx answers may precede the real one.
const maxInterim = 5

// ask1 asks over HTTP/1.1. It is our own few lines, and not net/http's client,
// because most checks are of this kind and it costs a fraction.
func ask1(_ context.Context, conn net.Conn, c Check) (response, phase, error) {
	if _, err := conn.Write(request(c)); err != nil {
		return response{}, sending, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHeaderBytes}
	got, err := readHead(bufio.NewReader(limited), c.Method)
	if err != nil {
		if limited.N <= 0 {
			err = errTooLarge
		}
		return response{}, waiting, err
	}
	limited.N = 2 * maxBodyBytes // room for chunk headers and the like
	// Not closing the body: that would read on for the next answer on this
	// connection, of which there is none.
	return response{code: got.StatusCode, header: got.Header, body: got.Body}, reading, nil
}

// readHead reads up to the end of the headers of the final answer.
func readHead(r *bufio.Reader, method string) (*http.Response, error) {
	for range maxInterim {
		got, err := http.ReadResponse(r, &http.Request{Method: method})
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
