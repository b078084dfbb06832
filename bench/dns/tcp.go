package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// Pipelining: connections, and queries under way on each.
const (
	connections = 8
	pipeline    = 16
)

// pipelined keeps a pipeline of queries under way on each of some connections: answers are made up for by new queries as they
// come. Nobody waits for a whole pipeline, so that a server that sends its answers one by one (Nagle's algorithm) finds the
// one before acknowledged, as far as there is more to ask.
func pipelined(addr netip.AddrPort, w *workload, queries int) (played, error) {
	start := time.Now()
	each := queries / connections
	results := make(chan error, connections)
	for range connections {
		go func() { results <- pipe(addr, w, each) }()
	}
	var errs []error
	for range connections {
		errs = append(errs, <-results)
	}
	return played{each * connections, each * connections, time.Since(start)}, errors.Join(errs...)
}

func pipe(addr netip.AddrPort, w *workload, queries int) error {
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	defer conn.Close()
	random := rand.NewPCG(rand.Uint64(), rand.Uint64())
	out, query := make([]byte, 0, 4096), make([]byte, 512)
	in := framed{octets: make([]byte, 64<<10)}
	for sent, answered := 0, 0; answered < queries; {
		n := min(pipeline-(sent-answered), queries-sent)
		out = out[:0]
		for range n {
			size := w.query(query, uint16(sent), random)
			out = binary.BigEndian.AppendUint16(out, uint16(size))
			out = append(out, query[:size]...)
			sent++
		}
		if len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return err
			}
		}
		got, err := in.answers(conn, w)
		if err != nil {
			return fmt.Errorf("%d answers to come: %w", sent-answered, err)
		}
		answered += got
	}
	return nil
}

// framed is what has come of messages with their length before each.
type framed struct {
	octets []byte
	have   int
}

// answers reads once, and returns how many answers are whole now.
func (f *framed) answers(conn *net.TCPConn, w *workload) (n int, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	got, err := conn.Read(f.octets[f.have:])
	if err != nil {
		return 0, err
	}
	f.have += got
	at := 0
	for f.have-at >= 2 {
		end := at + 2 + int(binary.BigEndian.Uint16(f.octets[at:]))
		if end > f.have {
			break
		}
		if err := w.check(f.octets[at+2 : end]); err != nil {
			return 0, err
		}
		at = end
		n++
	}
	f.have = copy(f.octets, f.octets[at:f.have])
	return n, nil
}

// connecting asks each query on a connection of its own, connections at a time.
func connecting(addr netip.AddrPort, w *workload, queries int) (played, error) {
	start := time.Now()
	each := queries / connections
	results := make(chan error, connections)
	for range connections {
		go func() {
			random := rand.NewPCG(rand.Uint64(), rand.Uint64())
			query, in := make([]byte, 512), make([]byte, 4096)
			for range each {
				if err := once(addr, w, random, query, in); err != nil {
					results <- err
					return
				}
			}
			results <- nil
		}()
	}
	var errs []error
	for range connections {
		errs = append(errs, <-results)
	}
	return played{each * connections, each * connections, time.Since(start)}, errors.Join(errs...)
}

func once(addr netip.AddrPort, w *workload, random *rand.PCG, query, in []byte) error {
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetLinger(0); err != nil { // a reset, so that ports do not run out
		return err
	}
	size := w.query(query[2:], 1, random)
	binary.BigEndian.PutUint16(query, uint16(size))
	if _, err := conn.Write(query[:2+size]); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, in[:2]); err != nil {
		return err
	}
	answer := in[2 : 2+min(int(binary.BigEndian.Uint16(in)), len(in)-2)]
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	return w.check(answer)
}
