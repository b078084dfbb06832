package dnslb

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"

	"github.com/pharos-lb/pharos/dnslb/transport"
	"github.com/pharos-lb/pharos/internal/handover"
)

// portTries bounds the search for a port that is free for both UDP and TCP
// when the kernel chooses.
const portTries = 16

// A listener is one address: UDP sockets and a TCP listener on the same port.
type listener struct {
	asked netip.AddrPort
	udp   []*transport.UDP
	tcp   *transport.TCP
	wg    sync.WaitGroup // the goroutines that serve it
}

// bindAll binds every address with bind, or none. Beside others that are bound
// already there may be none to bind; without any there is nothing to serve on.
func bindAll(addrs []netip.AddrPort, others int, bind func(netip.AddrPort) (*listener, error)) ([]*listener, error) {
	bound := make([]*listener, 0, len(addrs))
	for _, addr := range addrs {
		l, err := bind(addr)
		if err != nil && addr.Addr() == netip.IPv6Unspecified() && errors.Is(err, syscall.EAFNOSUPPORT) {
			continue // a machine without IPv6 has no IPv6 addresses to listen on
		}
		if err != nil {
			for _, b := range bound {
				b.close()
			}
			return nil, err
		}
		bound = append(bound, l)
	}
	switch {
	case len(bound)+others > 0:
		return bound, nil
	case len(addrs) > 0:
		return nil, fmt.Errorf("nothing to listen on: this machine has no IPv6, and %v is the only address", addrs[0])
	}
	return nil, errors.New("nothing to listen on: no address is given")
}

// checkFree refuses addresses that another process answers on, a second pharos
// too: our sockets share their addresses among themselves (SO_REUSEPORT), so
// binding them would succeed, and each process would get a part of the queries.
func checkFree(addrs []netip.AddrPort) error {
	var errs []error
	for _, addr := range addrs {
		if addr.Port() == 0 || handover.Has("udp", addr.String()) {
			continue
		}
		if err := transport.CheckFree(addr); err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) {
			errs = append(errs, fmt.Errorf("listen on %v: %w", addr, err))
		}
	}
	return errors.Join(errs...)
}

// binder returns what binds one address with a number of UDP sockets.
func binder(sockets int) func(netip.AddrPort) (*listener, error) {
	return func(addr netip.AddrPort) (*listener, error) { return bind(addr, sockets) }
}

func bind(addr netip.AddrPort, sockets int) (*listener, error) {
	for try := 1; ; try++ {
		udp, err := transport.ListenUDP(addr, sockets)
		if err != nil {
			return nil, fmt.Errorf("listen on %v (udp): %w", addr, err)
		}
		tcp, err := transport.ListenTCP(udp[0].Local())
		if err == nil {
			return &listener{asked: addr, udp: udp, tcp: tcp}, nil
		}
		for _, u := range udp {
			u.Close()
		}
		if addr.Port() != 0 || try == portTries {
			return nil, fmt.Errorf("listen on %v (tcp): %w", addr, err)
		}
	}
}

// start serves the listener until stop.
func (l *listener) start(s *Server) {
	for _, u := range l.udp {
		count := s.metrics.socketAt(l.asked, u.Overflowed)
		l.wg.Go(func() {
			defer s.metrics.retire(count)
			u.Serve(newResponder(s, count))
		})
	}
	l.wg.Go(func() { l.tcp.Serve(s.pool) })
}

// stop ends the serving after the messages in hand, waits for it and unbinds.
func (l *listener) stop() error {
	err := l.tcp.Close()
	for _, u := range l.udp {
		u.Stop()
	}
	l.wg.Wait()
	return errors.Join(err, l.close())
}

// close unbinds at once.
func (l *listener) close() error {
	errs := []error{l.tcp.Close()}
	for _, u := range l.udp {
		errs = append(errs, u.Close())
	}
	return errors.Join(errs...)
}
