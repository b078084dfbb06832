package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
)

// names is how many static names the zone has, and how many steered ones.
const names = 10_000

// A workload is one kind of query.
type workload struct {
	name string
	// query writes the nth query into buf and returns its length.
	query func(buf []byte, n uint16, random *rand.PCG) int
	// check wants something of an answer, so that an error is not measured.
	check func(answer []byte) error
	// load sends a number of queries.
	load func(addr netip.AddrPort, w *workload, queries int) (played, error)
	// steered: only for servers that steer.
	steered bool
	// latency: measure it too.
	latency bool
	// cost divides the number of queries.
	cost int
}

var workloads = []workload{
	{name: "static", query: static, check: wantAnswer, load: closed, latency: true, cost: 1},
	{name: "geo + ECS", query: steered, check: wantAnswer, load: closed, steered: true, latency: true, cost: 1},
	{name: "NXDOMAIN", query: nowhere, check: wantNothing, load: closed, latency: true, cost: 1},
	{name: "TCP, pipelined", query: static, check: wantAnswer, load: pipelined, cost: 4},
	{name: "TCP, a connection each", query: static, check: wantAnswer, load: connecting, cost: 40},
}

// label is the name of static ('s') and steered ('g') names.
func label(kind byte, i int) string { return fmt.Sprintf("%c%05d", kind, i) }

func static(buf []byte, n uint16, random *rand.PCG) int {
	return len(question(buf, n, named('s', random), nil))
}

func steered(buf []byte, n uint16, random *rand.PCG) int {
	subnet := uint32(random.Uint64())
	ecs := [3]byte{byte(subnet>>24)%223 + 1, byte(subnet >> 16), byte(subnet >> 8)}
	return len(question(buf, n, named('g', random), ecs[:]))
}

func nowhere(buf []byte, n uint16, random *rand.PCG) int {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	var l [12]byte
	bits := random.Uint64()
	for i := range l {
		l[i] = letters[bits>>(5*i)&31]
	}
	return len(question(buf, n, l[:], nil))
}

func named(kind byte, random *rand.PCG) []byte {
	l := [6]byte{kind}
	i := random.Uint64() >> 32 * names >> 32
	for at := 5; at > 0; at-- {
		l[at] = '0' + byte(i%10)
		i /= 10
	}
	return l[:]
}

// question writes a query for LABEL.bench.test A with EDNS, and with a /24 as
// client subnet (RFC 7871) if there is one.
func question(buf []byte, n uint16, label, subnet []byte) []byte {
	b := append(buf[:0], byte(n>>8), byte(n), 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, byte(len(label)))
	b = append(b, label...)
	b = append(b, "\x05bench\x04test\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00"...) // OPT, 1232 octets
	if subnet == nil {
		return append(b, 0, 0)
	}
	b = append(b, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0)
	return append(b, subnet...)
}

func wantAnswer(answer []byte) error {
	if len(answer) < 12 || answer[3]&15 != 0 || binary.BigEndian.Uint16(answer[6:]) == 0 {
		return fmt.Errorf("the answer has no address: %x", answer)
	}
	return nil
}

func wantNothing(answer []byte) error {
	if len(answer) < 12 || answer[3]&15 != 3 || binary.BigEndian.Uint16(answer[8:]) == 0 {
		return fmt.Errorf("the answer is not NXDOMAIN with an SOA record: %x", answer)
	}
	return nil
}
