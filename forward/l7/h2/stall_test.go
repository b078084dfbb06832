package h2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
)

// A stubborn is a connection with a peer that reads only when the test says so, and one stream that is open on it.
type stubborn struct {
	t testing.TB
	*http2.Framer
	conn    *Conn
	stream  *Stream
	near    *net.TCPConn
	far     net.Conn
	block   bytes.Buffer
	enc     *hpack.Encoder
	ended   chan error // of Run
	stuffed int64      // bytes that mean nothing, before what follows
}

// stubbornPatience is how long a peer may wait for us to read or write.
const stubbornPatience = 20 * time.Second

func newStubborn(t *testing.T, opts Options) *stubborn {
	t.Helper()
	near, far := pair(t)
	in, out := near.(*net.TCPConn), far.(*net.TCPConn)
	err := errors.Join(in.SetWriteBuffer(4<<10), out.SetReadBuffer(4<<10), out.SetWriteBuffer(32<<10), in.SetReadBuffer(32<<10))
	if err != nil {
		t.Fatal(err)
	}
	far.SetDeadline(time.Now().Add(stubbornPatience))
	s := &stubborn{t: t, near: in, far: far, Framer: http2.NewFramer(far, far), ended: make(chan error, 1)}
	s.enc = hpack.NewEncoder(&s.block)
	served := make(chan *Stream, 1)
	if !opts.Client {
		opts.Serve = func(st *Stream) { served <- st }
	}
	opts.MaxStreams, opts.Stall = 1, time.Minute
	s.conn = New(forward.NewStream(near), nil, opts)
	go func() { s.ended <- s.conn.Run() }()
	t.Cleanup(func() { s.conn.Close(); <-s.ended })
	if opts.Client {
		if s.stream, err = s.conn.Start(Message{Head: AppendField(nil, []byte(":method"), []byte("GET")), End: true}, false, time.Second); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, far, int64(len(preface))); err != nil {
			t.Fatal(err)
		}
		s.await(http2.FrameHeaders, 1)
		s.WriteSettings()
		s.head(1, false, ":status", "200")
	} else {
		io.WriteString(far, preface)
		s.WriteSettings()
		s.head(1, false, ":method", "POST")
		s.stream = <-served
	}
	for s.await(http2.FrameSettings, 0).Header().Flags&http2.FlagSettingsAck == 0 {
	}
	return s
}

func (s *stubborn) head(id uint32, end bool, fields ...string) {
	s.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		s.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.block.Bytes(), EndStream: end, EndHeaders: true})
}

// await reads until a frame of a kind and stream.
func (s *stubborn) await(kind http2.FrameType, id uint32) http2.Frame {
	s.t.Helper()
	for {
		f, err := s.ReadFrame()
		if err != nil {
			s.t.Fatalf("no %s of stream %d came: %v", kind, id, err)
		}
		if f.Header().Type == kind && f.Header().StreamID == id {
			return f
		}
	}
}

// stuff leaves no room for anything that we might write, while nobody writes.
func (s *stubborn) stuff() {
	s.t.Helper()
	raw, err := s.near.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for before := int64(-1); before < s.stuffed; { // the kernel may still be moving some of it
			before = s.stuffed
			for n := 1; n > 0; s.stuffed += int64(max(n, 0)) {
				n, _ = unix.Write(int(fd), make([]byte, 4<<10))
			}
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 50)
		}
	})
}

// bulk writes a body of the open stream, as much as may be written without reading.
func (s *stubborn) bulk() {
	s.t.Helper()
	for range DefaultWindow / maxFrame {
		if err := s.WriteData(1, false, make([]byte, maxFrame)); err != nil {
			s.t.Fatalf("the peer that does not read cannot write: %v", err)
		}
	}
}

