package transport

import (
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Ten thousand idle connections may take a hundred megabytes.
const (
	idleConnections = 10_000
	idleBudget      = 8 << 20
)

// TestIdleMemory: connections that have been used and are silent hold no buffers. The
// clients are in a process of their own: few may have 20,000 files.
func TestIdleMemory(t *testing.T) {
	if to := os.Getenv(idleClients); to != "" {
		beIdle(t, netip.MustParseAddrPort(to))
		return
	}
	raiseFiles(t, idleConnections+200)
	pool, _, address := serve(t, Limits{Connections: idleConnections, Idle: time.Minute}, echo{})
	before := inUse()
	clients := exec.Command(os.Args[0], "-test.run=^TestIdleMemory$")
	clients.Env = append(os.Environ(), idleClients+"="+address)
	clients.Stdout, clients.Stderr = os.Stderr, os.Stderr
	release, err := clients.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := clients.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		release.Close()
		if err := clients.Wait(); err != nil {
			t.Errorf("clients: %v", err)
		}
	}()
	rests(t, pool, idleConnections, 0)
	used := inUse() - before
	t.Logf("%d idle connections: %.1f MB, %d octets each", idleConnections, float64(used)/(1<<20), used/idleConnections)
	if used > idleBudget {
		t.Errorf("%d idle connections hold %d octets, want at most %d", idleConnections, used, idleBudget)
	}
}

// idleClients tells a child what to connect to.
const idleClients = "PHAROS_TEST_IDLE_CLIENTS"

// beIdle makes the connections and keeps them until the parent has seen enough.
func beIdle(t *testing.T, to netip.AddrPort) {
	raiseFiles(t, idleConnections+200)
	for i := range idleConnections {
		ask(t, netip.AddrFrom4([4]byte{127, 0, byte(i / 60), 9}), to) // of many networks, each within its share
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// inUse is the memory that the process has in use.
func inUse() int64 {
	var m runtime.MemStats
	for range 2 { // stacks shrink
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// raiseFiles lets the process have so many descriptors.
func raiseFiles(t *testing.T, files uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= files {
		return
	}
	raised := unix.Rlimit{Cur: files, Max: max(files, limit.Max)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%d open files are needed: %v", files, err)
		}
		t.Skipf("%d open files are needed: %v", files, err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }) // it was in force before
}

// ask connects from an address, has one message answered and stays.
func ask(t *testing.T, from netip.Addr, to netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	patience := unix.NsecToTimeval(int64(20 * time.Second))
	for _, err := range []error{
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := unix.Write(fd, []byte{0, 3, 'a', 'b', 'c'}); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := unix.Read(fd, make([]byte, 16))
		if err == unix.EINTR { // by the scheduler's signal
			continue
		}
		if n != 5 || err != nil {
			t.Fatalf("answer of %d octets, %v", n, err)
		}
		return
	}
}
