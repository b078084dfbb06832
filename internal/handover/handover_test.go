package handover

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns both ends as connections.
func pair(t *testing.T) (*Conn, *Conn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	b, err := connOf(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestMessagesAndFilesArrive(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, files := range []int{0, 1, batchFiles, 2*batchFiles + 7} {
		fds := make([]int, files)
		for i := range fds {
			fds[i] = int(w.Fd())
		}
		sent := make(chan error, 1)
		text := strings.Repeat("x", 300_000) // more than a socket's buffer
		go func() { sent <- a.Send("offer", text, fds, 5*time.Second) }()
		m, err := b.Receive(5 * time.Second)
		if err != nil || <-sent != nil {
			t.Fatalf("%d files: %v", files, err)
		}
		var got string
		if err := m.Decode(&got); err != nil || got != text || m.Kind != "offer" || len(m.Files) != files {
			t.Fatalf("%d files: got kind %q, %d bytes, %d files: %v", files, m.Kind, len(got), len(m.Files), err)
		}
		for _, fd := range m.Files {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Fatalf("file %d: flags %x, %v; want close-on-exec", fd, flags, err)
			}
		}
		m.Close()
	}
	w.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("some copy of the file was not closed: %d, %v", n, err)
	}
}

func TestBadMessages(t *testing.T) {
	tests := map[string]string{
		"too long":       "\xff\xff\xff\xff",
		"cut off":        "\x00\x00\x00\x10{",
		"not JSON":       "\x00\x00\x00\x02{{",
		"too many files": "\x00\x00\x00\x22" + `{"Kind":"offer","Files":100000000}`,
		"negative":       "\x00\x00\x00\x1b" + `{"Kind":"offer","Files":-1}`,
		"no files come":  "\x00\x00\x00\x1a" + `{"Kind":"offer","Files":1}` + "x",
	}
	for name, raw := range tests {
		a, b := pair(t)
		if _, err := io.WriteString(a.c, raw); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if m, err := b.Receive(5 * time.Second); err == nil {
			t.Errorf("%s: got %+v", name, m)
		}
	}
	_, b := pair(t)
	if _, err := b.Receive(10 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing came: got %v, want that time ran out", err)
	}
}

// TestSocketsAreFoundAndTaken: what listens here is found, by network and address, and serves on under another descriptor.
func TestSocketsAreFoundAndTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	unixSocket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp6, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", tcp.Addr().String()) // neither end of it listens
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	sockets, fds, err := Listening()
	if err != nil {
		t.Fatal(err)
	}
	count := map[Socket]int{}
	for _, s := range sockets {
		count[s]++
	}
	port6 := tcp6.Addr().(*net.TCPAddr).Port
	for _, want := range []Socket{{"unix", path}, {"tcp", tcp.Addr().String()}, {"udp", udp.LocalAddr().String()}} {
		if count[want] != 1 {
			t.Errorf("%v was found %d times in %v", want, count[want], sockets)
		}
	}
	if bad := (Socket{"tcp", client.LocalAddr().String()}); count[bad] != 0 {
		t.Errorf("%v is a connection, not a listening socket", bad)
	}
	Inherit(sockets, fds)
	tcp.Close()
	tcp6.Close()
	udp.Close()
	unixSocket.(*net.UnixListener).SetUnlinkOnClose(false)
	unixSocket.Close()

	if !Has("tcp", tcp.Addr().String()) || Has("udp", tcp.Addr().String()) {
		t.Error("Has is wrong about a TCP socket")
	}
	for _, s := range []Socket{{"tcp", tcp.Addr().String()}, {"unix", path}, {"tcp", fmt.Sprintf("[::]:%d", port6)}} {
		l, err := Listener(s.Network, s.Address)
		if l == nil || err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		defer l.Close()
		address := s.Address
		c, err := net.Dial(s.Network, strings.Replace(address, "[::]", "127.0.0.1", 1))
		if err != nil {
			t.Fatalf("%v does not serve: %v", s, err)
		}
		c.Close()
		if again, err := Listener(s.Network, s.Address); again != nil || err != nil {
			t.Errorf("%v can be taken twice", s)
		}
	}
	p, err := PacketConn("udp", udp.LocalAddr().String())
	if p == nil || err != nil {
		t.Fatal(err)
	}
	p.Close()
	CloseRest()
	if len(CloseRest()) != 0 {
		t.Error("something is left after CloseRest")
	}
}

func TestInheritedRefusesNonsense(t *testing.T) {
	t.Setenv(Env, "seven")
	if _, err := Inherited(); err == nil || !strings.Contains(err.Error(), Env) {
		t.Errorf("got %v, want an error that names %s", err, Env)
	}
	if _, ok := os.LookupEnv(Env); ok {
		t.Error("the word is still in the environment, for every child")
	}
	if conn, err := Inherited(); conn != nil || err != nil {
		t.Errorf("without it: %v, %v", conn, err)
	}
}
