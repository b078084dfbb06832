package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDefaultDrain: with nothing set, what is open when Run's context ends may finish.
func TestDefaultDrain(t *testing.T) {
	front, err := NewFront(FrontOptions[struct{}]{
		Listeners: []Listen[struct{}]{{Address: netip.MustParseAddrPort("127.0.0.1:0")}},
		Serve: func(_ context.Context, c *Conn[struct{}]) {
			_, _ = io.Copy(c.Stream, c.Stream)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	address := front.Addrs()[0].String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- front.Run(ctx) }()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	echo := func(text string) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(DefaultDrain))
		_, _ = io.WriteString(c, text)
		got := make([]byte, len(text))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
			t.Fatalf("got %q, %v, want %q", got, err, text)
		}
	}
	echo("before")
	cancel()
	for { // until nothing is accepted any more, which comes after the start of draining
		c, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	echo("while draining")
	c.Close()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// Two processes that share an address without knowing would each serve half.
func TestSecondOwnerIsRefused(t *testing.T) {
	serve := func(context.Context, *Conn[int]) {}
	first, err := NewFront(FrontOptions[int]{Serve: serve, Listeners: []Listen[int]{{Address: netip.MustParseAddrPort("127.0.0.1:0")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	taken := first.Addrs()[0]
	_, err = NewFront(FrontOptions[int]{Serve: serve, Listeners: []Listen[int]{{Address: taken}}})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.String()) {
		t.Errorf("got %v, want an error that names %s", err, taken)
	}
}

// TestAcceptedWithBytes: a connection is served when its first bytes are there, so that nobody waits for them, or
// a while later without any.
func TestAcceptedWithBytes(t *testing.T) {
	found := make(chan string)
	front, err := NewFront(FrontOptions[struct{}]{
		Listeners: []Listen[struct{}]{{Address: netip.MustParseAddrPort("127.0.0.1:0")}},
		Serve: func(_ context.Context, c *Conn[struct{}]) {
			b := make([]byte, 16)
			n := 0
			_ = c.Stream.raw.Control(func(fd uintptr) { n, _ = syscall.Read(int(fd), b) }) // does not wait
			found <- string(b[:max(n, 0)])
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- front.Run(ctx) }()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", front.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	began := time.Now()
	silent := dial()
	defer silent.Close()
	said := 0
	for served := false; said < 20 || !served; {
		if said < 20 {
			c := dial()
			defer c.Close()
			if _, err := io.WriteString(c, "hello"); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case got := <-found:
			switch {
			case got == "hello":
				said++
			case got != "" || served:
				t.Fatalf("served with %q there", got)
			case time.Since(began) < 900*time.Millisecond: // the kernel gives it a second
				t.Fatal("the silent one was served before anybody could know that it is")
			default:
				served = true
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a silent connection is never served")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
