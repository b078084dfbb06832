package probe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pharos-lb/pharos/internal/health"
)

// serveEnv makes the test binary a server of TCP and HTTP, in a process of its
// own so that what it costs is not taken for the cost of probing.
const serveEnv = "PHAROS_PROBE_TEST_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		serveLoad()
		return
	}
	if keepForTests() {
		return
	}
	goleak.VerifyTestMain(m)
}

// serveLoad accepts connections on two ports, which it prints, until its input ends:
// one takes them in, the other answers 200 on / and 503 elsewhere.
func serveLoad() {
	plain, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		panic(err)
	}
	web, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(plain.Addr().(*net.TCPAddr).Port, web.Addr().(*net.TCPAddr).Port)
	go acceptLoad(plain, func(net.Conn) {})
	go acceptLoad(web, answerLoad)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func acceptLoad(l net.Listener, handle func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			handle(conn)
		}()
	}
}

func answerLoad(conn net.Conn) {
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	status := "200 OK"
	if request.URL.Path != "/" {
		status = "503 Service Unavailable"
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Type: text/plain\r\nServer: test\r\nContent-Length: 3\r\n\r\nok\n")
}

// serverProcess starts serveLoad and returns its two ports.
func serverProcess(b *testing.B) (plain, web int) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	server := exec.Command(self)
	server.Env = append(os.Environ(), serveEnv+"=1")
	in, err := server.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = server.Wait()
	})
	if _, err := fmt.Fscan(out, &plain, &web); err != nil {
		b.Fatal(err)
	}
	return plain, web
}

// spent is the processor time of this process so far.
func spent(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRunner10k asks for 10,000 real probes a second and reports the
// processor time of each, kernel included, and the rate that was kept: 10,000 a
// second fit one core as long as a probe takes less than 100 µs of it.
func BenchmarkRunner10k(b *testing.B) {
	plain, web := serverProcess(b)
	for _, bb := range []struct {
		name string
		port int
		like Check
		ok   bool
	}{
		{"tcp/pass", plain, Check{}, true},
		{"tcp/fail", 1, Check{}, false},
		{"http/pass", web, Check{Kind: HTTP}, true},
		{"http/fail", web, Check{Kind: HTTP, Path: "/down"}, false},
	} {
		b.Run(bb.name, func(b *testing.B) { load(b, bb.port, bb.like, bb.ok) })
	}
}

func load(b *testing.B, port int, like Check, want bool) {
	const targets, every = 2000, 200 * time.Millisecond
	like.Every, like.Timeout, like.Recheck = every, time.Second, every
	cs := make([]Check, targets)
	for i := range cs {
		cs[i] = like
		cs[i].Target = health.Target{Kind: health.KindBackend, Service: "web", Site: "fra", Addr: netip.MustParseAddrPort(fmt.Sprintf("127.0.%d.%d:%d", i/250, i%250+1, port))}
	}
	real := looker{commands: newCommands(newMetrics(), nil)}
	var n, wrong atomic.Int64
	left := make(chan struct{}, 1)
	r, err := New(Options{Checks: cs, Probe: func(ctx context.Context, c Check) Result {
		result := real.look(ctx, c)
		if result.OK() != want {
			wrong.Add(1)
		}
		if n.Add(1) == int64(b.N) {
			signal(left)
		}
		return result
	}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	before := spent(b)
	go func() { done <- r.Run(ctx) }()
	<-left
	used := spent(b) - before
	b.StopTimer()
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/check")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checks/s")
	cancel()
	<-done
	if b.N > 1000 && wrong.Load() > int64(b.N)/100 {
		b.Errorf("%d of %d probes found the opposite of what is there", wrong.Load(), b.N)
	}
}
