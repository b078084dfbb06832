package bgp

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// message frames a BGP message, with a length that may lie.
func message(kind byte, length int, body []byte) []byte {
	out := bytes.Repeat([]byte{0xff}, 16)
	out = binary.BigEndian.AppendUint16(out, uint16(length))
	return append(append(out, kind), body...)
}

// open is an OPEN of AS 64496 with a hold time.
func openMessage(hold uint16) []byte {
	body := []byte{4}
	body = binary.BigEndian.AppendUint16(body, routerASN)
	body = binary.BigEndian.AppendUint16(body, hold)
	body = append(body, 192, 0, 2, 99, 0)
	return message(1, 19+len(body), body)
}

var keepalive = message(4, 19, nil)

// A hostile listens like a router and does its worst with every connection.
type hostile struct {
	listener net.Listener
	conns    chan struct{} // one for each connection
}

func (l *lab) hostile(host byte, attack func(net.Conn)) *hostile {
	l.t.Helper()
	listener, err := net.Listen("tcp", netip.AddrPortFrom(l.addr(host), l.port).String())
	if err != nil {
		l.t.Fatal(err)
	}
	h := &hostile{listener: listener, conns: make(chan struct{}, 1000)}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			h.conns <- struct{}{}
			go func() {
				defer func() { _ = conn.Close() }()
				attack(conn)
			}()
		}
	}()
	l.t.Cleanup(func() { _ = listener.Close() })
	return h
}

// establish opens a session as a router would.
func establish(conn net.Conn) {
	_, _ = conn.Write(append(openMessage(9), keepalive...))
	_, _ = io.ReadFull(conn, make([]byte, 19+29+19)) // an OPEN and a KEEPALIVE, more or less
}

// noise is the same every time.
func noise(n int) []byte {
	out := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(out)
	return out
}

var deadly = message(99, 20, []byte{0})

// TestDeadlyPeerIsQuarantined: what crashes the BGP library (a header with an unknown type), sent before and in an
// established session, costs the sender its session and the others one start of the child.
func TestDeadlyPeerIsQuarantined(t *testing.T) {
	for name, attack := range map[string]func(net.Conn){
		"at once":     func(conn net.Conn) { _, _ = conn.Write(deadly) },
		"noise":       func(conn net.Conn) { _, _ = conn.Write(noise(64 << 10)) },
		"established": func(conn net.Conn) { establish(conn); _, _ = conn.Write(deadly) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			r, _ := l.router(2)
			l.hostile(3, attack)
			g := l.speaker(Options{Peers: []Peer{l.peer(2), l.peer(3)}}, Route{Prefix: anycast})
			s := g.await("the quarantine", func(s Status) bool { return s.Peers[1].State == "quarantined" })
			if !strings.Contains(s.Child.LastError, "nil pointer dereference") || !strings.Contains(s.Child.LastError, l.addr(3).String()) {
				t.Errorf("the child's last error is %q, want the crash and the peer", s.Child.LastError)
			}
			if !strings.Contains(s.Peers[1].LastError, "ended the BGP process once") {
				t.Errorf("the peer's error is %q", s.Peers[1].LastError)
			}
			g.await("the session with the good peer", func(s Status) bool { return s.Child.State == "running" && s.Peers[0].State == "established" })
			awaitRouter(t, r, "the route from the new child", has(anycast))
			since := g.Status().Peers[0].Since
			time.Sleep(4 * time.Second) // in which an admitted peer would have been dialled twice
			s = g.Status()
			if s.Child.Restarts != 1 || !s.Peers[0].Since.Equal(since) {
				t.Errorf("%d restarts, the good session is of %s, want 1 and %s", s.Child.Restarts, s.Peers[0].Since, since)
			}

			// An operator who changes the peer lets it in again.
			p := l.peer(3)
			p.Hold = 12 * time.Second
			if err := g.Reconfigure(l.config(), []Peer{l.peer(2), p}); err != nil {
				t.Fatal(err)
			}
			s = g.await("the second quarantine", func(s Status) bool { return s.Child.Restarts == 2 })
			g.await("the good peer again", func(s Status) bool { return s.Peers[0].State == "established" })
		})
	}
}

