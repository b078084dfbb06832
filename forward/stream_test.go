package forward

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// dialPeer returns a Stream and what it is connected to.
func dialPeer(t *testing.T) (*Stream, *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	s := NewStream(conn)
	t.Cleanup(func() {
		s.Close()
		peer.Close()
	})
	return s, peer
}

// TestAskEarlyAnswer: an answer that comes before the question has been written to its end is not overlooked.
func TestAskEarlyAnswer(t *testing.T) {
	s, peer := dialPeer(t)
	const size = 16 << 20 // more than both ends keep
	read := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, peer, 1)
		if err == nil {
			_, err = peer.Write([]byte("no"))
		}
		if err == nil {
			_, err = io.CopyN(io.Discard, peer, size-1)
		}
		read <- err
	}()
	s.ReadWithin(10 * time.Second)
	b, sent, err := s.Ask(make([]byte, size))
	if err != nil || !sent || string(b.Unread()) != "no" {
		t.Fatalf("sent %v, %v", sent, err)
	}
	b.Free()
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// TestAsk: one question after the other is answered, whether the deadlines are new or what is left of the last ones.
func TestAsk(t *testing.T) {
	s, peer := dialPeer(t)
	go io.Copy(peer, peer)
	for i := range 2000 {
		s.ReadWithin(10 * time.Second)
		s.WriteWithin(10 * time.Second)
		b, sent, err := s.Ask([]byte{byte(i)})
		if err != nil || !sent || len(b.Unread()) != 1 || b.Unread()[0] != byte(i) {
			t.Fatalf("question %d: sent %v, %v", i, sent, err)
		}
		b.Free()
		s.Recover()
	}
}

// TestAskOfTheDead: who has ended before is noticed as soon as the question reaches it, and who has only ended its side by the next look.
func TestAskOfTheDead(t *testing.T) {
	s, peer := dialPeer(t)
	peer.Close()
	s.ReadWithin(10 * time.Second)
	if b, _, err := s.Ask([]byte("?")); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("of one that is gone: %v, %v", b, err)
	}

	s, peer = dialPeer(t)
	peer.CloseWrite()
	for s.Quiet() { // until that has come
	}
	s.ReadWithin(10 * time.Millisecond)
	b, sent, err := s.Ask([]byte("?"))
	if !sent || !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("of one that says nothing more: %v, sent %v, %v", b, sent, err)
	}
	s.ReadWithin(10 * time.Second)
	if b, err = s.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("at the next look: %v, %v", b, err)
	}
}

// TestAskInterrupted: an interrupt ends the wait and is over with Recover.
func TestAskInterrupted(t *testing.T) {
	s, peer := dialPeer(t)
	s.ReadWithin(time.Minute)
	go func() {
		_, _ = io.CopyN(io.Discard, peer, 1) // it waits, or is about to
		s.Interrupt()
	}()
	if b, sent, err := s.Ask([]byte("?")); !sent || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("interrupted: %v, sent %v, %v", b, sent, err)
	}
	if _, sent, err := s.Ask([]byte("?")); sent || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after that: sent %v, %v", sent, err)
	}
	s.Recover()
	go io.Copy(peer, peer)
	s.ReadWithin(10 * time.Second)
	s.WriteWithin(10 * time.Second)
	b, _, err := s.Ask([]byte("!"))
	if err != nil || string(b.Unread()) != "!" {
		t.Fatal(err)
	}
	b.Free()
}
