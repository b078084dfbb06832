package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// ether is a network in memory, for tests under synctest: datagrams take time
// and get lost, streams take time to open.
type ether struct {
	mu       sync.Mutex // guards the rest
	antennas map[netip.AddrPort]*antenna
	random   *rand.Rand
	loss     float64 // of datagrams
	cut      func(from, to netip.AddrPort) bool
}

func newEther(seed uint64) *ether {
	return &ether{antennas: make(map[netip.AddrPort]*antenna), random: rand.New(rand.NewPCG(seed, 1))}
}

// set changes what gets through.
func (e *ether) set(loss float64, cut func(from, to netip.AddrPort) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.loss, e.cut = loss, cut
}

// path returns the other end, and how long the way there takes; nil if nothing
// gets there.
func (e *ether) path(from, to netip.AddrPort, lossy bool) (*antenna, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delay := 5*time.Millisecond + time.Duration(e.random.Int64N(int64(100*time.Millisecond)))
	if e.cut != nil && e.cut(from, to) || lossy && e.random.Float64() < e.loss {
		return nil, delay
	}
	return e.antennas[to], delay
}

// What a datagram and a stream cost besides what is counted: IPv4 and UDP
// headers; the headers of a stream's first and last segments, and of one segment
// of data.
const (
	datagramCost = 28
	streamCost   = 4 * 40
	segmentCost  = 40
	segmentSize  = 1400
)

// antenna is one node's transport in an ether.
type antenna struct {
	ether   *ether
	at      netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	once    sync.Once

	udp, tcp atomic.Int64 // bytes sent, with the headers
	lost     atomic.Int64 // datagrams for which there was no room
}

var _ transport = (*antenna)(nil)

// antenna returns the transport of another node.
func (e *ether) antenna() *antenna {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.antennas) + 1
	a := &antenna{
		ether: e, at: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 7946),
		packets: make(chan *memberlist.Packet, 8192), streams: make(chan net.Conn), done: make(chan struct{}),
	}
	e.antennas[a.at] = a
	return a
}

func (a *antenna) start()                              {}
func (a *antenna) addr() netip.AddrPort                { return a.at }
func (a *antenna) PacketCh() <-chan *memberlist.Packet { return a.packets }
func (a *antenna) StreamCh() <-chan net.Conn           { return a.streams }
func (a *antenna) Shutdown() error                     { a.once.Do(func() { close(a.done) }); return nil }

func (a *antenna) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(a.at.Addr().AsSlice()), int(a.at.Port()), nil
}

func (a *antenna) WriteTo(b []byte, addr string) (time.Time, error) {
	return a.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (a *antenna) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	addr, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return time.Time{}, err
	}
	a.udp.Add(int64(len(b)) + datagramCost)
	if len(b) > datagramSize {
		return time.Time{}, fmt.Errorf("datagram of %d bytes", len(b))
	}
	other, delay := a.ether.path(a.at, addr, true)
	if other == nil {
		return time.Now(), nil
	}
	packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(a.at)}
	time.AfterFunc(delay, func() {
		packet.Timestamp = time.Now()
		select {
		case <-other.done:
		case other.packets <- packet:
		default:
			other.lost.Add(1)
		}
	})
	return time.Now(), nil
}

func (a *antenna) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return a.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (a *antenna) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	addr, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return nil, err
	}
	other, delay := a.ether.path(a.at, addr, false)
	back, more := a.ether.path(addr, a.at, false)
	if other == nil || back == nil {
		return nil, a.wait(timeout, errors.New("timeout"))
	}
	if err := a.wait(delay+more, nil); err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	if err := errors.Join(near.SetDeadline(time.Now().Add(timeout)), far.SetDeadline(time.Now().Add(timeout))); err != nil {
		return nil, err
	}
	a.tcp.Add(streamCost)
	other.tcp.Add(streamCost)
	select {
	case other.streams <- counted{far, other}:
		return counted{near, a}, nil
	case <-other.done:
		return nil, errors.New("connection refused")
	case <-a.done:
		return nil, net.ErrClosed
	}
}

// wait waits and returns err, or sooner if a is shut down.
func (a *antenna) wait(d time.Duration, err error) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return err
	case <-a.done:
		return net.ErrClosed
	}
}

// counted is one end of a stream.
type counted struct {
	net.Conn
	a *antenna
}

func (c counted) Write(b []byte) (int, error) {
	c.a.tcp.Add(int64(len(b) + (len(b)/segmentSize+1)*segmentCost))
	return c.Conn.Write(b)
}

// RemoteAddr is what memberlist shows of a stream.
func (c counted) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// again returns a fresh transport at the same address, for a node that restarts.
func (a *antenna) again() *antenna {
	b := &antenna{
		ether: a.ether, at: a.at,
		packets: make(chan *memberlist.Packet, 8192), streams: make(chan net.Conn), done: make(chan struct{}),
	}
	a.ether.mu.Lock()
	defer a.ether.mu.Unlock()
	a.ether.antennas[a.at] = b
	return b
}
