package bgp

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// A fakeServer withdraws as the test says.
type fakeServer struct {
	hang chan struct{} // WithdrawAll returns when it is closed
	err  error         // of WithdrawAll
	left []engine.Path // what Paths returns
}

func (f *fakeServer) WithdrawAll() error {
	<-f.hang
	return f.err
}

func (f *fakeServer) Paths() ([]engine.Path, error) { return f.left, nil }

// TestLapse: at the end of the lease the process lives on only if everything was withdrawn in time.
func TestLapse(t *testing.T) {
	const lease = 3 * time.Second
	const end = lease + lapseGrace + deadman
	left := []engine.Path{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
	for _, tc := range []struct {
		name    string
		done    time.Duration // when WithdrawAll returns, from the renewal; 0 = never by itself
		server  fakeServer
		dies    time.Duration // 0 = not
		wantErr bool
	}{
		{"withdrawn", lease + lapseGrace, fakeServer{}, 0, false},
		{"withdrawn at the last moment", end - time.Millisecond, fakeServer{}, 0, false},
		{"withdrawing hangs", 0, fakeServer{err: errors.New("killed")}, end, true},
		{"withdrawing fails", lease + lapseGrace, fakeServer{err: errors.New("no")}, end, true},
		{"something is left", lease + lapseGrace, fakeServer{left: left}, end, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				hang := make(chan struct{})
				tc.server.hang = hang
				var died time.Duration
				c := &child{log: slog.New(slog.DiscardHandler), lease: time.NewTimer(time.Hour)}
				c.state.Config.Lease = lease
				c.die = func(string) {
					died = time.Since(began)
					if tc.done == 0 {
						close(hang)
					}
				}
				c.renew()
				<-c.lease.C
				if got := time.Since(began); got != lease {
					t.Errorf("the lease ran out after %s, want %s", got, lease)
				}
				time.Sleep(lapseGrace)
				if tc.done > 0 {
					time.AfterFunc(tc.done-time.Since(began), func() { close(hang) })
				}
				if err := c.lapse(&tc.server); (err != nil) != tc.wantErr {
					t.Errorf("lapse: %v, want an error: %t", err, tc.wantErr)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if died != tc.dies {
					t.Errorf("died after %s, want %s (0s = not)", died, tc.dies)
				}
			})
		})
	}
}
