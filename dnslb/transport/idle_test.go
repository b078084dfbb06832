package transport

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// idleBudget is the memory of one idle connection, its goroutine included: a
// hundred megabytes for ten thousand.
const idleBudget = 100 << 20 / 10_000

// TestIdleMemory: a connection that has been used and is silent holds no buffers
// and little stack.
func TestIdleMemory(t *testing.T) {
	const connections = 500 // of 9 networks, each within its share
	pool, _, address := serve(t, Limits{Connections: 10_000, Idle: time.Minute}, echo{})
	inUse := func() uint64 {
		var m runtime.MemStats
		for range 2 { // stacks shrink, pools are emptied
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := inUse()
	clients := make([]int, 0, connections)
	for i := range connections {
		conn := dialFrom(t, netip.AddrFrom4([4]byte{127, 0, byte(i / 60), 9}), netip.MustParseAddrPort(address))
		if _, err := conn.Write([]byte{0, 3, 'a', 'b', 'c'}); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, i)
	}
	if pool.Open() != connections {
		t.Fatalf("%d connections are open, want %d", pool.Open(), connections)
	}
	each := (int64(inUse()) - int64(before)) / int64(len(clients))
	t.Logf("%d octets each, client and server", each)
	if each > idleBudget {
		t.Errorf("an idle connection holds %d octets, want at most %d", each, idleBudget)
	}
}

// dialFrom connects from an address of its own.
func dialFrom(t *testing.T, from netip.Addr, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}
