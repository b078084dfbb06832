package l4

import (
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// BenchmarkRelay measures blocks echoed through a Server and, as "none",
// without one. "cpu-µs/block" is the CPU time of the whole process: client,
// server and backend.
func BenchmarkRelay(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
				}()
			}
		}()
		backend := l.Addr().(*net.TCPAddr).AddrPort()
		b.Run(strconv.Itoa(size)+"/none", func(b *testing.B) { benchBlocks(b, backend, size) })
		b.Run(strconv.Itoa(size)+"/pharos", func(b *testing.B) {
			pools := &fakePools{}
			pools.publish(backend)
			registry, err := forward.New(forward.Options{Pools: pools})
			if err != nil {
				b.Fatal(err)
			}
			s, err := New(Options{Registry: registry, Drain: time.Second, Listeners: []Listener{{
				Address: netip.MustParseAddrPort("127.0.0.1:0"), Service: "db",
			}}})
			if err != nil {
				b.Fatal(err)
			}
			ended := make(chan error)
			go func() { ended <- s.Run(b.Context()) }()
			benchBlocks(b, s.Addrs()[0], size)
			b.StopTimer()
			b.Cleanup(func() { <-ended }) // the context ends just before
		})
		l.Close()
		<-done
	}
}

func benchBlocks(b *testing.B, addr netip.AddrPort, size int) {
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	block, back := make([]byte, size), make([]byte, size)
	before, n := cpuTime(b), 0
	b.SetBytes(int64(size))
	for b.Loop() {
		sent := make(chan error, 1)
		if size <= 1<<10 {
			_, err := c.Write(block)
			sent <- err
		} else {
			go func() { _, err := c.Write(block); sent <- err }()
		}
		if _, err := io.ReadFull(c, back); err != nil {
			b.Fatal(err)
		}
		if err := <-sent; err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(cpuTime(b)-before)/1e3/float64(n), "cpu-µs/block")
}

// cpuTime is the process's CPU time in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
