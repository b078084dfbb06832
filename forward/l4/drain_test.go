package l4

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// TestDrainEndsSilentBackend: what waits for a backend ends with the drain, not with the backend.
func TestDrainEndsSilentBackend(t *testing.T) {
	const drain = 200 * time.Millisecond
	tests := []struct {
		name  string
		leave func(*net.TCPConn)
	}{
		{"client is there", func(*net.TCPConn) {}},
		{"client has half-closed", func(c *net.TCPConn) { c.CloseWrite() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			heard, release := make(chan error, 1), make(chan struct{})
			f := start(t, Options{
				Drain: drain, Listeners: []Listener{{Service: "db", Idle: time.Hour, Connect: time.Second}},
			}, backend(t, func(c *net.TCPConn) {
				_, err := io.ReadFull(c, make([]byte, 5))
				heard <- err
				<-release
			}))
			t.Cleanup(func() { close(release) }) // before the cleanup of start and backend
			c := dial(t, f.addr)
			io.WriteString(c, "hello")
			if err := <-heard; err != nil {
				t.Fatal(err)
			}
			tt.leave(c)
			began := time.Now()
			f.stop()
			if d := time.Since(began); d < drain || d > drain+time.Second {
				t.Errorf("Run returned %s after its context ended, want %s and at most a second more", d, drain)
			}
			for _, s := range f.registry.Snapshot() {
				if s.InFlight != 0 || s.Outcomes[forward.OutcomeReset]+s.Outcomes[forward.OutcomeTimeout] != 0 {
					t.Errorf("got %+v, want nothing in flight and no word about the backend", s)
				}
			}
		})
	}
}
