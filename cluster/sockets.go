package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/pharos-lb/pharos/internal/handover"
)

// Limits of what the gossip port accepts before anything is authenticated.
const (
	// maxDatagram is the largest datagram looked at. Peers send at most
	// datagramSize; older or other builds up to 1400.
	maxDatagram = 4096
	// maxStreams and maxStreamsPerAddr bound the TCP connections being served.
	maxStreams        = 256
	maxStreamsPerAddr = 32
	// maxStreamBytes bounds what one connection may send us, maxStreamTotal what
	// all open ones have sent: memberlist buffers a message before checking it.
	maxStreamBytes = 12 << 20
	maxStreamTotal = 96 << 20
	// bindAttempts is how often a port that is free for TCP and for UDP is
	// searched when the kernel may choose it.
	bindAttempts = 10
)

var errStreamLimit = errors.New("gossip stream exceeds its size limit")

// sockets is the transport under memberlist: one UDP and one TCP socket on the
// same port. It counts and bounds what comes in.
type sockets struct {
	// Immutable.
	udp       *net.UDPConn
	tcp       *net.TCPListener
	advertise netip.AddrPort
	meters    *meters
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	done      chan struct{}
	readers   sync.WaitGroup

	// cut is consulted before anything is sent; tests partition a cluster with it.
	cut atomic.Pointer[func(to netip.AddrPort) bool]

	streamBytes atomic.Int64 // sent to us by the open streams

	// asleep is open while another process has the sockets: nothing is read or sent.
	asleep atomic.Pointer[chan struct{}]

	mu     sync.Mutex // guards the rest
	closed bool
	live   map[*func()]struct{} // ends what would outlive Shutdown
	served map[netip.Addr]int   // streams being served, by remote address
	total  int                  // sum of served
}

// transport is the network under memberlist.
type transport interface {
	memberlist.NodeAwareTransport
	// start begins to receive.
	start()
	// addr returns where the others reach this node.
	addr() netip.AddrPort
}

var _ transport = (*sockets)(nil)

// bindSockets binds UDP and TCP to bind. It reads nothing before start.
func bindSockets(bind, advertise netip.AddrPort, m *meters) (*sockets, error) {
	udp, tcp, err := takeSockets(bind)
	if err != nil {
		return nil, fmt.Errorf("take the gossip port %s over: %w", bind, err)
	}
	for range bindAttempts {
		if udp != nil {
			break
		}
		if tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(bind)); err != nil {
			return nil, bindError("TCP", bind, err)
		}
		port := tcp.Addr().(*net.TCPAddr).AddrPort().Port()
		udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(bind.Addr(), port)))
		if err == nil {
			break
		}
		tcp.Close()
		if bind.Port() != 0 {
			break
		}
	}
	if err != nil {
		return nil, bindError("UDP", bind, err)
	}
	// Best effort: the kernel's default buffer serves, too.
	_ = udp.SetReadBuffer(1 << 20)

	port := tcp.Addr().(*net.TCPAddr).AddrPort().Port()
	if !advertise.IsValid() {
		advertise = bind
	}
	if advertise.Port() == 0 {
		advertise = netip.AddrPortFrom(advertise.Addr(), port)
	}
	return &sockets{
		udp: udp, tcp: tcp,
		advertise: netip.AddrPortFrom(advertise.Addr().Unmap(), advertise.Port()),
		meters:    m,
		packets:   make(chan *memberlist.Packet),
		streams:   make(chan net.Conn),
		done:      make(chan struct{}),
		live:      make(map[*func()]struct{}),
		served:    make(map[netip.Addr]int),
	}, nil
}

// takeSockets returns the sockets of a process that hands them over; nil without one.
func takeSockets(bind netip.AddrPort) (*net.UDPConn, *net.TCPListener, error) {
	if !handover.Has("udp", bind.String()) || !handover.Has("tcp", bind.String()) {
		return nil, nil, nil
	}
	packets, err := handover.PacketConn("udp", bind.String())
	if err != nil {
		return nil, nil, err
	}
	streams, err := handover.Listener("tcp", bind.String())
	if err != nil {
		packets.Close()
		return nil, nil, err
	}
	return packets.(*net.UDPConn), streams.(*net.TCPListener), nil
}

func bindError(network string, bind netip.AddrPort, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "; another process has this port: stop it or choose another gossip port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "; this machine does not have that address"
	}
	return fmt.Errorf("bind gossip %s %s: %w%s", network, bind, err, hint)
}

// addr implements transport.
func (s *sockets) addr() netip.AddrPort { return s.advertise }

// start begins to read.
func (s *sockets) start() {
	s.readers.Add(2)
	go s.readPackets()
	go s.acceptStreams()
}

// Shutdown ends all reading, all streams and all dialling. It is idempotent.
func (s *sockets) Shutdown() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	live := s.live
	s.live = nil
	s.mu.Unlock()

	close(s.done)
	err := errors.Join(s.udp.Close(), s.tcp.Close())
	for end := range live {
		(*end)()
	}
	s.readers.Wait()
	return err
}

// onShutdown has end called by Shutdown unless undone before. After Shutdown it
// calls end at once.
func (s *sockets) onShutdown(end func()) (undo func()) {
	key := &end
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		end()
		return func() {}
	}
	s.live[key] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.live, key)
	}
}

