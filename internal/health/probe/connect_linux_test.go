package probe

import (
	"net"
	"net/netip"
	"testing"

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
