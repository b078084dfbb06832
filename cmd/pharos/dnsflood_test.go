package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/pharos-lb/pharos/bgp/bed"
	"golang.org/x/sys/unix"
)

// drownedConfig has the least hold time that there is, and a name that takes some work to answer.
const drownedConfig = `
cluster: {wait: 0s, secret: "${GOSSIP_KEY}"}
sites: {fra: {location: FRA, nodes: {fra1: 10.9.1.1}}}
services:
  web:
    backends: {fra: ["10.9.1.1:9000"]}
    check: {http: {status: "404"}, every: 200ms}
dns: {listen: "10.9.1.1:5353"}
zones: {flood.test: {file: zone}}
bgp:
  asn: 64500
  prefixes: [{prefix: 198.18.0.0/24, requires: web}]
  peers: {fra: [{address: 10.9.1.2, asn: 64496, hold: 3s, bfd: {}}]}
`

// floodFor is more than three hold times; brimFor is more than one.
const (
	floodFor = 10 * time.Second
	brimFor  = 4 * time.Second
)

// TestDNSFlood: on one core, which the DNS thread has before everybody else, more queries than it can answer take nothing from the
// other tiers that they need: checks go on, BFD and BGP keep their sessions. What is too much is dropped and counted. Nor do nearly as many, with
// which it keeps that priority and hardly sleeps.
func TestDNSFlood(t *testing.T) {
	bed.Cores(t, 2) // one is for the flood
	n := newVIPNode(t)
	n.writeText(drownedConfig)
	var zone strings.Builder
	zone.WriteString("$TTL 60\n@ IN SOA ns h 1 2 3 4 60\n@ IN NS ns\nns IN A 10.9.1.1\n")
	deep := strings.Repeat("x.", 110) // each of these labels is looked for, at each of the aliases
	fmt.Fprintf(&zone, "c0 IN CNAME %sc1\n*.c1 IN CNAME %[1]sc2\n*.c2 IN CNAME %[1]sc3\n*.c3 IN A 10.9.1.1\n%[1]sc4 IN A 10.9.1.1\n", deep)
	if err := os.WriteFile(filepath.Join(n.dir, "zone"), []byte(zone.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	n.core = "0"
	n.start()
	n.await("the route", n.announce)
	n.await("BFD", func() bool { return n.number("pharos_bgp_bfd_sessions_up") == 1 })
	first := n.number("pharos_dnslb_realtime_threads")
	t.Logf("%v threads have real-time priority", first)

	since := n.status().Speaker.Peers[0].Since
	most, flooded := n.drown()
	for try := 1; !flooded; try++ {
		if try == 3 {
			t.Fatal("no flood came about")
		}
		most, flooded = n.drown()
	}
	n.brim(most)
	peer := n.status().Speaker.Peers[0]
	if peer.State != "established" || !peer.Since.Equal(since) || !strings.Contains(n.router.Birdc("show protocols pharos"), "Established") || !n.announce() {
		t.Errorf("the session began %v, now %+v\n%s", since, peer, n.router.Birdc("show protocols all pharos"))
	}
	if failures := n.number("pharos_bgp_bfd_failures_total"); failures != 0 {
		t.Errorf("BFD failed %v times", failures)
	}
	n.await("the threads to be as before", func() bool {
		n.askOneByOne(20) // it looks after so many sleeps
		return n.number("pharos_dnslb_realtime_threads") == first
	})
}

// What is counted of a flood.
const (
	drownedOK     = `pharos_probe_probes_total{kind="http",result="ok"}`
	drownedFailed = `pharos_probe_probes_total{kind="http",result="fail"}`
	drownedTaken  = `pharos_dnslb_queries_total{transport="udp"}`
	drownedLost   = `pharos_dnslb_dropped_total{reason="overflow"}`
)

// growth tells by how much a counter has grown since now.
func (n *vipNode) growth() func(name string) float64 {
	before := map[string]float64{}
	for _, name := range []string{drownedOK, drownedFailed, drownedTaken, drownedLost} {
		before[name] = n.number(name)
	}
	return func(name string) float64 { return n.number(name) - before[name] }
}

// checks wants those of so long to have gone well.
func (n *vipNode) checks(grown func(string) float64, lasted time.Duration) {
	n.t.Helper()
	if want := lasted.Seconds() / 0.2; grown(drownedOK) < 0.7*want || grown(drownedFailed) > 0.1*want {
		n.t.Errorf("%.0f checks went well and %.0f did not, of %.0f", grown(drownedOK), grown(drownedFailed), want)
	}
}

// brim has about as many queries come as the node can answer, most a second, so that its thread hardly sleeps.
func (n *vipNode) brim(most float64) {
	n.t.Helper()
	for _, share := range []float64{0.7, 0.9} {
		grown := n.growth()
		n.flood(brimFor, share*most).wait()
		n.t.Logf("at %.0f %%: %.0f queries taken, %.0f dropped, %.0f checks went well, %.0f did not; %v threads have real-time priority",
			share*100, grown(drownedTaken), grown(drownedLost), grown(drownedOK), grown(drownedFailed), n.number("pharos_dnslb_realtime_threads"))
		n.checks(grown, brimFor)
	}
}

// drown floods the node and looks at its counters. It returns how many the node answered a second, and whether twice as many were sent: other programs may have had the core of those that send.
func (n *vipNode) drown() (most float64, flooded bool) {
	t := n.t
	t.Helper()
	grown := n.growth()
	f := n.flood(floodFor, 0)
	n.await("the flood", func() bool { return grown(drownedLost) > 0 })
	n.await("the threads to be as all others", func() bool { return n.number("pharos_dnslb_realtime_threads") == 0 })
	f.wait()
	sent, answered, lost := float64(f.sent.Load()), grown(drownedTaken), grown(drownedLost)
	t.Logf("%.0f queries sent, %.0f taken, %.0f dropped in %v; %.0f checks went well, %.0f did not", sent, answered, lost, floodFor, grown(drownedOK), grown(drownedFailed))
	if answered+lost < 0.9*sent { // some may be in the queue
		t.Errorf("of %.0f queries %.0f were taken and %.0f counted as dropped", sent, answered, lost)
	}
	n.checks(grown, floodFor)
	return answered / floodFor.Seconds(), sent >= 2*answered
}

// number is a metric's value, 0 if there is none.
func (n *vipNode) number(metric string) float64 {
	for line := range strings.Lines(n.metrics()) {
		if text, ok := strings.CutPrefix(line, metric+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				n.t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// A dnsFlood is queries that are sent without a look at what comes back.
type dnsFlood struct {
	sent    atomic.Int64
	senders sync.WaitGroup
}

func (f *dnsFlood) wait() { f.senders.Wait() }

// flood sends from the router's machine for a while, behind everything else on this one: so many queries a second, or, with 0, as many as it can.
func (n *vipNode) flood(lasting time.Duration, rate float64) *dnsFlood {
	n.t.Helper()
	f := new(dnsFlood)
	n.them.Do(func() error {
		senders := 2
		if rate > 0 {
			senders = 1
		}
		for range senders {
			fd, err := drownedSocket()
			if err != nil {
				return err
			}
			f.senders.Go(func() {
				defer unix.Close(fd)
				f.send(fd, lasting, rate)
			})
		}
		return nil
	})
	return f
}

// drownedQuery asks for c0.flood.test A, with EDNS and room for 1,232 octets.
const drownedQuery = "\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x02c0\x05flood\x04test\x00\x00\x01\x00\x01" + "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"

// drownedSocket is connected to the node, and belongs to the machine of the thread that calls.
func drownedSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 9, 1, 1}, Port: 5353}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// askOneByOne waits for each answer, or gives up.
func (n *vipNode) askOneByOne(queries int) {
	n.t.Helper()
	n.them.Do(func() error {
		fd, err := drownedSocket()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		patience := unix.NsecToTimeval(int64(time.Second))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
			return err
		}
		for range queries {
			if _, err := unix.Write(fd, []byte(drownedQuery)); err != nil {
				return err
			}
			if _, err := unix.Read(fd, make([]byte, 2048)); err != nil {
				return nil // the queue is long
			}
		}
		return nil
	})
}

// send sends for so long, at a rate if there is one.
func (f *dnsFlood) send(fd int, lasting time.Duration, rate float64) {
	runtime.LockOSThread() // not unlocked: the thread ends with this
	var cores unix.CPUSet
	for core := 1; core < runtime.NumCPU(); core++ {
		cores.Set(core)
	}
	if unix.SchedSetaffinity(0, &cores) != nil || unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 10) != nil {
		return // and that will be no flood
	}
	query := []byte(drownedQuery)
	var messages [64]unix.Mmsghdr
	part := unix.Iovec{Base: &query[0]}
	part.SetLen(len(query))
	for i := range messages {
		messages[i].Hdr.Iov, messages[i].Hdr.Iovlen = &part, 1
	}
	start, total := time.Now(), 0
	for passed := time.Duration(0); passed < lasting; passed = time.Since(start) {
		due := len(messages)
		if rate > 0 {
			due = min(due, int(rate*passed.Seconds())-total)
		}
		if due == 0 {
			continue // it has the core for itself
		}
		if sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(due), 0, 0, 0); errno == 0 {
			total += int(sent)
			f.sent.Add(int64(sent))
		}
	}
}