func (s *sockets) readPackets() {
	defer s.readers.Done()
	buf := make([]byte, maxDatagram+1)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil && s.slept() {
			continue
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !s.pause() {
				return
			}
			continue
		}
		s.meters.bytes.WithLabelValues("in", "udp").Add(float64(n))
		if n == 0 || n > maxDatagram {
			s.meters.dropped.WithLabelValues(dropMalformed).Inc()
			continue
		}
		// memberlist keeps the packet, so each gets its own memory.
		packet := &memberlist.Packet{
			Buf:       append([]byte(nil), buf[:n]...),
			From:      net.UDPAddrFromAddrPort(from),
			Timestamp: time.Now(),
		}
		select {
		case s.packets <- packet:
		case <-s.done:
			return
		}
	}
}

func (s *sockets) acceptStreams() {
	defer s.readers.Done()
	for {
		conn, err := s.tcp.AcceptTCP()
		if err != nil && s.slept() {
			continue
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !s.pause() {
				return
			}
			continue
		}
		served := s.serve(conn)
		if served == nil {
			s.meters.dropped.WithLabelValues(dropStreams).Inc()
			conn.Close()
			continue
		}
		select {
		case s.streams <- served:
		case <-s.done:
			served.Close()
			return
		}
	}
}

// pause waits a little after an error that may last (out of descriptors); it
// reports false after Shutdown.
func (s *sockets) pause() bool {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.done:
		return false
	}
}

// serve counts conn in, or returns nil if there are too many.
func (s *sockets) serve(conn *net.TCPConn) *stream {
	addr := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	s.mu.Lock()
	if s.closed || s.total >= maxStreams || s.served[addr] >= maxStreamsPerAddr {
		s.mu.Unlock()
		return nil
	}
	s.total++
	s.served[addr]++
	s.mu.Unlock()

	st := &stream{Conn: conn, s: s}
	undo := s.onShutdown(func() { conn.Close() })
	st.end = func() {
		undo()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total--
		if s.served[addr]--; s.served[addr] == 0 {
			delete(s.served, addr)
		}
	}
	return st
}

// stream is one TCP connection, counted and bounded.
type stream struct {
	net.Conn
	s    *sockets
	end  func()
	once sync.Once
	read atomic.Int64
}

// Read implements net.Conn.
func (st *stream) Read(b []byte) (int, error) {
	n, err := st.Conn.Read(b)
	st.s.meters.bytes.WithLabelValues("in", "tcp").Add(float64(n))
	mine, total := st.read.Add(int64(n)), st.s.streamBytes.Add(int64(n))
	if mine > maxStreamBytes || total > maxStreamTotal {
		st.s.meters.dropped.WithLabelValues(dropStreams).Inc()
		return 0, errStreamLimit
	}
	return n, err
}

// Write implements net.Conn.
func (st *stream) Write(b []byte) (int, error) {
	n, err := st.Conn.Write(b)
	st.s.meters.bytes.WithLabelValues("out", "tcp").Add(float64(n))
	return n, err
}

// Close implements net.Conn.
func (st *stream) Close() error {
	err := st.Conn.Close()
	st.once.Do(func() {
		st.s.streamBytes.Add(-st.read.Load())
		st.end()
	})
	return err
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (s *sockets) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(s.advertise.Addr().AsSlice()), int(s.advertise.Port()), nil
}

// PacketCh implements memberlist.Transport.
func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh implements memberlist.Transport.
func (s *sockets) StreamCh() <-chan net.Conn { return s.streams }

// WriteTo implements memberlist.Transport.
func (s *sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (s *sockets) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send gossip: %w", err)
	}
	if s.isCut(to) {
		return time.Now(), nil // lost on the way, as far as the sender can tell
	}
	n, err := s.udp.WriteToUDPAddrPort(b, netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
	s.meters.bytes.WithLabelValues("out", "udp").Add(float64(n))
	return time.Now(), err
}

// DialTimeout implements memberlist.Transport.
func (s *sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return s.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (s *sockets) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial gossip: %w", err)
	}
	if s.isCut(to) {
		return nil, fmt.Errorf("dial gossip %s: %w", to, syscall.EHOSTUNREACH)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	undo := s.onShutdown(cancel)
	defer undo()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	// memberlist writes user messages without a deadline of its own.
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		conn.Close()
		return nil, err
	}
	return &stream{Conn: conn, s: s, end: s.onShutdown(func() { conn.Close() })}, nil
}

// suspend stops all reading and sending until resume.
func (s *sockets) suspend() {
	gate := make(chan struct{})
	if s.asleep.CompareAndSwap(nil, &gate) {
		_ = s.udp.SetReadDeadline(time.Unix(1, 0))
		_ = s.tcp.SetDeadline(time.Unix(1, 0))
	}
}

// resume ends suspend.
func (s *sockets) resume() {
	if gate := s.asleep.Swap(nil); gate != nil {
		_ = s.udp.SetReadDeadline(time.Time{})
		_ = s.tcp.SetDeadline(time.Time{})
		close(*gate)
	}
}

// slept waits until resume or Shutdown if the sockets are suspended, and reports whether they were.
func (s *sockets) slept() bool {
	gate := s.asleep.Load()
	if gate == nil {
		return false
	}
	select {
	case <-*gate:
		return true
	case <-s.done:
		return false
	}
}

func (s *sockets) isCut(to netip.AddrPort) bool {
	if s.asleep.Load() != nil {
		return true
	}
	cut := s.cut.Load()
	return cut != nil && (*cut)(to)
}
