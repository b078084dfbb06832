package l7

import (
	"fmt"
	"io"
	"net/http"
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
