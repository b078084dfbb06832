package probe

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// prober looks at targets for real. Each probe has a connection of its own and
// ends with its context, in every phase. It may be used from many goroutines.
type prober struct {
	// Immutable.
	source func(health.Target) netip.Addr
	roots  *x509.CertPool

	patterns patterns
	buffers  sync.Pool // of *[maxBodyBytes]byte, for datagrams
	readers  sync.Pool // of *bufio.Reader, for answers in HTTP/1
}

// phase is what a probe is doing, in the words of its errors.
type phase string

// The phases of a probe.
const (
	connecting phase = "connecting"
	securing   phase = "in the TLS handshake"
	quicking   phase = "in the QUIC handshake"
	sending    phase = "sending the request"
	waiting    phase = "waiting for headers"
	answering  phase = "waiting for an answer"
	reading    phase = "reading the body"
)

// tooLate is how long after its deadline a probe may end. Everything that a probe
// waits for ends at the deadline, so that more than this is our own doing: the
// process was frozen, or starved of processor time.
const tooLate = 500 * time.Millisecond

// probe runs c once.
func (p *prober) probe(ctx context.Context, c Check) Result {
	r := p.look(ctx, &c)
	if deadline, ok := ctx.Deadline(); ok {
		if late := time.Since(deadline); late > tooLate {
			return Result{Inconclusive: true, Code: r.Code, Err: fmt.Sprintf(
				"cannot probe: this node was too slow, the probe ended %v after its deadline", late.Round(time.Millisecond))}
		}
	}
	return r
}

// look runs c once, however long it takes.
func (p *prober) look(ctx context.Context, c *Check) Result {
	switch c.Kind {
	case TCP, TLS:
		return p.probeStream(ctx, c)
	case HTTP, HTTPS:
		return p.probeHTTP(ctx, c)
	case DNS:
		return p.probeDNS(ctx, c)
	case UDP:
		return p.probeUDP(ctx, c)
	case GRPC:
		return p.probeGRPC(ctx, c)
	case ICMP:
		return p.probeICMP(ctx, c)
	default:
		return Result{Inconclusive: true, Err: "cannot probe: no checks of " + c.Kind.String()}
	}
}

// probeStream runs a TCP or TLS check once.
func (p *prober) probeStream(ctx context.Context, c *Check) Result {
	_, end, at, err := p.open(ctx, c)
	if err != nil {
		return explain(err, at, c.Timeout)
	}
	end()
	return Result{}
}

// dial connects to the target from the source address that is meant for it.
// network is tcp or udp. Checks are handed on by reference: they are large, and a
// stack that grows for copies is a good part of what a probe costs.
func (p *prober) dial(ctx context.Context, network string, c *Check) (net.Conn, error) {
	from := p.sourceOf(c.Target)
	if network == "tcp" {
		return connectTCP(ctx, from, c.Target.Addr)
	}
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return d.DialContext(ctx, network, c.Target.Addr.String())
}

// connectTCP connects as connectBound does; the connection does not end with ctx.
func connectTCP(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	conn, undo, err := connectBound(ctx, from, to)
	if err != nil {
		return nil, err
	}
	undo()
	return conn, nil
}

// sourceOf returns the address from which t is probed; the zero address leaves it
// to the system.
func (p *prober) sourceOf(t health.Target) netip.Addr {
	if p.source == nil {
		return netip.Addr{}
	}
	from := p.source(t)
	if !from.IsValid() || from.Unmap().Is4() != t.Addr.Addr().Unmap().Is4() {
		return netip.Addr{}
	}
	return from
}

// bound makes conn end with ctx; the function it returns undoes that and waits
// until it is undone.
func bound(ctx context.Context, conn net.Conn) (undo func()) {
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		conn.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}
