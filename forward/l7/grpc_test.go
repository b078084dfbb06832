package l7

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l7/certtest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// An echo is a gRPC service with a method of each kind, of messages that are bytes.
type echo struct {
	left chan error // how each call that hangs ended
}

type bytesValue = wrapperspb.BytesValue

// unary echoes, fails as it is told to, or hangs until the client has gone.
func (e *echo) unary(ctx context.Context, in *bytesValue) (*bytesValue, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	switch string(in.Value) {
	case "fail":
		grpc.SetTrailer(ctx, metadata.Pairs("why", "told to"))
		return nil, status.Error(codes.FailedPrecondition, "told to fail: ünïcode")
	case "hang":
		<-ctx.Done()
		e.left <- ctx.Err()
		return nil, ctx.Err()
	}
	grpc.SetHeader(ctx, metadata.Pairs("head", fmt.Sprint(md["ask"]), "bin-bin", "\x00\xff"))
	grpc.SetTrailer(ctx, metadata.Pairs("trail", "end"))
	return in, nil
}

// up adds what it gets; down counts down; both echoes as it comes, and "fail" ends it with an error.
func (e *echo) up(s grpc.ServerStream) error {
	n := 0
	for {
		m := new(bytesValue)
		if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
			return s.SendMsg(wrapperspb.Bytes(fmt.Append(nil, n)))
		} else if err != nil {
			return err
		}
		n += len(m.Value)
	}
}

func (e *echo) down(s grpc.ServerStream) error {
	m := new(bytesValue)
	if err := s.RecvMsg(m); err != nil {
		return err
	}
	for i := range 100 {
		if err := s.SendMsg(wrapperspb.Bytes(fmt.Append(nil, i))); err != nil {
			return err
		}
	}
	if string(m.Value) == "hang" {
		<-s.Context().Done()
		e.left <- s.Context().Err()
		return s.Context().Err()
	}
	s.SetTrailer(metadata.Pairs("trail", "end"))
	return nil
}

func (e *echo) both(s grpc.ServerStream) error {
	for {
		m := new(bytesValue)
		if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if string(m.Value) == "fail" {
			return status.Error(codes.Aborted, "told to")
		}
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}

func (e *echo) desc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(
			_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor,
		) (any, error) {
			in := new(bytesValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			return e.unary(ctx, in)
		}}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Up", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return e.up(s) }},
			{StreamName: "Down", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return e.down(s) }},
			{StreamName: "Both", ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return e.both(s) }},
		},
	}
}

// grpcBackend serves e until the test ends.
func grpcBackend(t testing.TB, e *echo, opts ...grpc.ServerOption) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(16<<20))...)
	s.RegisterService(e.desc(), e)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestGRPC calls every kind of method through, with TLS and without on either side.
func TestGRPC(t *testing.T) {
	ca := certtest.New(t)
	for _, secureClient := range []bool{false, true} {
		for _, p := range []forward.Protocol{forward.H2C, forward.H2} {
			t.Run(fmt.Sprintf("TLS %v to %s", secureClient, p), func(t *testing.T) {
				e := &echo{left: make(chan error, 10)}
				var opts []grpc.ServerOption
				if p == forward.H2 {
					opts = append(opts, grpc.Creds(credentials.NewTLS(serverTLS(ca, certtest.Leaf{}))))
				}
				listener := Listener{Routes: anyRoute}
				creds := insecure.NewCredentials()
				if secureClient {
					listener.TLS = secure(ca, "a.test")
					creds = credentials.NewClientTLSFromCert(ca.Pool(), "a.test")
				}
				f := startVia(t, transportTo(p, ca), Options{Listeners: []Listener{listener}}, grpcBackend(t, e, opts...))
				c, err := grpc.Dial(f.addr, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() { callAll(t, c) })
				}
				wg.Wait()
				callEmpty(t, c)
				callHanging(t, c, e)
				until(t, "all leases have ended", func() bool { return f.registry.Snapshot()[1].InFlight == 0 })
			})
		}
	}
}

