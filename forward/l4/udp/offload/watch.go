package offload

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// restBetween is how long a lane that was emptied is left alone: routes may come and go all the time. It is also how often
// what routers say of the size of packets is looked at.
const restBetween = time.Second

// A watch hears of changes of links, addresses, routes and rules.
type watch struct {
	socket *os.File
	closed chan struct{}
}

func newWatch() (*watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, group := range []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_NEXTHOP,
	} {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	return &watch{socket: os.NewFile(uintptr(fd), "netlink"), closed: make(chan struct{})}, nil
}

// wait waits for a change, for a time. It reports whether there was one, and false once the watch is closed.
func (w *watch) wait(patience time.Duration) (changed, open bool) {
	if err := w.socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return false, false
	}
	conn, err := w.socket.SyscallConn()
	if err != nil {
		return false, false
	}
	err = conn.Read(func(fd uintptr) bool {
		changed = drain(int(fd))
		return changed
	})
	return changed, err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// drain throws away what has come, and reports whether there was something. What it was does not matter, nor whether some
// of it was lost (ENOBUFS).
func drain(fd int) (some bool) {
	var buffer [4096]byte
	for {
		switch _, _, err := unix.Recvfrom(fd, buffer[:], unix.MSG_DONTWAIT); {
		case errors.Is(err, unix.EAGAIN):
			return some
		case errors.Is(err, unix.EINTR):
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return true
		default:
			some = true
		}
	}
}

// rest waits for a time; false if the watch was closed meanwhile.
func (w *watch) rest(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w.closed:
		return false
	case <-t.C:
		return true
	}
}

// close ends the watch. It may be called again, not at the same time.
func (w *watch) close() {
	select {
	case <-w.closed:
	default:
		close(w.closed)
		w.socket.Close()
	}
}
