package l4

import (
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward/l4/kernel"
	"golang.org/x/sys/unix"
)

// manyConns is how many connections TestManyConnections opens; the scale run asks for 100,000.
var manyConns = flag.Int("conns", 4000, "connections of TestManyConnections")

// hang returns an address at which the kernel answers no further SYN.
func hang(t *testing.T) (netip.AddrPort, func()) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	addr := kernel.LocalAddress(int32(fd))
	var fill []net.Conn
	for range 4 {
		c, err := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond)
		if err != nil {
			break
		}
		fill = append(fill, c)
	}
	return addr, func() {
		for _, c := range fill {
			c.Close()
		}
		unix.Close(fd)
	}
}

// TestSlowReader: a client that reads nothing holds one buffer's worth here and
// stops nobody; when it reads everything arrives.
func TestSlowReader(t *testing.T) {
	const size = 8 << 20
	f := start(t, Options{Shards: 1}, backend(t, func(c *net.TCPConn) {
		if b := make([]byte, 1); ioRead(c, b) && b[0] == 'e' {
			echo(c)
			return
		}
		c.Write([]byte(strings.Repeat("s", size)))
	}))
	slow := dial(t, f.addr)
	slow.Write([]byte("s"))
	for range 50 {
		c := dial(t, f.addr)
		c.Write([]byte("e"))
		ask(t, c, "others are served")
		c.Close()
	}
	time.Sleep(50 * time.Millisecond)
	if n, err := io.Copy(io.Discard, slow); n != size || err != nil {
		t.Errorf("got %d bytes, %v, want %d", n, err, size)
	}
}

func ioRead(c net.Conn, b []byte) bool {
	_, err := io.ReadFull(c, b)
	return err == nil
}

// TestRandomFaults has clients and backends break off, hang, trickle and flood at
// random points; afterwards nothing is left and a well-behaved client is served.
func TestRandomFaults(t *testing.T) {
	fault := func(r *rand.Rand, c *net.TCPConn) {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		for range r.IntN(6) {
			switch r.IntN(6) {
			case 0:
				c.Write(make([]byte, 1+r.IntN(200_000)))
			case 1:
				c.Write([]byte{1})
			case 2:
				io.ReadFull(c, make([]byte, 1+r.IntN(1000)))
			case 3:
				c.CloseWrite()
			case 4:
				c.SetLinger(0)
				return
			case 5:
				time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
			}
			c.SetDeadline(time.Now().Add(20 * time.Millisecond))
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var bad sync.Map
	f := start(t, Options{Shards: 2, Listeners: []Listener{{Service: "db", Idle: 2 * time.Second, Connect: 500 * time.Millisecond}}},
		backend(t, func(c *net.TCPConn) {
			b := make([]byte, 1)
			if !ioRead(c, b) {
				return
			}
			if b[0] == 'e' {
				echo(c)
				return
			}
			fault(rand.New(rand.NewPCG(seed, uint64(b[0]))), c)
		}))
	fds := openFiles(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for range 60 {
				c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(f.addr))
				if err != nil {
					bad.Store(i, err)
					return
				}
				c.Write([]byte{byte(r.IntN(90))})
				fault(r, c)
				c.Close()
			}
		})
	}
	wg.Wait()
	bad.Range(func(_, err any) bool { t.Error(err); return true })
	c := dial(t, f.addr)
	c.Write([]byte("e"))
	ask(t, c, "hello")
	c.Close()
	until(t, "all ended", func() bool { return f.Stats().Active == 0 })
	until(t, "descriptors are back", func() bool { return openFiles(t) <= fds+8 })
	if s := f.registry.Snapshot()[0]; s.InFlight != 0 {
		t.Errorf("%d in flight", s.InFlight)
	}
}

// TestManyConnections: after so many nothing has leaked.
func TestManyConnections(t *testing.T) {
	f := start(t, Options{}, backend(t, echo))
	c := dial(t, f.addr)
	ask(t, c, "warm")
	c.Close()
	until(t, "quiet", func() bool { return f.Stats().Active == 0 })
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	bulk := make([]byte, 512<<10)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range *manyConns / 4 {
				c, err := net.Dial("tcp", f.addr.String())
				if err != nil {
					t.Error(err)
					return
				}
				if i%16 == 0 { // is spliced, and broken off in the middle
					wg.Go(func() { c.Write(bulk) })
					io.ReadFull(c, make([]byte, len(bulk)/2))
				} else {
					c.Write(bulk[:1])
					io.ReadFull(c, make([]byte, 1))
				}
				c.(*net.TCPConn).SetLinger(0) // no port may be waited for
				c.Close()
			}
		})
	}
	wg.Wait()
	until(t, "nothing is left", func() bool {
		return f.Stats().Active == 0 && runtime.NumGoroutine() <= goroutines && openFiles(t) <= fds+4
	})
	entries, _ := os.ReadDir("/proc/self/fd")
	pipes := 0
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			pipes++
		}
	}
	if pipes > 4*keptPipes {
		t.Errorf("%d ends of pipes are open", pipes)
	}
}
