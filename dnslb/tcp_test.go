package dnslb

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func frame(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func receive(t *testing.T, conn net.Conn) *dns.Msg {
	t.Helper()
	m, err := (&dns.Conn{Conn: conn}).ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPipelining: many questions in one write, or in pieces of any size, get
// their answers (RFC 7766 6.2.1.1).
func TestPipelining(t *testing.T) {
	s := start(t, Options{})
	conn := dial(t, s)
	var all []byte
	for i := range 300 {
		m := query("mail.example.com.", "A")
		m.Id = uint16(i)
		all = append(all, frame(t, m)...)
	}
	go func() {
		for size := 1; len(all) > 0; size = size*2 + 1 {
			n := min(size, len(all))
			if _, err := conn.Write(all[:n]); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			all = all[n:]
		}
	}()
	seen := make(map[uint16]bool)
	for range 300 {
		m := receive(t, conn)
		seen[m.Id] = true
		if len(m.Answer) != 1 {
			t.Fatalf("got\n%v", m)
		}
	}
	if len(seen) != 300 {
		t.Errorf("%d different answers, want 300", len(seen))
	}
}

// TestLargeAnswer: what is truncated over UDP is whole over TCP.
func TestLargeAnswer(t *testing.T) {
	s := start(t, Options{})
	if got := ask(t, s, "tcp", query("big.example.com.", "TXT")); got.Truncated || len(got.Answer) != 3 {
		t.Errorf("got\n%v", got)
	}
}

// TestMalformedOverTCP: an answer to what has a header; the connection goes on.
func TestMalformedOverTCP(t *testing.T) {
	s := start(t, Options{})
	conn := dial(t, s)
	_, _ = conn.Write(append([]byte{0, 14}, "\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x40\x40"...))
	if got := receive(t, conn); got.Rcode != dns.RcodeFormatError || got.Id != 0x1234 {
		t.Errorf("got\n%v", got)
	}
	_, _ = conn.Write(frame(t, query("mail.example.com.", "A")))
	if got := receive(t, conn); len(got.Answer) != 1 {
		t.Errorf("got\n%v", got)
	}
}

func closed(conn net.Conn) bool {
	_, err := io.Copy(io.Discard, conn)
	return err == nil || !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestIdle: a silent connection is closed after the idle time, also when it
// never said anything.
func TestIdle(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Tunables: Tunables{TCPIdle: time.Second}})
	silent, used := dial(t, s), dial(t, s)
	_, _ = used.Write(frame(t, query("mail.example.com.", "A")))
	receive(t, used)
	begun := time.Now()
	if !closed(silent) || !closed(used) {
		t.Error("an idle connection stays open")
	}
	if d := time.Since(begun); d < 500*time.Millisecond || d > 5*time.Second {
		t.Errorf("closed after %v, want about 1s", d)
	}
}

// TestHalfMessage: a message that never ends does not hold a connection.
func TestHalfMessage(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Tunables: Tunables{TCPIdle: time.Hour}})
	conn := dial(t, s)
	_, _ = conn.Write([]byte{0, 100, 1, 2, 3})
	if !closed(conn) {
		t.Error("still open")
	}
}

// TestSlowReader: who asks and does not read is cut off, and costs nobody else.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Tunables: Tunables{TCPIdle: time.Hour}})
	conn := dial(t, s)
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	m := frame(t, query("big.example.com.", "TXT"))
	for {
		if _, err := conn.Write(m); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("not cut off")
			}
			break
		}
	}
	if got := s.metrics.tcp.Slow.Load(); got != 1 {
		t.Errorf("counted %d slow readers, want 1", got)
	}
	ask(t, s, "tcp", query("mail.example.com.", "A"))
}

// TestConnectionCap: at the limit one that is idle makes room (which one, package
// transport tests).
func TestConnectionCap(t *testing.T) {
	s := start(t, Options{Tunables: Tunables{TCPMax: 3, TCPIdle: time.Minute}})
	for range 5 {
		ask(t, s, "tcp", query("mail.example.com.", "A"))
		conn := dial(t, s) // stays open
		if _, err := conn.Write(frame(t, query("mail.example.com.", "A"))); err != nil {
			t.Fatal(err)
		}
		receive(t, conn)
		if got := s.pool.Open(); got > 3 {
			t.Fatalf("%d connections are open, at most 3", got)
		}
	}
	if s.metrics.tcp.Evicted.Load() < 2 {
		t.Errorf("%d evicted, want at least 2", s.metrics.tcp.Evicted.Load())
	}
}