// TestHostilePeers has peers do their worst at the same time, none of which crashes the child: the good session and its
// route stay as they are.
func TestHostilePeers(t *testing.T) {
	l := newLab(t)
	r, _ := l.router(2)
	attacks := []func(net.Conn){
		func(conn net.Conn) { _, _ = conn.Write(bytes.Repeat([]byte{1}, 64<<10)) },       // no marker, OPENs of ones
		func(conn net.Conn) { _, _ = conn.Write(message(1, 18, nil)) },                   // shorter than a header
		func(conn net.Conn) { _, _ = conn.Write(message(1, 65535, make([]byte, 1000))) }, // longer than allowed
		func(conn net.Conn) { _, _ = conn.Write(message(1, 29, make([]byte, 10))) },      // an OPEN of zeros
		func(conn net.Conn) { establish(conn); _, _ = conn.Write(message(2, 23, []byte{0xff, 0xff, 0, 0})) },
		func(conn net.Conn) { // an update of noise, 4 KiB
			establish(conn)
			_, _ = conn.Write(message(2, 4096, noise(4077)))
		},
		func(conn net.Conn) { // one byte now and then
			for _, b := range append(openMessage(9), keepalive...) {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(200 * time.Millisecond)
			}
		},
		func(conn net.Conn) { // says nothing at all
			_, _ = io.Copy(io.Discard, conn)
		},
		func(conn net.Conn) { _, _ = conn.Write(append(openMessage(0), message(3, 21, []byte{6, 9})...)) },
	}
	peers := []Peer{l.peer(2)}
	var all []*hostile
	for i, attack := range attacks {
		host := byte(10 + i)
		all = append(all, l.hostile(host, attack))
		peers = append(peers, l.peer(host))
	}
	g := l.speaker(Options{Peers: peers}, Route{Prefix: anycast})
	awaitRouter(t, r, "the route", has(anycast))
	since := g.await("the good session", func(s Status) bool { return s.Peers[0].State == "established" }).Peers[0].Since
	for i, h := range all {
		select {
		case <-h.conns:
		case <-time.After(patience):
			t.Fatalf("attack %d was not dialled; status %s", i, show(g.Status()))
		}
	}
	for range 5 { // those whose sessions end are dialled again
		select {
		case <-all[0].conns:
		case <-time.After(patience):
			t.Fatalf("the first attack was not dialled again; status %s", show(g.Status()))
		}
	}
	// And it hears what is new while the others still do theirs, be it a byte at a time.
	second := netip.MustParsePrefix("203.0.113.0/24")
	g.set(Route{Prefix: anycast}, Route{Prefix: second})
	awaitRouter(t, r, "a second route", has(second))
	s := g.Status()
	if s.Child.Restarts != 0 || !s.Peers[0].Since.Equal(since) || len(r.Routes()) != 2 {
		t.Errorf("after the attacks: %s; want no restart and the session of %s", show(s), since)
	}
}

// TestConfined: the child has no file and no capability left.
func TestConfined(t *testing.T) {
	l := newLab(t)
	_, _ = l.router(2)
	g := l.speaker(Options{Peers: []Peer{l.peer(2)}})
	s := g.await("the session", func(s Status) bool { return s.Peers[0].State == "established" })
	proc := filepath.Join("/proc", strconv.Itoa(s.Child.PID))
	text, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the child's status has no %q:\n%s", want, text)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	if !bytes.Contains(text, []byte("CapBnd:\t0000000000000000")) {
		t.Errorf("the child could get capabilities:\n%s", text)
	}
	if files, err := filepath.Glob(filepath.Join(proc, "root", "etc*")); !withCgo && (err != nil || len(files) > 0) {
		t.Errorf("the child sees %v, %v", files, err)
	}
	tasks, _ := filepath.Glob(filepath.Join(proc, "task", "*", "status"))
	for _, task := range tasks {
		if text, err := os.ReadFile(task); err == nil && !bytes.Contains(text, []byte("CapEff:\t0000000000000000")) {
			t.Errorf("a thread keeps capabilities: %s", text)
		}
	}
}
