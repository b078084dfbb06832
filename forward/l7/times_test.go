package l7

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
)

// TestTimes: the same limits of time hold whatever protocol the client and the backend speak, with the same status or the same
// end, counted for the same reason; and the backend is let go.
func TestTimes(t *testing.T) {
	ca := certtest.New(t)
	secured := secure(ca, "a.test")
	for _, out := range []forward.Protocol{forward.HTTP1, forward.H2C} {
		for version := 1; version <= 3; version++ {
			t.Run(fmt.Sprintf("HTTP %d to %s", version, out), func(t *testing.T) {
				t.Parallel()
				left := make(chan string, 10)
				backend := protocolBackend(t, out, nil, timesHandler(left))
				const short = 300 * time.Millisecond
				start := func(times Times) (*fixture, *http.Client, string) {
					l := []Listener{{Routes: anyRoute, Times: times, TLS: secured, HTTP3: true}, {Routes: anyRoute, Times: times}}
					f := startVia(t, forward.Transport{Protocol: out}, Options{Listeners: l}, backend.addr)
					switch version {
					case 1:
						return f, client(t), "http://" + f.Addrs()[1].String()
					case 2:
						return f, client2(t), "http://" + f.Addrs()[1].String()
					}
					c, _ := client3(t, ca, f.Addrs3()[0].String())
					return f, c, "https://a.test"
				}
				wantLeft := func(path string) {
					t.Helper()
					select {
					case got := <-left:
						if got != path {
							t.Errorf("the backend let go of %s, want %s", got, path)
						}
					case <-time.After(15 * time.Second):
						t.Errorf("%s: the backend is still at it", path)
					}
				}
				f, c, base := start(Times{Response: time.Second, Body: short, Write: time.Second})
				res, err := c.Get(base + "/silent")
				if slurp(t, res, err); res.StatusCode != 504 || res.ProtoMajor != version {
					t.Errorf("a backend silent before its head: got %d over %s, want 504", res.StatusCode, res.Proto)
				}
				wantLeft("/silent")

				if res, err = c.Get(base + "/hangs"); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(res.Body); err == nil || string(got) != "abc" || f.Stats().Cut != 1 {
					t.Errorf("a backend silent in its body: got %q, %v, and %d cuts, want an error", got, err, f.Stats().Cut)
				}
				res.Body.Close()
				wantLeft("/hangs")

				r, w := io.Pipe()
				go w.Write(make([]byte, 20_000))
				res, err = c.Post(base+"/sink", "text/plain", r)
				if slurp(t, res, err); res.StatusCode != 408 || f.Stats().Refusals["body_time"] != 1 {
					t.Errorf("a client that stops sending: got %d, %v, want 408", res.StatusCode, f.Stats().Refusals)
				}
				w.Close()
				wantLeft("/sink")

				if res, err = c.Get(base + "/endless"); err != nil {
					t.Fatal(err)
				}
				wantLeft("/endless")
				res.Body.Close()
				outcomes := func(f *fixture) [6]uint64 { return [6]uint64(f.registry.Snapshot()[1].Outcomes) }
				until(t, "every outcome is told", func() bool {
					o := outcomes(f)
					return o[forward.OutcomeTimeout] == 2 && o[forward.OutcomeClient] == 2
				})

				f, c, base = start(Times{Request: short})
				res, err = c.Get(base + "/silent")
				if slurp(t, res, err); res.StatusCode != 504 || f.Stats().Refusals["request_time"] != 1 {
					t.Errorf("a request that takes too long: got %d, %v, want 504", res.StatusCode, f.Stats().Refusals)
				}
				wantLeft("/silent")
				if res, err = c.Get(base + "/endless"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err == nil || f.Stats().Refusals["request_time"] != 2 {
					t.Errorf("an answer that takes too long: got %v, %v", err, f.Stats().Refusals)
				}
				res.Body.Close()
				wantLeft("/endless")
			})
		}
	}
}

// A trickle is a body that comes too slowly.
type trickle struct{ left int }

func (r *trickle) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(minRateGrace / 20)
	r.left--
	p[0] = 'x'
	return 1, nil
}

// TestTrickle: a client that never stops sending, but sends hardly anything, is refused, whatever it speaks.
func TestTrickle(t *testing.T) {
	ca := certtest.New(t)
	times := Times{Body: 4 * time.Second} // what is spliced is looked at when that is over
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute, Times: times, TLS: secure(ca, "a.test"), HTTP3: true}, {Routes: anyRoute, Times: times}}},
		webBackend(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	three, _ := client3(t, ca, f.Addrs3()[0].String())
	addr := f.Addrs()[1].String()
	ask := map[int]func(size int) (*http.Response, error){
		1: func(size int) (*http.Response, error) { // net/http would gather
			w := dial(t, addr)
			fmt.Fprintf(w, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
			go io.CopyBuffer(struct{ io.Writer }{w.TCPConn}, &trickle{left: size}, make([]byte, 1))
			return http.ReadResponse(w.r, nil)
		},
	}
	for version, c := range map[int]*http.Client{2: client2(t), 3: three} {
		ask[version] = func(size int) (*http.Response, error) {
			req, _ := http.NewRequest("POST", map[int]string{2: "http://" + addr, 3: "https://a.test"}[version], &trickle{left: size})
			req.ContentLength = int64(size)
			return c.Do(req)
		}
	}
	var wg sync.WaitGroup
	for version, ask := range ask {
		for _, size := range []int{1000, 1 << 20} { // is collected before it is passed on, or not
			wg.Go(func() {
				res, err := ask(size)
				if err != nil {
					t.Errorf("HTTP/%d, %d bytes: %v", version, size, err)
					return
				}
				defer res.Body.Close()
				if res.StatusCode != 408 || res.ProtoMajor != version {
					t.Errorf("%s, %d bytes: got %d, want 408", res.Proto, size, res.StatusCode)
				}
			})
		}
	}
	wg.Wait()
	if n := f.Stats().Refusals["body_rate"]; n != 6 {
		t.Errorf("%d refusals were counted, want 6", n)
	}
}

// timesHandler does not what its paths want, and says when it is let go.
func timesHandler(left chan<- string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() { left <- r.URL.Path }()
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/hangs":
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("abc"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/sink":
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				<-r.Context().Done()
			}
		case "/endless":
			for piece := make([]byte, 64<<10); ; {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		}
	}
}
