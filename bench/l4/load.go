package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	requestSize = 128
	replySize   = 1024
	clients     = 16
	bulkByte    = 'B' // a request that begins so is answered with bulkSize bytes
	bulkSize    = 256 << 20
	dialTimeout = 5 * time.Second
	patience    = 60 * time.Second
)

// backend answers requests over TCP and UDP until it is closed.
type backend struct {
	tcp *net.TCPListener
	udp *net.UDPConn
	wg  sync.WaitGroup
}

func startBackend() (*backend, error) {
	l, err := net.Listen("tcp", backendTCP)
	if err != nil {
		return nil, err
	}
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(backendUDP)))
	if err != nil {
		l.Close()
		return nil, err
	}
	b := &backend{tcp: l.(*net.TCPListener), udp: u}
	b.wg.Go(func() {
		for {
			c, err := b.tcp.AcceptTCP()
			if err != nil {
				return
			}
			go serve(c)
		}
	})
	b.wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := b.udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = b.udp.WriteToUDPAddrPort(buf[:n], from)
		}
	})
	return b, nil
}

func (b *backend) close() {
	b.tcp.Close()
	b.udp.Close()
	b.wg.Wait()
}

func serve(c *net.TCPConn) {
	defer c.Close()
	request, reply := make([]byte, requestSize), make([]byte, replySize)
	for {
		if _, err := io.ReadFull(c, request); err != nil {
			return
		}
		if request[0] == bulkByte {
			block := make([]byte, 1<<20)
			for range bulkSize >> 20 {
				if _, err := c.Write(block); err != nil {
					return
				}
			}
			continue
		}
		if _, err := c.Write(reply); err != nil {
			return
		}
	}
}

func exchange(c net.Conn, reply []byte) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var request [requestSize]byte
	if _, err := c.Write(request[:]); err != nil {
		return err
	}
	_, err := io.ReadFull(c, reply)
	return err
}

// each runs n calls of f, spread over the clients, and returns the 99th percentile
// of their times.
func each(n int, open func() (func() error, func(), error)) (time.Duration, error) {
	var wg sync.WaitGroup
	errs := make([]error, clients)
	times := make([][]time.Duration, clients)
	for i := range clients {
		wg.Go(func() {
			f, done, err := open()
			if err != nil {
				errs[i] = err
				return
			}
			defer done()
			for range n / clients {
				began := time.Now()
				if err := f(); err != nil {
					errs[i] = err
					return
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	wg.Wait()
	all := slices.Sorted(slices.Values(slices.Concat(times...)))
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	return all[len(all)*99/100], nil
}

// requests asks n times over connections that stay open.
func requests(at netip.AddrPort, n int) (time.Duration, error) {
	return each(n, func() (func() error, func(), error) {
		c, err := net.DialTimeout("tcp", at.String(), dialTimeout)
		if err != nil {
			return nil, nil, err
		}
		reply := make([]byte, replySize)
		return func() error { return exchange(c, reply) }, func() { c.Close() }, nil
	})
}

// connections asks n times, each over a connection of its own.
func connections(at netip.AddrPort, n int) (time.Duration, error) {
	return each(n, func() (func() error, func(), error) {
		reply := make([]byte, replySize)
		return func() error {
			c, err := net.DialTimeout("tcp", at.String(), dialTimeout)
			if err != nil {
				return err
			}
			defer c.Close()
			return exchange(c, reply)
		}, func() {}, nil
	})
}

// bulk downloads bulkSize bytes over each of two connections at once.
func bulk(at netip.AddrPort) (int64, error) {
	var wg sync.WaitGroup
	var errs [2]error
	for i := range errs {
		wg.Go(func() {
			c, err := net.DialTimeout("tcp", at.String(), dialTimeout)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			request := [requestSize]byte{bulkByte}
			if _, err := c.Write(request[:]); err != nil {
				errs[i] = err
				return
			}
			buf := make([]byte, 1<<20)
			for left := bulkSize; left > 0; {
				n, err := c.Read(buf)
				if err != nil {
					errs[i] = err
					return
				}
				left -= n
			}
		})
	}
	wg.Wait()
	return int64(len(errs)) * bulkSize, errors.Join(errs[:]...)
}

// idle opens n connections that each ask once and then stay.
func idle(at netip.AddrPort, n int) (closeAll func(), err error) {
	conns := make([]net.Conn, 0, n)
	closeAll = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	reply := make([]byte, replySize)
	for i := range n {
		c, err := net.DialTimeout("tcp", at.String(), dialTimeout)
		if err == nil {
			conns = append(conns, c)
			err = exchange(c, reply)
		}
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
	}
	return closeAll, nil
}

// datagrams asks n times from sockets that stay open, or with oneShot each from
// one of its own.
func datagrams(at netip.AddrPort, n int, oneShot bool) (time.Duration, error) {
	dial := func() (net.Conn, error) { return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at)) }
	ask := func(c net.Conn, buf []byte) error {
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(buf[:requestSize]); err != nil {
			return err
		}
		_, err := c.Read(buf)
		return err
	}
	return each(n, func() (func() error, func(), error) {
		buf := make([]byte, 2048)
		if oneShot {
			return func() error {
				c, err := dial()
				if err != nil {
					return err
				}
				defer c.Close()
				return ask(c, buf)
			}, func() {}, nil
		}
		c, err := dial()
		if err != nil {
			return nil, nil, err
		}
		return func() error { return ask(c, buf) }, func() { c.Close() }, nil
	})
}
