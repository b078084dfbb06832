package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

var soakRequests = flag.Int("soak", 3000, "how many requests TestSoak sends")

// soakBackend does what backends do, and what they should not.
func soakBackend(c *net.TCPConn, r *bufio.Reader) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		mood := rand.IntN(100)
		if mood < 4 { // leaves before the body has come
			c.SetLinger(0)
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if req.Header.Get("Upgrade") != "" {
			fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			io.CopyN(c, r, int64(rand.IntN(200)))
			if mood < 50 {
				c.SetLinger(0)
			}
			return
		}
		size := rand.IntN(100_000)
		switch {
		case mood < 8: // lies about the length
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size+10, strings.Repeat("x", size))
			return
		case mood < 12: // breaks off in the middle, with a reset
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\nx", size+10)
			c.SetLinger(0)
			return
		case mood < 15:
			fmt.Fprint(c, "garbage\r\n\r\n")
		case mood < 17:
			for range 20 {
				fmt.Fprint(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
			}
		case mood < 20: // closes without a word
			return
		case mood < 25: // to the end of the connection
			fmt.Fprint(c, "HTTP/1.0 200 OK\r\n\r\nrest")
			return
		case mood < 60:
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", size+1, strings.Repeat("x", size+1))
		default:
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
		}
	}
}

// soakHandler is soakBackend for HTTP/2.
func soakHandler(w http.ResponseWriter, r *http.Request) {
	mood := rand.IntN(100)
	if mood < 4 { // resets the stream before the body has come
		panic(http.ErrAbortHandler)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil || mood < 8 {
		panic(http.ErrAbortHandler)
	}
	size := rand.IntN(100_000)
	switch {
	case mood < 12: // breaks off in the middle
		w.Header().Set("Content-Length", fmt.Sprint(size+10))
		w.Write(make([]byte, size))
		panic(http.ErrAbortHandler)
	case mood < 16:
		w.WriteHeader(http.StatusEarlyHints)
	case mood < 20:
		w.WriteHeader(http.StatusBadGateway)
	case mood < 60:
		w.(http.Flusher).Flush() // of unknown length
	}
	w.Write(make([]byte, size))
}

// A soakWire is a client's connection that can be broken off.
type soakWire struct {
	net.Conn
	tcp *net.TCPConn
}

// soakClient sends requests on connections of its own, and leaves at any point.
func soakClient(addr string, config *tls.Config, left *atomic.Int64) {
	for left.Load() > 0 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			continue
		}
		c := &soakWire{conn, conn.(*net.TCPConn)}
		if config != nil {
			c.Conn = tls.Client(conn, config)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		soakConn(c, left)
		conn.Close() // without a farewell of TLS
	}
}

func soakConn(c *soakWire, left *atomic.Int64) {
	r := bufio.NewReader(c)
	for range 1 + rand.IntN(20) {
		left.Add(-1)
		body := rand.IntN(3) * rand.IntN(40_000)
		head := fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", body, body)
		mood := rand.IntN(100)
		switch {
		case mood < 40:
			head, body = "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0
		case mood < 43:
			head, body = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 100
		case mood < 46: // half a head
			io.WriteString(c, head[:rand.IntN(len(head))])
			c.tcp.SetLinger(0)
			return
		case mood < 50: // half a body
			io.WriteString(c, head)
			c.Write(make([]byte, body/2))
			return
		case mood < 55: // does not wait for the answer
			io.WriteString(c, head)
			c.Write(make([]byte, body))
			c.tcp.SetLinger(0)
			return
		}
		io.WriteString(c, head)
		if _, err := c.Write(make([]byte, body)); err != nil {
			return
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return
		}
		if mood > 95 { // half an answer
			io.CopyN(io.Discard, res.Body, 100)
			return
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.Close || res.StatusCode == 101 {
			return
		}
	}
}

// soakClient2 does the same over HTTP/2.
func soakClient2(url string, config *tls.Config, left *atomic.Int64) {
	// A connection whose request was cancelled meanwhile becomes idle after CloseIdleConnections.
	tr := &http.Transport{Protocols: new(http.Protocols), IdleConnTimeout: time.Second, TLSClientConfig: config}
	tr.Protocols.SetUnencryptedHTTP2(config == nil)
	tr.Protocols.SetHTTP2(config != nil)
	defer tr.CloseIdleConnections()
	for left.Load() > 0 {
		soakRequest(tr, url, left)
	}
}

// soakClient3 does the same over HTTP/3, with a new connection now and then that ends without a word.
func soakClient3(addr string, config *tls.Config, left *atomic.Int64) {
	for left.Load() > 0 {
		tr := &http3.Transport{
			TLSClientConfig: config,
			Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				return quic.DialAddrEarly(ctx, addr, tc, qc)
			},
		}
		for range 1 + rand.IntN(200) {
			soakRequest(tr, "https://a.test/", left)
		}
		tr.Close()
	}
}