// TestBothWriteFirst: a peer that reads only when it has written all is read from, whatever we owe it meanwhile, and
// then gets that: two that both wait in a write until the other reads would wait for ever.
func TestBothWriteFirst(t *testing.T) {
	for name, c := range map[string]struct {
		client  bool
		provoke func(s *stubborn)
		kind    http2.FrameType
		id      uint32
	}{
		"ping": {provoke: func(s *stubborn) {
			for range 100 {
				s.WritePing(false, [8]byte{1})
			}
		}, kind: http2.FramePing},
		"settings":         {provoke: func(s *stubborn) { s.WriteSettings() }, kind: http2.FrameSettings},
		"too many streams": {provoke: func(s *stubborn) { s.head(3, true, ":method", "GET") }, kind: http2.FrameRSTStream, id: 3},
		"bad stream": {
			provoke: func(s *stubborn) { s.head(3, true, ":method", "GET", "content-length", "-1") },
			kind:    http2.FrameRSTStream, id: 3,
		},
		"leaving":           {provoke: func(s *stubborn) { s.near.SetReadDeadline(time.Unix(1, 0)) }, kind: http2.FrameGoAway},
		"ping of a backend": {client: true, provoke: func(s *stubborn) { s.WritePing(false, [8]byte{1}) }, kind: http2.FramePing},
		"its settings":      {client: true, provoke: func(s *stubborn) { s.WriteSettings() }, kind: http2.FrameSettings},
		"its bad head":      {client: true, provoke: func(s *stubborn) { s.head(1, false, ":status", "abc") }, kind: http2.FrameRSTStream, id: 1},
		"it is asked whether it lives": {
			client: true, provoke: func(s *stubborn) { s.near.SetReadDeadline(time.Unix(1, 0)) }, kind: http2.FramePing,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *stubborn
			s = newStubborn(t, Options{Client: c.client, Waited: func() error {
				s.near.SetReadDeadline(time.Time{})
				if c.client {
					s.conn.Ping()
				} else {
					s.conn.Leave()
				}
				return nil
			}})
			s.stuff()
			c.provoke(s)
			s.bulk()
			if _, err := io.CopyN(io.Discard, s.far, s.stuffed); err != nil {
				t.Fatal(err)
			}
			s.await(c.kind, c.id)
		})
	}
}

// TestUnreadAnswers: a peer that asks and asks, and does not read what it is answered, is left.
func TestUnreadAnswers(t *testing.T) {
	s := newStubborn(t, Options{})
	s.stuff()
	sent := 0
	for ; sent < 10*maxOwed; sent++ {
		// A byte of a body with each, so that what it sends is not for nothing.
		if s.WriteData(1, false, []byte{1}) != nil || s.WritePing(false, [8]byte{}) != nil {
			break
		}
	}
	select {
	case err := <-s.ended:
		s.ended <- err
		if !errors.Is(err, ErrFlood) {
			t.Errorf("it ended with %v, want %v", err, ErrFlood)
		}
	case <-time.After(stubbornPatience):
		t.Errorf("it reads on after %d pings", sent)
	}
	if have := cap(s.conn.out); have > 2*maxOut {
		t.Errorf("%d bytes wait to be written", have)
	}
}

// TestFieldBlockOfNothing: a field block that never ends, of frames without a byte, is a flood, a backend's too, which has
// no time for its head. One in many frames that ends is none.
func TestFieldBlockOfNothing(t *testing.T) {
	for name, client := range map[string]bool{"of a client": false, "of a backend": true} {
		t.Run(name, func(t *testing.T) {
			s := newStubborn(t, Options{Client: client})
			s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
			for range 2 * spareFrames {
				if s.WriteContinuation(1, false, nil) != nil {
					break
				}
			}
			select {
			case err := <-s.ended:
				s.ended <- err
				if !errors.Is(err, ErrFlood) {
					t.Errorf("it ended with %v, want %v", err, ErrFlood)
				}
			case <-time.After(stubbornPatience):
				t.Error("it reads on")
			}
		})
	}
	t.Run("that ends", func(t *testing.T) {
		s := newStubborn(t, Options{Client: true})
		s.block.Reset()
		s.enc.WriteField(hpack.HeaderField{Name: ":status", Value: "103"})
		for range 3 { // blocks, each of which begins the count anew
			s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: s.block.Bytes()})
			for range spareFrames/2 - 2 {
				s.WriteContinuation(1, false, nil)
			}
			s.WriteContinuation(1, true, nil)
		}
		s.WritePing(false, [8]byte{1})
		s.await(http2.FramePing, 0)
	})
}

// TestCreditIsSaid: the window of bytes that nobody will read is given back at once, since it may be all that the peer
// waits for.
func TestCreditIsSaid(t *testing.T) {
	t.Run("padding", func(t *testing.T) {
		s := newStubborn(t, Options{})
		for range DefaultWindow / 4 / 256 {
			s.WriteDataPadded(1, false, nil, make([]byte, 255))
		}
		s.await(http2.FrameWindowUpdate, 1)
	})
	t.Run("body of a request that was broken off", func(t *testing.T) {
		s := newStubborn(t, Options{Client: true})
		s.stream.Reset(http2.ErrCodeCancel)
		s.await(http2.FrameRSTStream, 1)
		s.bulk()
		s.await(http2.FrameWindowUpdate, 0)
	})
}
