package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"github.com/pharos-lb/pharos/forward/porttest"
)

// This file has the loads of an upgrade that speak TLS, QUIC and UDP.

// A secureRig is what they need beside the rig's own: ports of the node, and who has signed it.
type secureRig struct {
	ca                *certtest.CA
	certificate, key  string
	ticketKey         string
	rpc               netip.AddrPort // a backend that speaks gRPC
	https, udp, oneUp int            // ports of the node
	laned             int            // one whose sessions the kernel carries, where it can
}

func newSecureRig(t *testing.T) secureRig {
	t.Helper()
	s := secureRig{ca: certtest.New(t), rpc: rpcBackend(t), https: porttest.Free(t), udp: porttest.Free(t), oneUp: porttest.Free(t), laned: porttest.Free(t)}
	s.certificate, s.key = s.ca.Write("node", certtest.Leaf{Names: []string{"a.test"}})
	s.ticketKey = s.key + ".tickets"
	if err := os.WriteFile(s.ticketKey, []byte("a secret of session tickets"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// services and listeners are its part of the configuration.
func (s *secureRig) services() string {
	return fmt.Sprintf(`  rpc: {check: {tcp: {}, every: 1s}, transport: h2c, backends: {fra: ["%s"]}}
`, s.rpc)
}

func (s *secureRig) listeners() string {
	return fmt.Sprintf(`  - bind: "127.0.0.1:%d"
    tls: {certificates: [{certificate: "%s", key: "%s"}], ticket_key_file: "%s"}
    http: {http3: true, routes: [{path: /test.Echo, service: rpc}, {service: web}]}
  - {bind: "127.0.0.1:%d", udp: {service: echo}}
  - {bind: "127.0.0.1:%d", udp: {service: echo, responses: 1}}
  - {bind: "127.0.0.1:%d", udp: {service: echo, offload: kernel}}
`, s.https, s.certificate, s.key, s.ticketKey, s.udp, s.oneUp, s.laned)
}

// rpcBackend serves one method of gRPC, a stream both ways that echoes.
func rpcBackend(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Echo", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Both", ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			for {
				m := new(wrapperspb.BytesValue)
				if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(m); err != nil {
					return err
				}
			}
		},
	}}}, nil)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echoDatagrams sends back what comes to an address.
func echoDatagrams(t *testing.T, at netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				conn.WriteToUDPAddrPort(buffer[:n], from)
			}
		}
	}()
}

func (s *secureRig) client(protocol string) *tls.Config {
	return &tls.Config{RootCAs: s.ca.Pool(), ServerName: "a.test", NextProtos: []string{protocol}}
}

func (s *secureRig) dialTLS(config *tls.Config) (*tls.Conn, error) {
	return tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", fmt.Sprintf("127.0.0.1:%d", s.https), config)
}

func (s *secureRig) keepAlive() *load {
	return keepAlive("HTTPS keep-alive", func() (net.Conn, error) { return s.dialTLS(s.client("http/1.1")) })
}

func (s *secureRig) webSocket() (net.Conn, error) {
	conn, err := s.dialTLS(s.client("http/1.1"))
	if err != nil {
		return nil, err
	}
	return conn, switchProtocols(conn)
}

// handshakes makes one for each of its requests; with resume all but the first resume a session.
func (s *secureRig) handshakes(resume bool) *load {
	config, name, known := s.client("http/1.1"), "TLS handshakes", false
	if resume {
		config.ClientSessionCache, name = tls.NewLRUClientSessionCache(1), "TLS resumptions"
	}
	return &load{name: name, once: func() error {
		time.Sleep(2 * time.Millisecond)
		conn, err := s.dialTLS(config)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		if err := wantOK(resp); err != nil {
			return err
		}
		if resumed := conn.ConnectionState().DidResume; resumed != known {
			return fmt.Errorf("resumed %v, want %v", resumed, known)
		}
		known = resume
		return nil
	}}
}

// wantOK reads an answer to its end.
func wantOK(resp *http.Response) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "ok" {
		return fmt.Errorf("%s %q: %v", resp.Status, body, err)
	}
	return nil
}

// requests asks again and again, by one version of HTTP and with what begin makes: once, or anew for each request.
func (s *secureRig) requests(t *testing.T, name string, version int, anew bool, begin func() (http.RoundTripper, func())) *load {
	transport, end := begin()
	t.Cleanup(func() { end() })
	resumes := false // once it does it always has to
	return &load{name: name, once: func() error {
		time.Sleep(2 * time.Millisecond)
		if anew {
			end()
			transport, end = begin()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/", s.https), nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		if resp.ProtoMajor != version {
			return fmt.Errorf("%s, want version %d", resp.Proto, version)
		}
		if resumes && !resp.TLS.DidResume {
			return errors.New("the session was not resumed")
		}
		resumes = resp.TLS.DidResume
		return wantOK(resp)
	}}
}