// callAll calls what ends by itself.
func callAll(t *testing.T, c *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "ask", "this"), time.Minute)
	defer cancel()
	for _, n := range []int{0, 5, 100_000, 1 << 20} {
		in, out := wrapperspb.Bytes(bytes.Repeat([]byte("x"), n)), new(bytesValue)
		var head, trail metadata.MD
		err := c.Invoke(ctx, "/test.Echo/Unary", in, out, grpc.Header(&head), grpc.Trailer(&trail))
		if err != nil || len(out.Value) != n {
			t.Errorf("unary of %d bytes: got %d, %v", n, len(out.Value), err)
			continue
		}
		if fmt.Sprint(head["head"], trail["trail"], []byte(head["bin-bin"][0])) != "[[this]] [end] [0 255]" {
			t.Errorf("unary: metadata is %v, trailers %v", head, trail)
		}
	}
	var trail metadata.MD
	err := c.Invoke(ctx, "/test.Echo/Unary", wrapperspb.Bytes([]byte("fail")), new(bytesValue), grpc.Trailer(&trail))
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "told to fail: ünïcode" || fmt.Sprint(trail["why"]) != "[told to]" {
		t.Errorf("failure: got %v and %v", err, trail)
	}
	err = c.Invoke(ctx, "/test.Echo/Nothing", new(bytesValue), new(bytesValue))
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("no such method: got %v", err)
	}

	s, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/test.Echo/Up")
	if err != nil {
		t.Error(err)
		return
	}
	for range 50 {
		if err := s.SendMsg(wrapperspb.Bytes(make([]byte, 1000))); err != nil {
			t.Errorf("up: %v", err)
		}
	}
	out := new(bytesValue)
	s.CloseSend()
	if err := s.RecvMsg(out); err != nil || string(out.Value) != "50000" {
		t.Errorf("up: got %q, %v", out.Value, err)
	}

	if s, err = c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Down"); err == nil {
		s.SendMsg(new(bytesValue))
		s.CloseSend()
		n := 0
		for err = s.RecvMsg(out); err == nil; err = s.RecvMsg(out) {
			n++
		}
		if n != 100 || !errors.Is(err, io.EOF) || fmt.Sprint(s.Trailer()["trail"]) != "[end]" {
			t.Errorf("down: got %d, %v, trailers %v", n, err, s.Trailer())
		}
	} else {
		t.Error(err)
	}

	if s, err = c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/Both"); err != nil {
		t.Error(err)
		return
	}
	for i := range 20 { // in turns: nothing may wait for the end of anything
		if err := s.SendMsg(wrapperspb.Bytes(fmt.Append(nil, i))); err != nil {
			t.Errorf("both: %v", err)
		}
		if err := s.RecvMsg(out); err != nil || string(out.Value) != fmt.Sprint(i) {
			t.Errorf("both: got %q, %v, want %d", out.Value, err, i)
		}
	}
	s.SendMsg(wrapperspb.Bytes([]byte("fail")))
	if err := s.RecvMsg(out); status.Code(err) != codes.Aborted {
		t.Errorf("both: got %v, want what it was told to", err)
	}
}

// callEmpty begins streams and says nothing: a server knows the end of what a client says by a DATA frame.
func callEmpty(t *testing.T, c *grpc.ClientConn) {
	for range 10 { // the end comes with the head, or later
		if t.Failed() {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/Both")
		if err == nil {
			s.CloseSend()
			err = s.RecvMsg(new(bytesValue))
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("empty stream: got %v, want its end", err)
		}
		cancel()
	}
}

// callHanging calls what the client ends: by a deadline, or by leaving.
func callHanging(t *testing.T, c *grpc.ClientConn, e *echo) {
	gone := func(what string, want error) {
		t.Helper()
		select {
		case err := <-e.left:
			if !errors.Is(err, want) {
				t.Errorf("%s: the backend saw %v, want %v", what, err, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the backend never saw it", what)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // long enough to get there
	err := c.Invoke(ctx, "/test.Echo/Unary", wrapperspb.Bytes([]byte("hang")), new(bytesValue))
	cancel()
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("deadline: got %v", err)
	}
	select { // its own deadline, which was passed on, or our leaving: whichever comes first
	case <-e.left:
	case <-time.After(10 * time.Second):
		t.Error("deadline: the backend never saw it")
	}
	ctx, cancel = context.WithCancel(t.Context())
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Down")
	if err != nil {
		t.Fatal(err)
	}
	s.SendMsg(wrapperspb.Bytes([]byte("hang")))
	s.CloseSend()
	for range 100 {
		if err := s.RecvMsg(new(bytesValue)); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	cancel()
	gone("cancellation", context.Canceled)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a cancellation took %s to arrive", took)
	}
}

// TestGRPCWithoutBackend: a client of gRPC gets a status it understands.
func TestGRPCWithoutBackend(t *testing.T) {
	f := startVia(t, forward.Transport{Protocol: forward.H2C}, Options{}, nobody(t))
	c, err := grpc.Dial(f.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Invoke(t.Context(), "/test.Echo/Unary", new(bytesValue), new(bytesValue))
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}
