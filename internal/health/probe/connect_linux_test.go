package probe

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOwnPort: the system may give a connection to a port at which nobody listens
// that very port. It is then connected to itself, which is no answer.
func TestOwnPort(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		there := l.Addr().(*net.TCPAddr).AddrPort()
		fd, err := tcpSocket(netip.Addr{}, there)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, tcpAddr(netip.AddrPortFrom(there.Addr(), 0))); err != nil {
			t.Fatal(err)
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		if ownPort(fd, there) {
			t.Errorf("%v is taken for ourselves", there)
		}
		if err := unix.Connect(fd, name); err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
		port := 0
		switch own := name.(type) {
		case *unix.SockaddrInet4:
			port = own.Port
		case *unix.SockaddrInet6:
			port = own.Port
		}
		if !ownPort(fd, netip.AddrPortFrom(there.Addr(), uint16(port))) {
			t.Error("a connection to itself goes unnoticed")
		}
	}
}

// TestAnswerInTime: a process that looks only after the deadline does not call a
// target late whose answer had come; one that said nothing is.
func TestAnswerInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := connectTCP(t.Context(), netip.Addr{}, l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	conn.SetDeadline(time.Now().Add(-time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent target: %v", err)
	}
	if _, err := there.Write([]byte("HTTP/1.1 200 OK\r\n")); err != nil {
		t.Fatal(err)
	}
	raw, err := conn.(socket).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); n != 1 {
			t.Errorf("nothing arrives: %v", err)
		}
	})
	c := Check{Kind: HTTP}.WithDefaults()
	doubts := func(at phase, err error) {
		t.Helper()
		if r := explain(err, at, c.Timeout); !r.Inconclusive {
			t.Errorf("%s finds %+v, want it to doubt itself", at, r)
		}
	}
	_, at, err := ask1(conn, (&prober{}).reader(), &c) // cannot even send
	doubts(at, err)
	_, at, err = ask1(sent{conn}, (&prober{}).reader(), &c)
	doubts(at, err)
	if err := conn.(socket).connected(); !errors.Is(err, errTooSlow) {
		t.Errorf("connected, and looked at after the deadline: %v", err)
	}
}

// sent is a connection over which everything has been sent.
type sent struct{ net.Conn }

func (sent) Write(p []byte) (int, error) { return len(p), nil }
