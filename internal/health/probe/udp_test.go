package probe

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// serveUDP answers datagrams on a loopback port until the test ends; handle
// returns the answers.
func serveUDP(t testing.TB, handle func(got string, from net.Addr) []string) health.Target {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 1<<16); ; {
			n, from, err := socket.ReadFrom(b)
			if err != nil {
				return
			}
			for _, out := range handle(string(b[:n]), from) {
				socket.WriteTo([]byte(out), from)
			}
		}
	}()
	t.Cleanup(func() { socket.Close(); <-done })
	return target(socket.LocalAddr().String())
}

func TestProbeUDP(t *testing.T) {
	at := serveUDP(t, func(got string, _ net.Addr) []string {
		switch got {
		case "ping\x00":
			return []string{"status: \x01pong", "never read"}
		case "":
			return []string{""}
		case "big":
			return []string{strings.Repeat("x", 60_000) + "end"}
		}
		return nil
	})
	for _, tt := range []struct {
		name  string
		check UDPExchange
		want  string
	}{
		{"expected", UDPExchange{"ping\x00", "\x01pong"}, ""},
		{"any answer", UDPExchange{"ping\x00", ""}, ""},
		{"empty both ways", UDPExchange{}, ""},
		{"large answer", UDPExchange{"big", "xend"}, ""},
		{"unexpected", UDPExchange{"ping\x00", "ready"}, `answer "status: \x01pong" does not contain "ready"`},
		{"silence", UDPExchange{"what?", ""}, "timeout after 100ms waiting for an answer"},
	} {
		c := Check{Target: at, Kind: UDP, UDP: tt.check}
		if tt.name == "silence" {
			c.Timeout = 100 * time.Millisecond
		}
		if got := run(t, &prober{}, c); got.Err != tt.want || got.Inconclusive {
			t.Errorf("%s: got %+v, want %q", tt.name, got, tt.want)
		}
	}
}

func TestProbeUDPUnreachable(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := target(socket.LocalAddr().String())
	socket.Close()
	if got := run(t, &prober{}, Check{Target: at, Kind: UDP}); got.Err != "port unreachable" || got.Inconclusive {
		t.Errorf("got %+v", got)
	}
}

func TestProbeUDPSource(t *testing.T) {
	at := serveUDP(t, func(_ string, from net.Addr) []string { return []string{from.String()} })
	p := &prober{source: func(health.Target) netip.Addr { return netip.MustParseAddr("127.0.0.9") }}
	if got := run(t, p, Check{Target: at, Kind: UDP, UDP: UDPExchange{Expect: "127.0.0.9:"}}); !got.OK() {
		t.Errorf("got %+v", got)
	}
	p.source = func(health.Target) netip.Addr { return netip.MustParseAddr("192.0.2.1") }
	if got := run(t, p, Check{Target: at, Kind: UDP}); !got.Inconclusive || !strings.HasPrefix(got.Err, "cannot probe: no free local port") {
		t.Errorf("from a foreign address: %+v", got)
	}
}