func (s *secureRig) http2() (http.RoundTripper, func()) {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: s.client("h2"), Protocols: protocols, DisableCompression: true}
	return transport, transport.CloseIdleConnections
}

// http3 resumes no session unless cache has one.
func (s *secureRig) http3(cache tls.ClientSessionCache) func() (http.RoundTripper, func()) {
	return func() (http.RoundTripper, func()) {
		config := s.client(http3.NextProtoH3)
		config.ClientSessionCache = cache
		transport := &http3.Transport{
			TLSClientConfig: config, DisableCompression: true,
			// Not early: quic-go's client of version 0.65 has data races when its 0-RTT meets the end of the handshake.
			Dial: func(ctx context.Context, address string, config *tls.Config, quicConfig *quic.Config) (*quic.Conn, error) {
				return quic.DialAddr(ctx, address, config, quicConfig)
			},
		}
		return transport, func() { transport.Close() }
	}
}

// heldRPC is one stream of gRPC that goes on and on.
func (s *secureRig) heldRPC(t *testing.T) *load {
	t.Helper()
	conn, err := grpc.Dial(fmt.Sprintf("127.0.0.1:%d", s.https), grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(s.ca.Pool(), "a.test")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Both")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	return &load{name: "held gRPC stream", once: func() error {
		time.Sleep(5 * time.Millisecond)
		n++
		text := fmt.Sprint("message ", n)
		if err := stream.SendMsg(wrapperspb.Bytes([]byte(text))); err != nil {
			return err
		}
		got := new(wrapperspb.BytesValue)
		if err := stream.RecvMsg(got); err != nil || string(got.Value) != text {
			return fmt.Errorf("got %q back, want %q: %v", got.Value, text, err)
		}
		return nil
	}}
}

// calls makes a stream of gRPC for each message, over one connection for as long as that lasts.
func (s *secureRig) calls(t *testing.T) *load {
	t.Helper()
	conn, err := grpc.Dial(fmt.Sprintf("127.0.0.1:%d", s.https), grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(s.ca.Pool(), "a.test")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &load{name: "gRPC calls", once: func() error {
		time.Sleep(2 * time.Millisecond)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		got := new(wrapperspb.BytesValue)
		if err := conn.Invoke(ctx, "/test.Echo/Both", wrapperspb.Bytes([]byte("once")), got, grpc.WaitForReady(true)); err != nil || string(got.Value) != "once" {
			return fmt.Errorf("got %q back: %v", got.Value, err)
		}
		return nil
	}}
}

// session is one flow of datagrams that goes on and on, several of them under way at any time: each has to come back, once.
func (s *secureRig) session(t *testing.T, name string, port int) *load {
	t.Helper()
	const (
		every    = 2 * time.Millisecond
		patience = 2 * time.Second
	)
	conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	sent := map[uint64]time.Time{} // and not back
	next, oldest := uint64(0), uint64(0)
	buffer := make([]byte, 64)
	return &load{name: name, once: func() error {
		begin := time.Now()
		sent[next] = begin
		if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, next)); err != nil {
			return err
		}
		next++
		conn.SetReadDeadline(begin.Add(every))
		for {
			n, err := conn.Read(buffer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			id := binary.BigEndian.Uint64(buffer[:max(n, 8)])
			if _, ok := sent[id]; n != 8 || !ok {
				return fmt.Errorf("%d bytes came back that nobody waits for", n)
			}
			delete(sent, id)
		}
		for ; oldest < next; oldest++ {
			if at, ok := sent[oldest]; ok && time.Since(at) < patience {
				break
			} else if ok {
				delete(sent, oldest)
				oldest++
				return fmt.Errorf("datagram %d did not come back", oldest-1)
			}
		}
		return nil
	}}
}

// datagrams is one flow for each datagram.
func (s *secureRig) datagrams() *load {
	return &load{name: "UDP one-shot", once: func() error {
		time.Sleep(2 * time.Millisecond)
		conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", s.oneUp))
		if err != nil {
			return err
		}
		defer conn.Close()
		return pingPong(conn, "once\n")
	}}
}

// all are the loads of this file.
func (s *secureRig) all(t *testing.T) []*load {
	t.Helper()
	cache := tls.NewLRUClientSessionCache(1)
	return []*load{
		s.keepAlive(), s.handshakes(false), s.handshakes(true), held(t, "held WebSocket over TLS", s.webSocket),
		s.requests(t, "HTTP/2 kept", 2, false, s.http2), s.requests(t, "HTTP/2 anew", 2, true, s.http2),
		s.requests(t, "HTTP/3 kept", 3, false, s.http3(nil)), s.requests(t, "HTTP/3 anew", 3, true, s.http3(nil)),
		s.requests(t, "HTTP/3 resumed", 3, true, s.http3(cache)),
		s.heldRPC(t), s.calls(t), s.session(t, "UDP session", s.udp), s.session(t, "UDP session offloaded", s.laned), s.datagrams(),
	}
}
