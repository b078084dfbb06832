package l7

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
)

// TestLyingBackends: whatever a backend says, the client gets a well-formed
// answer or the end of its connection, and never the bytes of one request's
// answer in another's.
func TestLyingBackends(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\n"
	ca := certtest.New(t)
	secured := secure(ca, "a.test")
	const cut = -1 // the connection ends inside the answer
	tests := []struct {
		name   string
		answer string // "!" at the end: and closes
		want   int
		body   string
		fact   forward.Outcome
	}{
		{"nothing", "!", 502, "", forward.OutcomeReset},
		{"garbage", "garbage\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"another protocol", "SSH-2.0-OpenSSH_9.9\r\n!", 502, "", forward.OutcomeReset},
		{"half a head", ok + "Content-Le!", 502, "", forward.OutcomeReset},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", 502, "", forward.OutcomeProtocol},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"status of two digits", "HTTP/1.1 20 OK\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"status 99", "HTTP/1.1 099 OK\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"status 999", "HTTP/1.1 999 OK\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"control in the reason", "HTTP/1.1 200 O\x00K\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"length and coding", ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"length twice", ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc", 502, "", forward.OutcomeProtocol},
		{"length odd", ok + "Content-Length: -2\r\n\r\nabc", 502, "", forward.OutcomeProtocol},
		{"coding unknown", ok + "Transfer-Encoding: gzip, chunked\r\n\r\nabc", 502, "", forward.OutcomeProtocol},
		{"coding in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"folded", ok + "A: b\r\n c\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"split by NUL", ok + "A: b\x00c\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"head without end", ok + strings.Repeat("A: b\r\n", 4000), 502, "", forward.OutcomeProtocol},
		{"too many fields", ok + strings.Repeat("A: b\r\n", 200) + "\r\n", 502, "", forward.OutcomeProtocol},
		{"bare CR", ok + "A: b\rc\r\n\r\n", 502, "", forward.OutcomeProtocol},
		{"1xx storm", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000), 502, "", forward.OutcomeProtocol},
		{"101 unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 502, "", forward.OutcomeProtocol},

		{"short body", ok + "Content-Length: 10\r\n\r\nabc!", cut, "", forward.OutcomeReset},
		{"short long body", ok + "Content-Length: 1000000\r\n\r\nabc!", cut, "", forward.OutcomeReset},
		{"no last chunk", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n!", cut, "", forward.OutcomeReset},
		{"bad chunk", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", 502, "", forward.OutcomeProtocol},
		{"chunk size too large", ok + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc", 502, "", forward.OutcomeProtocol},
		{"chunk extension endless", ok + "Transfer-Encoding: chunked\r\n\r\n3;" + strings.Repeat("a", 9000), 502, "", forward.OutcomeProtocol},
		{"bad trailer", ok + "Transfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n", 502, "", forward.OutcomeProtocol},

		{"long body", ok + "Content-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200, "abc", forward.OutcomeServed},
		{"body behind 204", "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 204, "", forward.OutcomeServed},
		{"answer behind the last chunk", ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200, "", forward.OutcomeServed},
		{"no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, "", forward.OutcomeServed},
		{"trailer that frames", ok + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\nX: y\r\n\r\n", 200, "", forward.OutcomeServed},
		{"an error is an answer", "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", 503, "busy", forward.OutcomeError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, Options{Listeners: []Listener{{Routes: anyRoute}, {Routes: anyRoute, TLS: secured, HTTP3: true}}}, says(t, tt.answer))
			c := dial(t, f.addr)
			for range 3 { // the same client connection, as long as it lasts
				c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				res, err := http.ReadResponse(c.r, nil)
				for err == nil && res.StatusCode == 102 {
					res, err = http.ReadResponse(c.r, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if tt.want == cut {
					if err == nil {
						t.Fatalf("got the whole answer %q, want it cut", body)
					}
					break
				}
				if err != nil || res.StatusCode != tt.want || tt.want != 502 && string(body) != tt.body {
					t.Fatalf("got %d %q %v, want %d %q", res.StatusCode, body, err, tt.want, tt.body)
				}
				if res.Close {
					t.Fatal("the client's connection has to go for the backend's fault")
				}
			}
			until(t, "outcome", func() bool {
				return f.registry.Snapshot()[1].Outcomes[tt.fact] > 0
			})
			three, _ := client3(t, ca, f.Addrs3()[0].String())
			for version, c := range map[int]*http.Client{2: client2(t), 3: three} {
				url := "http://" + f.addr
				if version == 3 {
					url = "https://a.test"
				}
				for range 3 {
					res, err := c.Get(url)
					if err != nil {
						if tt.want == cut || version == 3 && tt.name == "1xx storm" { // of which quic-go's client takes five
							continue
						}
						t.Fatalf("HTTP/%d: %v", version, err)
					}
					body, err := io.ReadAll(res.Body)
					res.Body.Close()
					switch {
					case res.ProtoMajor != version:
						t.Fatalf("got %s", res.Proto)
					case tt.want == cut && err == nil && res.StatusCode != 502:
						t.Fatalf("HTTP/%d: got the whole answer %d %q, want it cut", version, res.StatusCode, body)
					case tt.want != cut && (err != nil || res.StatusCode != tt.want || tt.want != 502 && string(body) != tt.body):
						t.Fatalf("HTTP/%d: got %d %q %v, want %d %q", version, res.StatusCode, body, err, tt.want, tt.body)
					}
				}
			}
		})
	}
}

// TestResetInTheBody: a backend that resets its connection in the middle of an answer cuts it, for clients of any version, and
// nothing else.
func TestResetInTheBody(t *testing.T) {
	ca := certtest.New(t)
	had := make(chan struct{})
	f := start(t, Options{Listeners: []Listener{{Routes: anyRoute}, {Routes: anyRoute, TLS: secure(ca, "a.test"), HTTP3: true}}},
		rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
			for {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				if req.URL.Path == "/cut" {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
					<-had
					c.SetLinger(0)
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}))
	three, _ := client3(t, ca, f.Addrs3()[0].String())
	for version, c := range []*http.Client{1: client(t), 2: client2(t), 3: three} {
		if version == 0 {
			continue
		}
		url := "http://" + f.addr
		if version == 3 {
			url = "https://a.test"
		}
		res, err := c.Get(url + "/cut")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 3)); err != nil {
			t.Fatalf("HTTP/%d: %v", version, err)
		}
		had <- struct{}{}
		if rest, err := io.ReadAll(res.Body); err == nil || len(rest) > 0 || res.ProtoMajor != version {
			t.Errorf("%s: got %q more and %v, want an error", res.Proto, rest, err)
		}
		res.Body.Close()
		res, err = c.Get(url)
		if got := slurp(t, res, err); got != "ok" {
			t.Errorf("HTTP/%d: then got %q", version, got)
		}
	}
}

// TestNothingPoisonsTheNext has an idle upstream connection speak unasked.
func TestNothingPoisonsTheNext(t *testing.T) {
	spoken := make(chan struct{}, 10)
	f := start(t, Options{}, rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			time.Sleep(20 * time.Millisecond) // after the answer has been taken
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
			spoken <- struct{}{}
		}
	}))
	c := dial(t, f.addr)
	for range 5 {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := c.read("GET"); got.body != "ok" {
			t.Fatalf("got %q", got.body)
		}
		<-spoken
	}
}

// TestClientGoes has clients leave at every stage; nothing stays behind.
func TestClientGoes(t *testing.T) {
	f := start(t, Options{}, webBackend(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		for range 50 {
			if _, err := io.WriteString(w, strings.Repeat("x", 10000)); err != nil {
				return
			}
		}
	}))
	for _, part := range []string{
		"", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
	} {
		for _, reset := range []bool{false, true} {
			c := dial(t, f.addr)
			c.send(part)
			if reset {
				c.SetLinger(0)
			}
			c.Close()
		}
	}
	// One that is reset before it has said anything is never accepted.
	until(t, "all have gone", func() bool {
		s := f.registry.Snapshot()[1]
		return f.Stats().Active == 0 && s.InFlight == 0 && f.Stats().Accepted == 13
	})
	if s := f.registry.Snapshot()[1]; s.Outcomes[forward.OutcomeReset]+s.Outcomes[forward.OutcomeProtocol] > 2 {
		t.Errorf("the backend is blamed: %+v", s.Outcomes)
	}
}
