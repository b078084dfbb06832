package probe

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// BenchmarkProbe says what a good probe of each kind costs. The server runs in the
// same process, so that ns/op is an upper bound; cpu-µs/op counts both sides too.
func BenchmarkProbe(b *testing.B) {
	ok := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"status":"ok"}`) }
	by := newAuthority(b, 1000*day)
	secure := &tls.Config{Certificates: []tls.Certificate{by.leaf(day)}}
	raw := accept(b, shake(secure))
	http1, https1 := serveHTTP(b, 1, false, ok), serveHTTP(b, 1, true, ok)
	http2, https2, quic := serveHTTP(b, 2, false, ok), serveHTTP(b, 2, true, ok), serveHTTP(b, 3, true, ok)
	udp := serveUDP(b, func(string, net.Addr) []string { return []string{"pong"} })
	names := serveDNS(b, answerDNS)
	calls, callsTLS := target(serveGRPC(b, true, nil)), target(serveGRPC(b, true, secure))
	question := DNSQuestion{Name: "www.example.com.", Expect: []string{"192.0.2.1"}}
	for _, bb := range []struct {
		name  string
		roots *prober
		check Check
	}{
		{"tcp", &prober{}, Check{Target: http1.at}},
		{"tls", &prober{roots: by.roots()}, Check{Kind: TLS, Target: target(raw), MinValid: time.Hour}},
		{"http1", &prober{}, Check{Kind: HTTP, Target: http1.at}},
		{"http1-json", &prober{}, Check{Kind: HTTP, Target: http1.at, BodyRegexp: "ok", JSON: []JSONMatch{{"status", "ok"}}}},
		{"https1", &prober{roots: https1.roots}, Check{Kind: HTTPS, Target: https1.at}},
		{"h2c", &prober{}, Check{Kind: HTTP, Version: 2, Target: http2.at}},
		{"h2", &prober{roots: https2.roots}, Check{Kind: HTTPS, Version: 2, Target: https2.at}},
		{"h3", &prober{roots: quic.roots}, Check{Kind: HTTPS, Version: 3, Target: quic.at}},
		{"dns-udp", &prober{}, Check{Kind: DNS, Target: names, DNS: question}},
		{"dns-tcp", &prober{}, Check{Kind: DNS, Target: names, DNS: DNSQuestion{Name: question.Name, TCP: true}}},
		{"udp", &prober{}, Check{Kind: UDP, Target: udp}},
		{"grpc", &prober{}, Check{Kind: GRPC, Target: calls}},
		{"grpc-tls", &prober{roots: by.roots()}, Check{Kind: GRPC, Target: callsTLS, GRPC: GRPCHealth{TLS: true}}},
		{"icmp", &prober{}, Check{Kind: ICMP, Target: http1.at}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			c := bb.check.WithDefaults()
			measureProbe(b, func() {
				ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
				defer cancel()
				got := bb.roots.probe(ctx, c)
				if c.Kind == ICMP && got.Inconclusive {
					b.Skip(got.Err)
				}
				if !got.OK() {
					b.Fatalf("%+v", got)
				}
			})
		})
	}
	// What the same call costs through the library.
	b.Run("grpc-library", func(b *testing.B) {
		measureProbe(b, func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			conn, err := grpc.Dial(calls.Addr.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
				b.Fatal(err)
			}
		})
	})
}

// measureProbe runs f b.N times and reports the processor time of the process.
func measureProbe(b *testing.B, f func()) {
	b.ReportAllocs()
	before := ownProcessorTime(b)
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64((ownProcessorTime(b)-before).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
}

// ownProcessorTime is how long this process has run on processors.
func ownProcessorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// accept is serve for benchmarks: connections are handled side by side.
func accept(b *testing.B, handle func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); handle(c) }()
		}
	}()
	return l.Addr().String()
}
