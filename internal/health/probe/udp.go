package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
)

// UDPExchange is what a UDP check sends and wants. One datagram is sent, and the
// first that comes back decides.
type UDPExchange struct {
	Send   string // the bytes, at most 1200; "" = an empty datagram
	Expect string // must occur in the answer; "" = any answer
}

// maxDatagram is the longest datagram that a check sends: one that every path
// takes whole.
const maxDatagram = 1200

// validateUDP returns what is wrong with the UDP part.
func (c Check) validateUDP() (errs []error) {
	if len(c.UDP.Send) > maxDatagram {
		errs = append(errs, fmt.Errorf("udp send %.40q…: longer than %d bytes", c.UDP.Send, maxDatagram))
	}
	return append(errs, tooLong(c.UDP.Expect)...)
}

// probeUDP runs a UDP check once.
func (p *prober) probeUDP(ctx context.Context, c *Check) Result {
	fail := func(err error, at phase) Result { return explain(unreachable(err, "udp"), at, c.Timeout) }
	conn, err := p.dial(ctx, "udp", c)
	if err != nil {
		return fail(err, connecting)
	}
	defer conn.Close()
	defer bound(ctx, conn)()
	if _, err := conn.Write([]byte(c.UDP.Send)); err != nil {
		return fail(err, sending)
	}
	buffer, _ := p.buffers.Get().(*[maxBodyBytes]byte)
	if buffer == nil {
		buffer = new([maxBodyBytes]byte)
	}
	defer p.buffers.Put(buffer)
	got := buffer[:]
	n, err := conn.Read(got)
	if err != nil {
		return fail(err, answering)
	}
	if !bytes.Contains(got[:n], []byte(c.UDP.Expect)) {
		return fail(finding{fmt.Errorf("answer %.40q does not contain %.60q", got[:n], c.UDP.Expect)}, answering)
	}
	return Result{}
}

// unreachable says of a refused datagram what ICMP says; TCP refuses connections.
func unreachable(err error, network string) error {
	if network == "udp" && errors.Is(err, syscall.ECONNREFUSED) {
		return finding{errors.New("port unreachable")}
	}
	return err
}