// soakRequest sends a request, which may be broken off at any point.
func soakRequest(tr http.RoundTripper, url string, left *atomic.Int64) {
	left.Add(-1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(strings.Repeat("x", rand.IntN(50_000))))
	if err != nil {
		panic(err)
	}
	if rand.IntN(10) == 0 {
		time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, cancel)
	}
	if res, err := tr.RoundTrip(req); err == nil {
		if rand.IntN(10) > 0 {
			io.Copy(io.Discard, res.Body)
		}
		res.Body.Close()
	}
}

// openFiles counts the process's descriptors.
func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSoak: after many requests of every protocol, to backends of HTTP/1 and of HTTP/2, with aborts on both sides nothing is left:
// no goroutine, no descriptor, no memory. A million of them: make soak.
func TestSoak(t *testing.T) {
	ca := certtest.New(t)
	t.Run("http", func(t *testing.T) { soak(t, ca, forward.HTTP1, rawBackend(t, soakBackend)) })
	t.Run("h2c", func(t *testing.T) { soak(t, ca, forward.H2C, protocolBackend(t, forward.H2C, nil, soakHandler).addr) })
}

// soak sends half of the requests, to a backend of one protocol.
func soak(t *testing.T, ca *certtest.CA, p forward.Protocol, backend netip.AddrPort) {
	listeners := append(listener3(ca), Listener{Routes: anyRoute})
	listeners[0].Idle = 2 * time.Second // a client of QUIC that gives up while it connects says nothing
	f := startVia(t, forward.Transport{Protocol: p}, Options{
		HeaderTimeout: 2 * time.Second, BodyTimeout: 2 * time.Second, ResponseTimeout: 5 * time.Second,
		Listeners: listeners,
	}, backend)
	secured, plain, udp := f.Addrs()[0].String(), f.Addrs()[1].String(), f.Addrs3()[0].String()
	round := func(n int) {
		var left atomic.Int64
		left.Store(int64(n))
		var wg sync.WaitGroup
		for i := range 24 {
			config := &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test"}
			wg.Go(func() {
				switch i % 6 {
				case 0, 1:
					soakClient(plain, nil, &left)
				case 2:
					soakClient(secured, config, &left)
				case 3:
					soakClient2("http://"+plain+"/", nil, &left)
				case 4:
					soakClient2("https://"+secured+"/", config, &left)
				case 5:
					soakClient3(udp, config, &left)
				}
			})
		}
		wg.Wait()
		until(t, "every request has ended", func() bool {
			s := f.Stats()
			inFlight := int64(0)
			for _, b := range f.registry.Snapshot() {
				inFlight += b.InFlight
			}
			return s.Active == 0 && s.Active3 == 0 && inFlight == 0
		})
		f.registry.Close() // the idle connections to the backend, whose goroutines and descriptors are counted here too
	}
	defer func() {
		if t.Failed() {
			pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		}
	}()
	goroutines := runtime.NumGoroutine()
	round(*soakRequests / 20)
	// What is there for good is there after the first round, and those that wait for more work have gone.
	until(t, "the first round is over", func() bool { return runtime.NumGoroutine() <= goroutines+16 }) // its own may not have begun before
	goroutines = runtime.NumGoroutine()
	files, bytes := openFiles(t), heap()
	began := time.Now()
	round(*soakRequests / 2)
	took := time.Since(began)
	left := ""
	defer func() { t.Log(left) }()
	until(t, "nothing is left", func() bool {
		g, n, b := runtime.NumGoroutine(), openFiles(t), heap()
		left = fmt.Sprintf("%d goroutines, were %d; %d files, were %d; %d bytes, were %d", g, goroutines, n, files, b, bytes)
		return g <= goroutines+2 && n <= files+2 && b <= bytes+2<<20
	})
	s := f.Stats()
	t.Logf("in %s: %v answered, %d cut, %d upgrades, %d connections of HTTP/2, %d of HTTP/3, %d with TLS",
		took.Round(time.Second), s.Answered, s.Cut, s.Upgrades, s.HTTP2, s.HTTP3, s.Handshakes[handshakeFull])
	if s.Answered[2] == 0 || s.Cut == 0 || s.Upgrades == 0 && p == forward.HTTP1 || s.HTTP2 == 0 || s.HTTP3 == 0 || s.Handshakes[handshakeFull] == 0 {
		t.Error("something did not happen at all")
	}
}
