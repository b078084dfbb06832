package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// states is a health server whose service names say what it answers.
type states struct{ *health.Server }

func (s states) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	switch r.Service {
	case "strange":
		return &healthpb.HealthCheckResponse{Status: 77}, nil
	case "unavailable":
		return nil, status.Error(codes.Unavailable, "warming up: 30 %")
	case "code":
		return nil, status.Error(codes.Code(77), "")
	case "unknown service":
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVICE_UNKNOWN}, nil
	case "unknown":
		return &healthpb.HealthCheckResponse{}, nil
	case "silent":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Server.Check(ctx, r)
}

// serveGRPC starts a gRPC server, with a health service or without.
func serveGRPC(t testing.TB, healthy bool, secure *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var options []grpc.ServerOption
	if secure != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(secure)))
	}
	server := grpc.NewServer(options...)
	if healthy {
		s := states{health.NewServer()}
		s.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
		s.SetServingStatus("draining", healthpb.HealthCheckResponse_NOT_SERVING)
		healthpb.RegisterHealthServer(server, s)
	}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return l.Addr().String()
}

func TestProbeGRPC(t *testing.T) {
	by := newAuthority(t, 1000*day)
	bare := serveGRPC(t, false, nil)
	plain := serveGRPC(t, true, nil)
	secure := serveGRPC(t, true, &tls.Config{Certificates: []tls.Certificate{by.leaf(day)}})
	web := serveHTTP(t, 2, false, func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "html" {
			io.WriteString(w, "<html>")
		} else {
			http.NotFound(w, r)
		}
	})
	old := serveHTTP(t, 1, false, site)
	for _, tt := range []struct {
		name, at string
		check    Check
		code     int
		want     string
	}{
		{"the whole server", plain, Check{}, 200, ""},
		{"a service", plain, Check{GRPC: GRPCHealth{Service: "shop"}}, 200, ""},
		{"not serving", plain, Check{GRPC: GRPCHealth{Service: "draining"}}, 200, "serving state NOT_SERVING, want SERVING"},
		{"unknown", plain, Check{GRPC: GRPCHealth{Service: "unknown"}}, 200, "serving state UNKNOWN, want SERVING"},
		{"service unknown", plain, Check{GRPC: GRPCHealth{Service: "unknown service"}}, 200, "serving state SERVICE_UNKNOWN, want SERVING"},
		{"a state of the future", plain, Check{GRPC: GRPCHealth{Service: "strange"}}, 200, "serving state 77, want SERVING"},
		{"no such service", plain, Check{GRPC: GRPCHealth{Service: "shoe"}}, 200, `the server does not know service "shoe"`},
		{"no health service", bare, Check{}, 200, "the server does not offer grpc.health.v1.Health"},
		{"error", plain, Check{GRPC: GRPCHealth{Service: "unavailable"}}, 200, "gRPC status UNAVAILABLE: warming up: 30 %"},
		{"odd error", plain, Check{GRPC: GRPCHealth{Service: "code"}}, 200, "gRPC status 77"},
		{"silent", plain, Check{GRPC: GRPCHealth{Service: "silent"}, Timeout: 200 * time.Millisecond}, 0, "timeout after 200ms waiting for headers"},
		{"in TLS", secure, Check{GRPC: GRPCHealth{TLS: true}}, 200, ""},
		{"in TLS by name", secure, Check{SNI: "www.example.com", GRPC: GRPCHealth{TLS: true}}, 200, ""},
		{"in TLS by a wrong name", secure, Check{SNI: "example.org", GRPC: GRPCHealth{TLS: true}}, 0, "certificate: not valid for example.org"},
		{"in TLS, insecure", secure, Check{SNI: "example.org", Insecure: true, GRPC: GRPCHealth{TLS: true}}, 200, ""},
		{"TLS to plain", plain, Check{GRPC: GRPCHealth{TLS: true}}, 0, "not TLS: the target speaks something else"},
		{"another server", web.at.Addr.String(), Check{}, 404, "HTTP status 404, want 200"},
		{"html", web.at.Addr.String(), Check{Host: "html"}, 200, `not gRPC: content type "text/html; charset=utf-8"`},
		{"old", old.at.Addr.String(), Check{}, 0, "not HTTP/2: the target speaks HTTP/1"},
	} {
		tt.check.Target, tt.check.Kind = target(tt.at), GRPC
		got := run(t, &prober{roots: by.roots()}, tt.check)
		if tt.name == "old" && got.Err == "connection reset waiting for headers" {
			continue // its answer was lost to the reset after it
		}
		if want := (Result{Err: tt.want, Code: tt.code}); got != want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, want)
		}
	}
	none := x509.NewCertPool()
	if got := run(t, &prober{roots: none}, Check{Target: target(secure), Kind: GRPC, GRPC: GRPCHealth{TLS: true}}); got.Err != "certificate: signed by an unknown authority" {
		t.Errorf("no trust: %+v", got)
	}
}

func TestJudgeServing(t *testing.T) {
	for in, want := range map[string]string{
		"\x00\x00\x00\x00\x02\x08\x01":                 "",
		"\x00\x00\x00\x00\x06\x12\x02hi\x08\x01":       "", // an unknown field
		"\x00\x00\x00\x00\x04\x08\x02\x08\x01":         "", // the last one counts
		"\x00\x00\x00\x00\x00":                         "serving state UNKNOWN, want SERVING",
		"":                                             "not gRPC: no message of the length it says, uncompressed",
		"\x00\x00\x00\x00\x03\x08\x01":                 "not gRPC: no message of the length it says, uncompressed",
		"\x01\x00\x00\x00\x02\x08\x01":                 "not gRPC: no message of the length it says, uncompressed",
		"\x00\xff\xff\xff\xff\x08\x01":                 "not gRPC: no message of the length it says, uncompressed",
		"\x00\x00\x00\x00\x01\x08":                     "not an answer of grpc.health.v1: ",
		"\x00\x00\x00\x00\x02\xff\xff":                 "not an answer of grpc.health.v1: ",
		"\x00\x00\x00\x00\x03\x12\x7fx":                "not an answer of grpc.health.v1: ",
		"\x00\x00\x00\x00\x02\x08\x03":                 "serving state SERVICE_UNKNOWN, want SERVING",
		"\x00\x00\x00\x00\x03\x08\xff\x7f":             "serving state 16383, want SERVING",
		"\x00\x00\x00\x00\x06\x0a\x04\x08\x01\x08\x01": "serving state UNKNOWN, want SERVING", // another type
	} {
		err := judgeServing([]byte(in))
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
	for in, want := range map[string]string{"": `not gRPC: status ""`, "x": `not gRPC: status "x"`, "16": "gRPC status UNAUTHENTICATED"} {
		if err := judgeStatus(in, "", ""); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
}
