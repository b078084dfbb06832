package bfd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Sizes of the batches: packets per system call.
const (
	readBatch  = 32
	writeBatch = 64

	// sendPatience bounds a send that finds the socket's buffer full.
	sendPatience = 20 * time.Millisecond
)

// Source ports (RFC 5881, section 4).
const (
	firstSource  = 49152
	lastSource   = 65535
	sourceTrials = 64
)

type socketKey struct {
	local    netip.Addr
	multihop bool
}

// A batcher reads and writes several datagrams in one system call; the IPv4 and IPv6 forms of it have one type of message.
type batcher interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// A socket receives for one local address and kind of hop.
type socket struct {
	key  socketKey
	conn *net.UDPConn
	raw  syscall.RawConn
	ttl  func(oob []byte) int // what a packet arrived with; 0 = unknown
	batcher
}

// A sender sends for one local address.
type sender struct {
	conn *net.UDPConn
	batcher
	buffers [writeBatch][]byte
	batch   []ipv4.Message
	entries []*entry // whose packet each of batch is
}

// listen returns the socket for a session, opening it when it is the first.
func (s *Server) listen(k Key) (*socket, error) {
	key := socketKey{k.Local, k.Multihop}
	if have, ok := s.sockets[key]; ok {
		return have, nil
	}
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(k.Local, k.port()))
	conn, err := net.ListenUDP("udp", at)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("bfd: UDP %s is taken: another BFD daemon (bfdd, bird) runs on this machine: %w", at, err)
	}
	if err != nil {
		return nil, fmt.Errorf("bfd: listen: %w", err)
	}
	x := &socket{key: key, conn: conn}
	if k.Local.Is4() {
		p := ipv4.NewPacketConn(conn)
		err = p.SetControlMessage(ipv4.FlagTTL, true)
		x.batcher, x.ttl = p, func(oob []byte) int {
			var c ipv4.ControlMessage
			_ = c.Parse(oob)
			return c.TTL
		}
	} else {
		p := ipv6.NewPacketConn(conn)
		err = p.SetControlMessage(ipv6.FlagHopLimit, true)
		x.batcher, x.ttl = p, func(oob []byte) int {
			var c ipv6.ControlMessage
			_ = c.Parse(oob)
			return c.HopLimit
		}
	}
	if err == nil {
		x.raw, err = conn.SyscallConn()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("bfd: listen at %s: %w", at, err)
	}
	s.sockets[key] = x
	s.readers.Go(func() { s.read(x) })
	return x, nil
}

// read hands every datagram to its session until the socket is closed.
func (s *Server) read(x *socket) {
	ms := make([]ipv4.Message, readBatch)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, maxPacket)}
		ms[i].OOB = make([]byte, 64)
	}
	for {
		n, err := x.ReadBatch(ms, 0)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Debug("BFD socket", "error", err)
			time.Sleep(lookAgain) // an error that stays must not burn the CPU
			continue
		}
		now := time.Now()
		s.mu.Lock()
		for _, m := range ms[:n] {
			if from, ok := m.Addr.(*net.UDPAddr); ok {
				s.receive(x, from.AddrPort().Addr().Unmap(), x.ttl(m.OOB[:m.NN]), m.Buffers[0][:m.N], now)
			}
		}
		s.flush()
		s.mu.Unlock()
	}
}

// dialer returns the sender for a local address, opening it when it is the first.
func (s *Server) dialer(local netip.Addr) (*sender, error) {
	if have, ok := s.senders[local]; ok {
		return have, nil
	}
	conn, err := bindSource(local)
	if err != nil {
		return nil, fmt.Errorf("bfd: open a source port at %s: %w", local, err)
	}
	x := &sender{conn: conn}
	if local.Is4() {
		p := ipv4.NewPacketConn(conn)
		x.batcher, err = p, errors.Join(p.SetTTL(255), p.SetTOS(internetControl))
	} else {
		p := ipv6.NewPacketConn(conn)
		x.batcher, err = p, errors.Join(p.SetHopLimit(255), p.SetTrafficClass(internetControl))
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("bfd: set the TTL at %s: %w", local, err)
	}
	for i := range x.buffers {
		x.buffers[i] = make([]byte, 0, packetSize)
	}
	s.senders[local] = x
	return x, nil
}

// internetControl is the traffic class of routing protocols, CS6.
const internetControl = 0xc0

// bindSource takes a free port of the range that the RFC prescribes.
func bindSource(local netip.Addr) (conn *net.UDPConn, err error) {
	for range sourceTrials {
		port := uint16(firstSource + rand.IntN(lastSource-firstSource+1))
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, port)))
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return conn, err
		}
	}
	return nil, err
}

// queue has a packet sent with the next flush.
func (s *Server) queue(e *entry, p Packet) {
	x := e.from
	if len(x.batch) == writeBatch {
		s.send(x)
	}
	b := p.Append(x.buffers[len(x.batch)][:0])
	x.batch = append(x.batch, ipv4.Message{Buffers: [][]byte{b}, Addr: e.to})
	x.entries = append(x.entries, e)
}

// flush sends what is queued.
func (s *Server) flush() {
	for _, x := range s.senders {
		if len(x.batch) > 0 {
			s.send(x)
		}
	}
}

// send sends one batch. A packet that the kernel refuses costs that packet only: the protocol lives with loss.
func (s *Server) send(x *sender) {
	ms, es := x.batch, x.entries
	_ = x.conn.SetWriteDeadline(time.Now().Add(sendPatience))
	for len(ms) > 0 {
		n, err := x.WriteBatch(ms, 0)
		n = min(max(n, 0), len(ms))
		for _, e := range es[:n] {
			e.out++
			e.sendError = ""
		}
		ms, es = ms[n:], es[n:]
		if err != nil && len(ms) > 0 {
			es[0].sendError = err.Error()
			s.drops.Unsent++
			ms, es = ms[1:], es[1:]
		}
	}
	clear(x.batch)
	x.batch, x.entries = x.batch[:0], x.entries[:0]
}

// closeUnused closes the sockets that no session uses any more.
func (s *Server) closeUnused() error {
	var errs []error
	sockets, senders := map[*socket]bool{}, map[*sender]bool{}
	for _, e := range s.byKey {
		sockets[e.via], senders[e.from] = true, true
	}
	for key, x := range s.sockets {
		if !sockets[x] {
			errs = append(errs, x.conn.Close())
			delete(s.sockets, key)
		}
	}
	for local, x := range s.senders {
		if !senders[x] {
			errs = append(errs, x.conn.Close())
			delete(s.senders, local)
		}
	}
	return errors.Join(errs...)
}
