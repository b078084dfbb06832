package l7

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fakePools struct {
	mu        sync.Mutex
	version   uint64
	pools     []forward.ServicePool
	transport forward.Transport // of "web"
	warm      int
	policy    forward.Policy
}

func (f *fakePools) Version() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version
}

func (f *fakePools) Edition() (uint64, []forward.ServicePool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version, f.pools
}

// publish makes members the pool of service "web", beside the empty "none".
func (f *fakePools) publish(members ...netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	web := forward.ServicePool{Service: "web", Transport: f.transport, Warm: f.warm, Policy: f.policy}
	for _, m := range members {
		web.Members = append(web.Members, forward.Member{Address: m, Weight: 1, Active: true})
	}
	down := forward.ServicePool{Service: "down", Members: []forward.Member{{Address: netip.MustParseAddrPort("127.0.0.1:1")}}}
	f.version++
	f.pools = []forward.ServicePool{web, down}
}

// limit publishes members anew, with a limit of what each gets at once.
func (f *fakePools) limit(l forward.Limit, members ...netip.AddrPort) {
	f.mu.Lock()
	f.policy.Limit = l
	f.mu.Unlock()
	f.publish(members...)
}

type fixture struct {
	*Server
	pools    *fakePools
	registry *forward.Registry
	told     told
	addr     string
	stop     func() // ends Run and waits for it
}

var anyRoute = []Route{{Service: "web"}}

// start runs a Server with one listener that sends everything to members,
// unless opts has listeners of its own.
func start(t testing.TB, opts Options, members ...netip.AddrPort) *fixture {
	t.Helper()
	return startVia(t, forward.Transport{}, opts, members...)
}

// startVia is start with backends that are spoken to in a certain way.
func startVia(t testing.TB, transport forward.Transport, opts Options, members ...netip.AddrPort) *fixture {
	t.Helper()
	f := &fixture{pools: &fakePools{transport: transport}}
	f.pools.publish(members...)
	var err error
	outcome := func(_ string, _ netip.AddrPort, ok bool) { f.told.add(ok) }
	if f.registry, err = forward.New(forward.Options{Pools: f.pools, Outcome: outcome}); err != nil {
		t.Fatal(err)
	}
	opts.Registry = f.registry
	if opts.Listeners == nil {
		opts.Listeners = []Listener{{Routes: anyRoute}}
	}
	for i := range opts.Listeners {
		if !opts.Listeners[i].Address.IsValid() {
			opts.Listeners[i].Address = netip.MustParseAddrPort("127.0.0.1:0")
		}
		opts.Listeners[i].Transports = append(opts.Listeners[i].Transports, transport)
	}
	if f.Server, err = New(opts); err != nil {
		t.Fatal(err)
	}
	f.addr = f.Addrs()[0].String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		f.registry.Close()
	})
	t.Cleanup(f.stop)
	return f
}

// webBackend serves handler with net/http until the test ends.
func webBackend(t testing.TB, handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// rawBackend serves each connection with handle until the test ends.
func rawBackend(t testing.TB, handle func(c *net.TCPConn, r *bufio.Reader)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				handle(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// says answers every request on a connection with the same bytes; a trailing
// "!" stands for closing the connection after them.
func says(t testing.TB, answer string) netip.AddrPort {
	t.Helper()
	return rawBackend(t, func(c *net.TCPConn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			text, last := strings.CutSuffix(answer, "!")
			if _, err := io.WriteString(c, text); err != nil || last {
				return
			}
		}
	})
}

// nobody returns an address at which connections are refused: its port is taken until
// the test ends, or the next listener might get it, the Server's own for one.
func nobody(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
}

// A wire is a client connection spoken to in bytes.
type wire struct {
	t testing.TB
	*net.TCPConn
	r *bufio.Reader
}

func dial(t testing.TB, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return &wire{t, c.(*net.TCPConn), bufio.NewReader(c)}
}

func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		w.t.Fatal(err)
	}
}

// An answer is a response with its body read.
type answer struct {
	*http.Response
	body string
}

// read reads the answer to a request with the method.
func (w *wire) read(method string) answer {
	w.t.Helper()
	res, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{res, string(body)}
}

// wantEnd fails unless the connection has ended and nothing more came.
func (w *wire) wantEnd() {
	w.t.Helper()
	if rest, err := io.ReadAll(w.r); len(rest) > 0 {
		w.t.Errorf("got %q and %v, want the end of the connection", rest, err)
	}
}

// client is a net/http client without a pool shared with other tests.
func client(t testing.TB) *http.Client {
	t.Helper()
	tr := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// until waits for a fact that another goroutine brings about.
func until(t testing.TB, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !fact(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
