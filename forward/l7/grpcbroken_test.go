package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestGRPCBreaks: a call whose backend dies, falls silent or takes too long in the middle of its answer ends with what came
// and a status that says so.
func TestGRPCBreaks(t *testing.T) {
	for name, tt := range map[string]struct {
		times   Times
		dies    bool
		code    codes.Code
		message string
	}{
		"dies":      {dies: true, code: codes.Unavailable, message: `backend of service "web" closed the connection`},
		"is silent": {times: Times{Response: 300 * time.Millisecond}, code: codes.DeadlineExceeded, message: `backend of service "web" did not answer in time`},
		"is late":   {times: Times{Request: time.Second}, code: codes.DeadlineExceeded, message: `request to service "web" took too long`},
	} {
		t.Run(name, func(t *testing.T) {
			e := &echo{left: make(chan error, 10)}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			server.RegisterService(e.desc(), e)
			done := make(chan struct{})
			go func() { defer close(done); server.Serve(l) }()
			defer func() { server.Stop(); <-done }()
			f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{Listeners: []Listener{{Routes: anyRoute, Times: tt.times}}},
				l.Addr().(*net.TCPAddr).AddrPort())
			c, err := grpc.Dial(f.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Down")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.SendMsg(wrapperspb.Bytes([]byte("hang"))), s.CloseSend()); err != nil {
				t.Fatal(err)
			}
			for i := range 100 {
				m := new(bytesValue)
				if err := s.RecvMsg(m); err != nil || string(m.Value) != fmt.Sprint(i) {
					t.Fatalf("message %d: %q, %v", i, m.Value, err)
				}
			}
			if tt.dies {
				server.Stop()
			}
			err = s.RecvMsg(new(bytesValue))
			if got := status.Convert(err); got.Code() != tt.code || got.Message() != tt.message {
				t.Errorf("got %v %q, want %v %q", got.Code(), got.Message(), tt.code, tt.message)
			}
			until(t, "it is counted as cut", func() bool { return f.Stats().Cut == 1 })
		})
	}
}

// TestGRPCBreaksForm: only an answer of gRPC to a call of gRPC ends with a status, and what has no place for one is reset.
func TestGRPCBreaksForm(t *testing.T) {
	ca := certtest.New(t)
	f := start(t, Options{Listeners: listener3(ca)}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", r.Header.Get("Answer"))
		if r.Header.Get("Length") != "" {
			w.Header().Set("Content-Length", "1000")
		}
		io.WriteString(w, "half a message")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	c1, c2 := client(t), client(t)
	for i, c := range []*http.Client{c1, c2} {
		tr := c.Transport.(*http.Transport)
		tr.TLSClientConfig, tr.ForceAttemptHTTP2 = &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"}, i == 1
	}
	c3, _ := client3(t, ca, f.Addrs3()[0].String())
	for _, tt := range []struct {
		asked, answered, length string
		grpc                    bool
	}{
		{"application/grpc", "application/grpc+proto", "", true},
		{"application/grpc", "application/grpc", "yes", false},
		{"application/grpc", "text/plain", "", false},
		{"text/plain", "application/grpc", "", false},
	} {
		for i, c := range []*http.Client{c1, c2, c3} {
			to := "https://" + f.addr + "/a.B/C"
			if i == 2 {
				to = "https://a.test/a.B/C"
			}
			req, err := http.NewRequestWithContext(t.Context(), "POST", to, strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{"Content-Type": {tt.asked}, "Answer": {tt.answered}, "Length": {tt.length}}
			res, err := c.Do(req)
			if err != nil && i == 2 && !tt.grpc {
				continue // a reset of QUIC overtakes what was sent before it
			}
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			message, _ := url.PathUnescape(res.Trailer.Get("Grpc-Message"))
			got := fmt.Sprint(string(body), " whole ", err == nil, " ", res.Trailer.Get("Grpc-Status"), " ", message)
			if i == 2 && !tt.grpc && err != nil {
				got = "half a message" + strings.TrimPrefix(got, string(body)) // the same
			}
			want := "half a message whole false  "
			if tt.grpc && i > 0 {
				want = `half a message whole true 14 backend of service "web" closed the connection`
			}
			if got != want {
				t.Errorf("over HTTP/%d %+v: got %s, want %s", i+1, tt, got, want)
			}
		}
	}
}
