package l7

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// A dialler3 makes connections of HTTP/3 over one socket, and sees and may lose what is sent to it.
type dialler3 struct {
	net.PacketConn
	retries atomic.Int64
	lossy   atomic.Bool // Retry never arrives
}

func (d *dialler3) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := d.PacketConn.ReadFrom(p)
		if err != nil || n == 0 || p[0]>>4 != 0xf { // a long header, of type Retry (RFC 9000, 17.2)
			return n, from, err
		}
		d.retries.Add(1)
		if !d.lossy.Load() {
			return n, from, err
		}
	}
}

// connect3 opens a connection of HTTP/3 that ends with the test.
func connect3(t *testing.T, ca *certtest.CA, addr net.Addr) (*http3.ClientConn, *dialler3, error) {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dialler3{PacketConn: socket}
	tr := &quic.Transport{Conn: d}
	t.Cleanup(func() { tr.Close(); socket.Close() })
	return d.dial(t, ca, addr, tr)
}

func (d *dialler3) dial(t *testing.T, ca *certtest.CA, addr net.Addr, tr *quic.Transport) (*http3.ClientConn, *dialler3, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := tr.Dial(ctx, addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test", NextProtos: []string{"h3"}}, nil)
	if err != nil {
		return nil, d, err
	}
	t.Cleanup(func() { c.CloseWithError(0x100, "") })
	return (&http3.Transport{}).NewClientConn(c), d, nil
}

// ask sends a handshake of a WebSocket (RFC 9220) and returns the stream with the answer to it.
func ask3WebSocket(t *testing.T, c *http3.ClientConn, protocol, path string) (*http3.RequestStream, *http.Response) {
	t.Helper()
	select {
	case <-c.ReceivedSettings():
	case <-time.After(10 * time.Second):
		t.Fatal("no SETTINGS")
	}
	if !c.Settings().EnableExtendedConnect {
		t.Fatal("SETTINGS do not say that CONNECT takes a protocol")
	}
	s, err := c.OpenRequestStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(20 * time.Second))
	u, err := url.Parse("https://a.test" + path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendRequestHeader(&http.Request{
		Method: http.MethodConnect, Proto: protocol, Host: "a.test", URL: u,
		Header: http.Header{"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {"chat"}, "Origin": {"https://a.test"}},
	}); err != nil {
		t.Fatal(err)
	}
	res, err := s.ReadResponse()
	if err != nil {
		t.Fatal(err)
	}
	return s, res
}

// A tunnelEndSeen is how a WebSocket ended at a backend.
type tunnelEndSeen struct {
	n   int64
	err error
}

// websocket3Backend does with a WebSocket what its path says; ends gets how each one ended.
func websocket3Backend(t *testing.T, ends chan tunnelEndSeen) *fixture {
	return start(t, Options{}, rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.Method != "GET" || req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Sec-Websocket-Version") != "13" ||
			req.Host != "a.test" || req.Header.Get("Origin") != "https://a.test" {
			t.Errorf("the backend got %v", req)
		}
		accept := websocketAccept([]byte(req.Header.Get("Sec-Websocket-Key")))
		switch req.URL.Path {
		case "/plain":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
			return
		case "/forbidden":
			io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
			return
		case "/wrong":
			accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello ", accept)
		if req.URL.Path == "/bye" {
			return
		}
		if req.URL.Path == "/reset" {
			r.ReadByte() // until what was answered has arrived
			c.SetLinger(0)
			return
		}
		to := io.Writer(c)
		if req.URL.Path == "/half" {
			c.CloseWrite()
			to = io.Discard
		}
		n, err := io.Copy(to, r)
		if req.URL.Path == "/echo" || req.URL.Path == "/half" {
			ends <- tunnelEndSeen{n, err}
		}
	}))
}

// TestWebSockets3: a WebSocket over HTTP/3 (RFC 9220) reaches a backend that speaks HTTP/1 and one that speaks HTTP/2, carries
// what is sent either way, and ends as either side ends it.
func TestWebSockets3(t *testing.T) {
	ca := certtest.New(t)
	ends := make(chan tunnelEndSeen, 10)
	inner := websocket3Backend(t, ends)
	for _, p := range []forward.Protocol{forward.HTTP1, forward.H2C} {
		t.Run(p.String(), func(t *testing.T) {
			f := startVia(t, forward.Transport{Protocol: p}, Options{Listeners: listener3(ca)}, inner.Addrs()[0])
			c, _, err := connect3(t, ca, net.UDPAddrFromAddrPort(f.Addrs3()[0]))
			if err != nil {
				t.Fatal(err)
			}
			t.Run("echo", func(t *testing.T) { echo3(t, c, ends) })
			t.Run("the backend ends it", func(t *testing.T) {
				s, _ := ask3WebSocket(t, c, "websocket", "/bye")
				if got, err := io.ReadAll(s); string(got) != "hello " || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
				s.Close()
			})
			t.Run("the backend ends its side", func(t *testing.T) {
				s, _ := ask3WebSocket(t, c, "websocket", "/half")
				if got, err := io.ReadAll(s); string(got) != "hello " || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
				if _, err := s.Write(make([]byte, 70_000)); err != nil {
					t.Error(err)
				}
				s.Close()
				if end := <-ends; end.n != 70_000 || end.err != nil {
					t.Errorf("then the backend got %d bytes and %v, want 70,000 and an end in order", end.n, end.err)
				}
			})
			t.Run("the backend breaks it off", func(t *testing.T) {
				s, _ := ask3WebSocket(t, c, "websocket", "/reset")
				s.Write([]byte("x"))
				var reset *http3.Error
				if got, err := io.ReadAll(s); !errors.As(err, &reset) || !reset.Remote {
					t.Errorf("got %q, %v, want a reset", got, err)
				}
			})
			t.Run("the client breaks it off", func(t *testing.T) {
				s, _ := ask3WebSocket(t, c, "websocket", "/echo")
				s.CancelWrite(quicCancelled)
				s.CancelRead(quicCancelled)
				select {
				case end := <-ends:
					if end.err == nil && p == forward.HTTP1 {
						t.Error("the backend saw an end in order")
					}
				case <-time.After(10 * time.Second):
					t.Error("the backend never saw it")
				}
			})
			for path, want := range map[string]int{"/plain": 502, "/wrong": 502, "/forbidden": 403} {
				if p == forward.H2C && path != "/forbidden" {
					want = 502 // as the one in front of the backend says
				}
				s, res := ask3WebSocket(t, c, "websocket", path)
				if res.StatusCode != want {
					t.Errorf("%s: got %d, want %d", path, res.StatusCode, want)
				}
				s.CancelRead(quicCancelled)
				s.Close()
			}
			s, res := ask3WebSocket(t, c, "connect-udp", "/echo")
			if res.StatusCode != 501 {
				t.Errorf("another protocol: got %d, want 501", res.StatusCode)
			}
			s.CancelRead(quicCancelled)
			s.Close()
			until(t, "no tunnel is left", func() bool { return f.registry.Snapshot()[1].InFlight == 0 })
			if s := f.Stats(); s.Upgrades != 8 || s.HTTP3 != 1 {
				t.Errorf("%d upgrades on %d connections, want 8 on one", s.Upgrades, s.HTTP3)
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		l := listener3(ca)
		l[0].Times.Tunnel = 200 * time.Millisecond
		f := start(t, Options{Listeners: l}, inner.Addrs()[0])
		c, _, err := connect3(t, ca, net.UDPAddrFromAddrPort(f.Addrs3()[0]))
		if err != nil {
			t.Fatal(err)
		}
		s, _ := ask3WebSocket(t, c, "websocket", "/echo")
		_, err = io.ReadAll(s)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("it was never ended")
		}
		<-ends
		until(t, "no tunnel is left", func() bool { return f.registry.Snapshot()[1].InFlight == 0 })
	})
}

// echo3 sends and receives at the same time, many WebSockets on one connection.
func echo3(t *testing.T, c *http3.ClientConn, ends chan tunnelEndSeen) {
	var wg sync.WaitGroup
	for i, size := range []int{0, 1, 70_000, 3 << 20} {
		s, res := ask3WebSocket(t, c, "websocket", "/echo")
		if res.StatusCode != 200 || res.Header.Get("Sec-Websocket-Protocol") != "chat" || len(res.Header["Sec-Websocket-Accept"]) > 0 || len(res.Header["Upgrade"]) > 0 {
			t.Fatalf("got %d %v", res.StatusCode, res.Header)
		}
		sent := bytes.Repeat([]byte{byte('a' + i)}, size)
		wg.Go(func() {
			if _, err := s.Write(sent); err != nil {
				t.Error(err)
			}
			s.Close()
		})
		wg.Go(func() {
			got, err := io.ReadAll(s)
			if err != nil || string(got) != "hello "+string(sent) {
				t.Errorf("of %d bytes got %d, %v", size, len(got), err)
			}
		})
	}
	wg.Wait()
	for range 4 {
		if end := <-ends; end.err != nil {
			t.Errorf("the backend saw %v after %d bytes, want an end in order", end.err, end.n)
		}
	}
}

// TestRetry3: while many connections are open, who comes has to show first that it has its address (RFC 9000, 8.1.2). It costs
// nothing here until it has.
func TestRetry3(t *testing.T) {
	ca := certtest.New(t)
	f := start(t, Options{Listeners: listener3(ca), MaxConns: 8}, says(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	addr := net.UDPAddrFromAddrPort(f.Addrs3()[0])
	for i := range 8 {
		c, d, err := connect3(t, ca, addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if got := d.retries.Load(); (got > 0) != (i > 2) { // each datagram of a hello gets one
			t.Errorf("connection %d got %d Retry packets; a quarter of 8 is 2", i, got)
		}
		req, _ := http.NewRequest("GET", "https://a.test/", nil)
		res, err := c.RoundTrip(req)
		if got := slurp(t, res, err); got != "ok" {
			t.Errorf("connection %d got %q", i, got)
		}
		if i != 4 {
			continue
		}
		// Who does not have the address gets no further, and is not counted.
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		liar := &dialler3{PacketConn: socket}
		liar.lossy.Store(true)
		tr := &quic.Transport{Conn: liar}
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := tr.Dial(ctx, addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test", NextProtos: []string{"h3"}}, nil)
			failed <- err
		}()
		until(t, "it is asked twice", func() bool { return liar.retries.Load() >= 2 })
		if s := f.Stats(); s.HTTP3 != 5 || s.Active3 != 5 {
			t.Errorf("%d connections were counted, %d are open, want 5", s.HTTP3, s.Active3)
		}
		cancel()
		if err := <-failed; err == nil {
			t.Error("it was let in")
		}
		tr.Close()
		socket.Close()
	}
	if _, _, err := connect3(t, ca, addr); err == nil {
		t.Error("the ninth was let in")
	}
	if n := f.Stats().Refused3; n < 1 {
		t.Errorf("%d were refused, want one", n)
	}
}
