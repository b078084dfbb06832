package probe

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultTimeout bounds each connection. A kernel needs three seconds to find out that nobody has an address.
const DefaultTimeout = 4 * time.Second

// mostHops is how far away a router is searched for.
const mostHops = 16

// A Target is one router as the speaker would dial it.
type Target struct {
	Local, Peer netip.Addr
	Port        uint16
	Password    string // TCP MD5; empty = none
	ASN         uint32 // ours
	PeerASN     uint32 // as configured
	RouterID    netip.Addr
	Hold        time.Duration
	Multihop    int // TTL; 0 = directly connected
	TTLSecurity int // hops; 0 = not checked
}

// Options of Run.
type Options struct {
	Timeout time.Duration // of each connection; 0 = DefaultTimeout

	// Open says our OPEN, too, waits for what the router makes of it, and leaves with Cease.
	Open bool
}

// A Cause is what a probe found.
type Cause uint8

// The causes.
const (
	Spoke       Cause = iota // it sent an OPEN
	Mute                     // it took the connection and said nothing
	Closed                   // it took the connection and closed it without a word
	Said                     // it refused with a NOTIFICATION
	Foreign                  // what it sends is not BGP
	Refused                  // nothing listens there
	Unreachable              // the network says that it cannot be reached
	Silent                   // no answer whatever was tried
	NoSource                 // this machine does not have the source address
	NoKey                    // this kernel takes no TCP MD5 key
	Forbidden                // this machine does not let the connection out
	NoPassword               // it answers without a password only
	Further                  // it answers when it may be further away: see Hops
	WantsTTL                 // it answers only to a TTL of 255: it has TTL security and we have not
	LacksTTL                 // our TTL security drops what it sends
	Deaf                     // it sent an OPEN, and acknowledges nothing that we send
	Broken                   // anything else: see Detail
)

var causeNames = [...]string{
	"spoke", "mute", "closed", "said", "foreign", "refused", "unreachable", "silent", "no source", "no key", "forbidden", "no password",
	"further", "wants TTL", "lacks TTL", "deaf", "broken",
}

func (c Cause) String() string { return causeNames[c] }

// A Result is what was found.
type Result struct {
	Cause  Cause
	Detail string // the system's or the router's words
	Hops   int    // of Further: the least TTL that reaches it
	Heard  *Open  // its OPEN; nil = it said none
	Took   bool   // with Options.Open: it accepted ours
}

// A trial is one way to connect.
type trial struct {
	password    string
	ttl, minTTL int // 0 = the system's
}

// Run probes a router. It takes at most a dozen times Options.Timeout, and ends with ctx.
func Run(ctx context.Context, t Target, o Options) Result {
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	first := t.asSpeaker()
	conn, err := t.dial(ctx, first, o.Timeout)
	if err == nil {
		defer conn.Close()
		return t.judge(ctx, first, o, conn, t.converse(conn, o))
	}
	r := Result{Cause: causeOf(err), Detail: plain(err)}
	if r.Cause != Silent && r.Cause != Unreachable {
		return r
	}
	if better, ok := t.vary(ctx, first, o.Timeout); ok {
		better.Detail = r.Detail
		return better
	}
	return r
}

// judge looks at a conversation that stopped for what TTL security does: it lets the connection begin, since the listening
// socket has none, and then drops what the other side says.
func (t Target) judge(ctx context.Context, first trial, o Options, conn net.Conn, r Result) Result {
	again := func() (Result, bool) { // with a TTL that any router takes, and taking any
		conn, err := t.dial(ctx, trial{password: first.password, ttl: 255}, o.Timeout)
		if err != nil {
			return Result{}, false
		}
		defer conn.Close()
		r := t.converse(conn, Options{Timeout: o.Timeout})
		return r, r.Cause == Spoke && arrives(conn)
	}
	switch {
	case r.Cause == Mute && first.minTTL > 0:
		if better, ok := again(); ok {
			return Result{Cause: LacksTTL, Heard: better.Heard}
		}
	case first.ttl > 0 && first.minTTL == 0 && r.Heard != nil && (r.Cause == Mute || r.Cause == Spoke && !r.Took && !arrives(conn)):
		if better, ok := again(); ok {
			return Result{Cause: WantsTTL, Heard: better.Heard}
		}
		return Result{Cause: Deaf, Heard: r.Heard}
	}
	return r
}

// asSpeaker is how the speaker connects.
func (t Target) asSpeaker() trial {
	out := trial{password: t.Password}
	switch {
	case t.ASN == t.PeerASN:
	case t.TTLSecurity > 0:
		out.ttl, out.minTTL = 255, 256-t.TTLSecurity
	case t.Multihop > 0:
		out.ttl = t.Multihop
	default:
		out.ttl = 1
	}
	return out
}

// vary changes one thing at a time until the router answers.
func (t Target) vary(ctx context.Context, first trial, timeout time.Duration) (Result, bool) {
	answers := func(v trial) bool {
		conn, err := t.dial(ctx, v, timeout)
		if err == nil {
			_ = conn.Close()
		}
		// A refusal has come the whole way, too.
		return err == nil || causeOf(err) == Refused
	}
	if first.password != "" {
		bare := first
		bare.password = ""
		if answers(bare) {
			return Result{Cause: NoPassword}, true
		}
	}
	if first.ttl == 0 { // iBGP: any distance will do
		return Result{}, false
	}
	far := trial{password: first.password, ttl: 255}
	if !answers(far) {
		return Result{}, false
	}
	if first.minTTL > 0 {
		return Result{Cause: LacksTTL}, true
	}
	far.ttl = mostHops
	if !answers(far) {
		return Result{Cause: WantsTTL}, true
	}
	low, high := first.ttl, mostHops // low fails, high answers
	for high-low > 1 {
		far.ttl = (low + high) / 2
		if answers(far) {
			high = far.ttl
		} else {
			low = far.ttl
		}
	}
	return Result{Cause: Further, Hops: high}, true
}

// dial connects in one way.
func (t Target) dial(ctx context.Context, v trial, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{
		Timeout: timeout, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.Local, 0)), KeepAlive: -1,
		Control: control(t.Peer, v),
	}
	d.SetMultipathTCP(false) // takes no TCP MD5 key
	return d.DialContext(ctx, "tcp", netip.AddrPortFrom(t.Peer, t.Port).String())
}

// causeOf reads an error of dial.
func causeOf(err error) Cause {
	var timeout net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return NoSource
	case errors.Is(err, errKey):
		return NoKey
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return Forbidden
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return Unreachable
	case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Silent
	}
	return Broken
}

// plain is an error without Go's words around it.
func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err.Error()
}
