package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errKey is a kernel that takes no TCP MD5 key.
var errKey = errors.New("the kernel takes no TCP MD5 key")

// control sets what a trial asks for before the connection is made.
func control(peer netip.Addr, v trial) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = v.set(int(fd), peer) })
		return errors.Join(err, failed)
	}
}

// arrivesWithin is how long what we sent may take to be acknowledged.
const arrivesWithin = 1500 * time.Millisecond

// arrives ends our side of a connection and reports whether the router acknowledges that: to BGP it says nothing.
func arrives(conn net.Conn) bool {
	tcp, ok := conn.(*net.TCPConn)
	if !ok || tcp.CloseWrite() != nil {
		return true
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < arrivesWithin; <-tick.C {
		var info *unix.TCPInfo
		var failed error
		err := raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
		if err != nil || failed != nil || info.State != unix.BPF_TCP_FIN_WAIT1 {
			return true
		}
	}
	return false
}

func (v trial) set(fd int, peer netip.Addr) error {
	level, ttl, minTTL := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_MINTTL
	if peer.Is6() {
		level, ttl, minTTL = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_MINHOPCOUNT
	}
	if v.ttl > 0 {
		if err := unix.SetsockoptInt(fd, level, ttl, v.ttl); err != nil {
			return fmt.Errorf("set TTL: %w", err)
		}
	}
	if v.minTTL > 0 {
		if err := unix.SetsockoptInt(fd, level, minTTL, v.minTTL); err != nil {
			return fmt.Errorf("set least TTL: %w", err)
		}
	}
	if v.password == "" {
		return nil
	}
	key := unix.TCPMD5Sig{Keylen: uint16(len(v.password))}
	if peer.Is4() {
		key.Addr.Family = unix.AF_INET
		a := peer.As4()
		copy(key.Addr.Data[2:], a[:])
	} else {
		key.Addr.Family = unix.AF_INET6
		a := peer.As16()
		copy(key.Addr.Data[6:], a[:])
	}
	copy(key.Key[:], v.password)
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &key); err != nil {
		return fmt.Errorf("%w: %w", errKey, err)
	}
	return nil
}
