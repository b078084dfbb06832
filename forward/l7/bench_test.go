package l7

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward/l7/route"
)

const browserRequest = "GET /assets/app.js?v=123 HTTP/1.1\r\n" +
	"Host: www.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Connection: keep-alive\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
	"Sec-Fetch-Dest: document\r\n" +
	"Sec-Fetch-Mode: navigate\r\n" +
	"If-None-Match: \"0123456789abcdef\"\r\n\r\n"

func BenchmarkParse(b *testing.B) {
	head := []byte(browserRequest)
	w := works.Get().(*work)
	defer w.free()
	b.ReportAllocs()
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		var scan headScan
		n, _ := scan.end(head)
		if w.req.parse(head[:n]).bad() {
			b.Fatal("refused")
		}
	}
}

// benchBackend answers every request with the same bytes, at little cost of its
// own.
func benchBackend(b *testing.B, size int) netip.AddrPort {
	reply := []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
		size, strings.Repeat("x", size)))
	return rawBackend(b, func(c *net.TCPConn, r *bufio.Reader) {
		for {
			for {
				line, err := r.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) == 2 {
					break
				}
			}
			if _, err := c.Write(reply); err != nil {
				return
			}
		}
	})
}

// BenchmarkProxy measures one keep-alive client through this package and
// through net/http with httputil.ReverseProxy, in the same run. "cpu-µs/req" is
// the CPU time of the whole process: client, proxy and backend; "none" is what
// the client and the backend cost without a proxy.
func BenchmarkProxy(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		backend := benchBackend(b, size)
		b.Run(fmt.Sprintf("%d/none", size), func(b *testing.B) { benchClient(b, backend.String(), size) })
		b.Run(fmt.Sprintf("%d/pharos", size), func(b *testing.B) {
			f := start(b, Options{}, backend)
			benchClient(b, f.addr, size)
			b.StopTimer()
			f.stop()
		})
		b.Run(fmt.Sprintf("%d/nethttp", size), func(b *testing.B) {
			proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: backend.String()})
			addr := webBackend(b, proxy.ServeHTTP)
			benchClient(b, addr.String(), size)
			b.StopTimer()
			http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		})
	}
}

func benchClient(b *testing.B, addr string, size int) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReaderSize(c, 64<<10)
	request := []byte(browserRequest)
	one := func() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := r.Discard(size); err != nil {
			b.Fatal(err)
		}
	}
	one()
	b.ReportAllocs()
	before := cpuTime(b)
	n := 0
	for b.Loop() {
		one()
		n++
	}
	b.ReportMetric(float64(cpuTime(b)-before)/1e3/float64(n), "cpu-µs/req")
}

// cpuTime is the process's CPU time in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkRequest measures what is done for a request besides moving bytes: reading its
// head, who the client is, its route, and the head that goes upstream.
func BenchmarkRequest(b *testing.B) {
	head := []byte(browserRequest)
	w := works.Get().(*work)
	defer w.free()
	b.ReportAllocs()
	for b.Loop() {
		var scan headScan
		n, _ := scan.end(head)
		if w.req.parse(head[:n]).bad() {
			b.Fatal("refused")
		}
		w.set, w.ends, w.arena, w.since = testSettings, testEnds, w.arena[:0], time.Now()
		w.identify(w.set)
		if w.tooLong().bad() || w.admit().bad() {
			b.Fatal("limited")
		}
		w.ask = route.Request{Method: w.req.method, Host: w.req.hostname, Path: w.req.path, Client: w.who, Fields: &w.req}
		w.rule = w.set.routes.Match(&w.ask, &w.space)
		if w.rule == nil || w.admitRoute().bad() || w.prepare().bad() {
			b.Fatal("not prepared")
		}
		w.out = appendRequest(w.out[:0], &w.req, nil, nil)
		w.status = 200
		w.finish()
	}
}
