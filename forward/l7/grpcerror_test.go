package l7

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestGRPCErrors: what goes wrong here is told to a client of gRPC by a status of gRPC, with the words of the error.
func TestGRPCErrors(t *testing.T) {
	ca := certtest.New(t)
	e := &echo{left: make(chan error, 10)}
	const call, odd = "/test.Echo/Unary", "nö %41"
	for name, tt := range map[string]struct {
		routes  []Route
		limits  Limits
		times   Times
		service string // what is called; "" = Unary
		send    string
		md      []string
		twice   bool
		gone    bool // nobody is behind it
		code    codes.Code
		message string
		http    int // what it is counted as
	}{
		"no route": {
			routes: []Route{{Path: "/test.Echo", Service: "web"}}, service: "/other.Echo/Unary",
			code: codes.Unimplemented, message: "no route for this request", http: 404,
		},
		"a backend that refuses": {
			gone: true, code: codes.Unavailable, message: `no backend of service "web" could be connected to`, http: 502,
		},
		"a service without backends": {
			routes: []Route{{Service: odd}}, code: codes.Unavailable,
			message: fmt.Sprintf("no backends for service %q at this site", odd), http: 503,
		},
		"a silent backend": {
			send: "hang", times: Times{Response: 300 * time.Millisecond},
			code: codes.DeadlineExceeded, message: `backend of service "web" did not answer in time`, http: 504,
		},
		"a request that takes too long": {
			send: "hang", times: Times{Request: 300 * time.Millisecond},
			code: codes.DeadlineExceeded, message: `request to service "web" took too long`, http: 504,
		},
		"too many requests": {
			limits: Limits{ClientRequests: 1}, twice: true,
			code: codes.ResourceExhausted, message: "too many requests from this client", http: 429,
		},
		"a large message": {
			limits: Limits{Body: 1000}, send: strings.Repeat("x", 100_000),
			code: codes.ResourceExhausted, message: "request body is too large", http: 413,
		},
		"many fields": {
			limits: Limits{HeaderFields: 8}, md: []string{"a", "1", "b", "2", "c", "3", "d", "4", "e", "5"},
			code: codes.ResourceExhausted, message: "too many header fields", http: 431,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.routes == nil {
				tt.routes = anyRoute
			}
			backend := nobody(t)
			if !tt.gone {
				backend = grpcBackend(t, e)
			}
			f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{Listeners: []Listener{{
				Routes: tt.routes, Limits: tt.limits, Times: tt.times, TLS: secure(ca, "a.test"),
			}}}, backend)
			c, err := grpc.Dial(f.addr, grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(ca.Pool(), "a.test")))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), tt.md...), 30*time.Second)
			defer cancel()
			in, out, method := wrapperspb.Bytes([]byte(tt.send)), new(bytesValue), call
			if tt.service != "" {
				method = tt.service
			}
			if tt.twice {
				if err := c.Invoke(ctx, method, in, out); err != nil {
					t.Fatal(err)
				}
			}
			var trail metadata.MD
			err = c.Invoke(ctx, method, in, out, grpc.Trailer(&trail))
			if s := status.Convert(err); s.Code() != tt.code || s.Message() != tt.message {
				t.Errorf("got %v %q, want %v %q", s.Code(), s.Message(), tt.code, tt.message)
			}
			if want := map[bool]string{true: "[1000]", false: "[]"}[tt.twice]; fmt.Sprint(trail["grpc-retry-pushback-ms"]) != want {
				t.Errorf("the pushback is %v, want %s", trail["grpc-retry-pushback-ms"], want)
			}
			if n := f.Stats().Replied[tt.http-400]; n != 1 {
				t.Errorf("%d replies were counted as %d, want 1", n, tt.http)
			}
		})
	}
}

// TestGRPCErrorForm: only what is gRPC gets trailers alone, and it gets nothing else; over HTTP/3 too.
func TestGRPCErrorForm(t *testing.T) {
	ca := certtest.New(t)
	f := start(t, Options{Listeners: listener3(ca)}, nobody(t))
	c1, c2 := client(t), client(t)
	for i, c := range []*http.Client{c1, c2} {
		tr := c.Transport.(*http.Transport)
		tr.TLSClientConfig, tr.ForceAttemptHTTP2 = &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"}, i == 1
	}
	c3, _ := client3(t, ca, f.Addrs3()[0].String())
	for _, tt := range []struct {
		version int
		client  *http.Client
		media   string
		grpc    bool
	}{
		{1, c1, "application/grpc", false}, // HTTP/1 has no place for it
		{2, c2, "application/grpc", true},
		{2, c2, "Application/GRPC+proto", true},
		{2, c2, "application/grpc;x=y", true},
		{2, c2, "application/grpc-web", false},
		{2, c2, "application/grpc-web+proto", false},
		{2, c2, "text/plain", false},
		{3, c3, "application/grpc+proto", true},
		{3, c3, "application/grpc-web", false},
	} {
		to := "https://" + f.addr + "/a.B/C"
		if tt.version == 3 {
			to = "https://a.test/a.B/C"
		}
		res, err := tt.client.Post(to, tt.media, strings.NewReader("x"))
		body := slurp(t, res, err)
		message, _ := url.PathUnescape(res.Header.Get("Grpc-Message"))
		got := fmt.Sprint(res.ProtoMajor, res.StatusCode, res.Header.Get("Grpc-Status"), message, res.ContentLength > 0, res.Header.Get("Content-Type"), body)
		const text = `no backend of service "web" could be connected to`
		want := fmt.Sprint(tt.version, 502, "", "", true, plainText, text+"\n")
		if tt.grpc {
			want = fmt.Sprint(tt.version, 200, "14", text, false, "application/grpc", "")
		}
		if got != want {
			t.Errorf("over HTTP/%d %s got %s, want %s", tt.version, tt.media, got, want)
		}
	}
}

// TestPercentEncoded: what was encoded is decoded to the same, and is nothing but printable ASCII.
func TestPercentEncoded(t *testing.T) {
	for _, text := range []string{"", "plain ~", "100%", "%41", "a\r\nb\x00", "ünï\xff"} {
		got := string(percentEncoded(text))
		if back, err := url.PathUnescape(got); err != nil || back != text || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is %q, which is %q, %v", text, got, back, err)
		}
	}
}
