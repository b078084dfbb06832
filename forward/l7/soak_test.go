package l7

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var soakRequests = flag.Int("soak", 4000, "how many requests TestSoak sends")

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

// soakClient sends requests on connections of its own, and leaves at any point.
func soakClient(addr string, left *atomic.Int64) {
	for left.Load() > 0 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			continue
		}
		c := conn.(*net.TCPConn)
		c.SetDeadline(time.Now().Add(20 * time.Second))
		soakConn(c, left)
		c.Close()
	}
}

func soakConn(c *net.TCPConn, left *atomic.Int64) {
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
			c.SetLinger(0)
			return
		case mood < 50: // half a body
			io.WriteString(c, head)
			c.Write(make([]byte, body/2))
			return
		case mood < 55: // does not wait for the answer
			io.WriteString(c, head)
			c.Write(make([]byte, body))
			c.SetLinger(0)
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
func soakClient2(addr string, left *atomic.Int64) {
	// A connection whose request was cancelled meanwhile becomes idle after CloseIdleConnections.
	tr := &http.Transport{Protocols: new(http.Protocols), IdleConnTimeout: time.Second}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	for left.Add(-1) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		req, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+"/", strings.NewReader(strings.Repeat("x", rand.IntN(50_000))))
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
		cancel()
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

// TestSoak: after many requests with aborts on both sides nothing is left: no goroutine,
// no descriptor, no memory. A million: go test ./forward/l7 -run TestSoak -soak 1000000 -timeout 1h
func TestSoak(t *testing.T) {
	backend := rawBackend(t, soakBackend)
	f := start(t, Options{HeaderTimeout: 2 * time.Second, BodyTimeout: 2 * time.Second, ResponseTimeout: 5 * time.Second}, backend)
	round := func(n int) {
		var left atomic.Int64
		left.Store(int64(n))
		var wg sync.WaitGroup
		for i := range 24 {
			wg.Go(func() {
				if i%4 == 3 {
					soakClient2(f.addr, &left)
				} else {
					soakClient(f.addr, &left)
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
			return s.Active == 0 && inFlight == 0
		})
		f.registry.Close() // the idle connections to the backend, whose goroutines and descriptors are counted here too
	}
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	round(*soakRequests / 10)
	// What is there for good is there after the first round, and those that wait for more work have gone.
	until(t, "the first round is over", func() bool { return runtime.NumGoroutine() <= goroutines+8 })
	goroutines = runtime.NumGoroutine()
	bytes := heap()
	round(*soakRequests)
	left := ""
	defer func() { t.Log(left) }()
	until(t, "nothing is left", func() bool {
		g, n, b := runtime.NumGoroutine(), openFiles(t), heap()
		left = fmt.Sprintf("%d goroutines, were %d; %d files, were %d; %d bytes, were %d", g, goroutines, n, files, b, bytes)
		return g <= goroutines+2 && n <= files+2 && b <= bytes+2<<20
	})
	s := f.Stats()
	t.Logf("%v answered, %d cut, %d upgrades, %d HTTP/2 connections", s.Answered, s.Cut, s.Upgrades, s.HTTP2)
	if s.Answered[2] == 0 || s.Cut == 0 || s.Upgrades == 0 || s.HTTP2 == 0 {
		t.Error("something did not happen at all")
	}
}
