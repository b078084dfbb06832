package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// The protocol numbers of ICMP.
const (
	protocolICMP   = 1
	protocolICMPv6 = 58
)

// errNoPing is the obstacle that this process may not send echo requests.
var errNoPing = obstacle{errors.New("ICMP wants this process's group in the sysctl net.ipv4.ping_group_range, or the capability CAP_NET_RAW")}

// probeICMP sends an echo request to the target's address, whatever its port, and
// waits for the reply.
func (p *prober) probeICMP(ctx context.Context, c *Check) Result {
	conn, raw, err := dialICMP(ctx, p.sourceOf(c.Target), c.Target.Addr.Addr().Unmap())
	if err != nil {
		return explain(err, connecting, c.Timeout)
	}
	defer conn.Close()
	defer bound(ctx, conn)()
	at, err := echo(conn, c.Target.Addr.Addr().Unmap().Is4(), raw)
	if err != nil {
		return explain(err, at, c.Timeout)
	}
	return Result{}
}

// dialICMP returns a socket that speaks ICMP with one address alone: one that
// needs no privilege if the system lets us, and else a raw one.
func dialICMP(ctx context.Context, from, to netip.Addr) (conn net.Conn, raw bool, err error) {
	conn, err = pingSocket(from, to)
	if !denied(err) {
		return conn, false, err
	}
	network := "ip4:1"
	if to.Is6() {
		network = "ip6:58"
	}
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = &net.IPAddr{IP: from.AsSlice(), Zone: from.Zone()}
	}
	conn, err = d.DialContext(ctx, network, to.String())
	if denied(err) {
		return nil, true, errNoPing
	}
	return conn, true, err
}

// denied reports whether err is that of a privilege that is missing.
func denied(err error) bool { return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) }

// echo sends an echo request and reads until its reply. The 16 random bytes in it
// tell the reply from those to others, whose replies a raw socket sees as well.
func echo(conn net.Conn, v4, raw bool) (phase, error) {
	token := make([]byte, 16)
	rand.Read(token)
	body := &icmp.Echo{ID: int(binary.BigEndian.Uint16(token)), Seq: int(binary.BigEndian.Uint16(token[2:])), Data: token}
	ask := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: body}
	want, protocol := icmp.Type(ipv4.ICMPTypeEchoReply), protocolICMP
	if !v4 {
		ask.Type, want, protocol = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, protocolICMPv6
	}
	wire, err := ask.Marshal(nil) // the kernel fills in the checksum of ICMPv6
	if err != nil {
		return sending, err
	}
	if _, err := conn.Write(wire); err != nil {
		return sending, err
	}
	for got := make([]byte, 1500); ; {
		// ReadFrom takes the IP header off what a raw socket reads, unlike Read.
		n, _, err := conn.(net.PacketConn).ReadFrom(got)
		if err != nil {
			return answering, err
		}
		reply, err := icmp.ParseMessage(protocol, got[:n])
		if err != nil || reply.Type != want {
			continue
		}
		// The kernel gives unprivileged sockets an ID of its own, and only replies to it.
		is, ok := reply.Body.(*icmp.Echo)
		if ok && is.Seq == body.Seq && bytes.Equal(is.Data, token) && (!raw || is.ID == body.ID) {
			return answering, nil
		}
	}
}
