package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func canaryAddresses(n int) (out []netip.AddrPort) {
	for i := range n {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 443))
	}
	return out
}

// TestCanaries: n of three answer, for a while each; State is asked all the time.
func TestCanaries(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers []int // how many answer, 20 s each
		want    []Connection
	}{
		{"all", []int{3}, []Connection{Connected}},
		{"most", []int{2}, []Connection{Connected}},
		{"few", []int{1}, []Connection{Unsure}},
		{"none", []int{0}, []Connection{Cut}},
		{"cut and back", []int{3, 0, 3}, []Connection{Connected, Cut, Connected}},
		{"partly", []int{3, 1, 0}, []Connection{Connected, Unsure, Cut}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var up atomic.Int32
			as := canaryAddresses(3)
			reg := prometheus.NewRegistry()
			c, err := NewCanaries(CanaryOptions{Addresses: as, Registerer: reg, Dial: func(ctx context.Context, to netip.AddrPort) error {
				if int(to.Addr().As4()[3]) <= int(up.Load()) {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}})
			if err != nil {
				t.Fatal(err)
			}
			if s := c.State(); s != Unsure {
				t.Errorf("%s: %v before Run", tt.name, s)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			began := time.Now()
			up.Store(int32(tt.answers[0]))
			go func() { done <- c.Run(ctx) }()
			for i, n := range tt.answers {
				up.Store(int32(n))
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if got := c.State(); got != tt.want[i] {
					t.Errorf("%s: %d of 3 answer: %v, want %v", tt.name, n, got, tt.want[i])
				}
			}
			rounds, seconds := metricSum(t, reg, "pharos_probe_canary_rounds_total"), time.Since(began).Seconds()
			if rounds < seconds/2.5 || rounds > seconds/1.6+1 {
				t.Errorf("%s: %v rounds in %v s", tt.name, rounds, seconds)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if c.Run(t.Context()) == nil {
				t.Error("ran twice")
			}
			time.Sleep(canaryStale + time.Second)
			if s := c.State(); s != Unsure {
				t.Errorf("%s: %v long after the last round", tt.name, s)
			}
		})
	}
}

// TestCanariesSoon: connected within the first round and no longer than the newest
// one says so; cut after three, not sooner.
func TestCanariesSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		up.Store(true)
		c, err := NewCanaries(CanaryOptions{Addresses: canaryAddresses(1), Dial: func(context.Context, netip.AddrPort) error {
			if up.Load() {
				return nil
			}
			return errors.New("refused")
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		synctest.Wait()
		if c.State() != Connected {
			t.Errorf("after one round: %v", c.State())
		}
		up.Store(false)
		time.Sleep(3200 * time.Millisecond) // two rounds at most
		synctest.Wait()
		if c.State() != Unsure {
			t.Errorf("after two silent rounds: %v", c.State())
		}
		time.Sleep(4 * time.Second) // three at least
		synctest.Wait()
		if c.State() != Cut {
			t.Errorf("after three silent rounds: %v", c.State())
		}
		cancel()
		<-done
	})
}

func TestCanariesReal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	for _, from := range []netip.Addr{{}, netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("::1")} {
		if err := connect(t.Context(), from, at); err != nil {
			t.Error(err)
		}
	}
	l.Close()
	if err := connect(t.Context(), netip.Addr{}, at); err == nil {
		t.Error("connected to nobody")
	}
}

func TestNewCanariesRefuses(t *testing.T) {
	as := canaryAddresses(MaxCanaries + 1)
	for want, addresses := range map[string][]netip.AddrPort{
		"17 addresses: at most 16":  as,
		"twice":                     {as[0], as[0]},
		"want an address":           {{}},
		"0.0.0.0:1: want an":        {netip.MustParseAddrPort("0.0.0.0:1")},
		"192.0.2.1:0: want an addr": {netip.MustParseAddrPort("192.0.2.1:0")},
	} {
		if _, err := NewCanaries(CanaryOptions{Addresses: addresses}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	c, err := NewCanaries(CanaryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil || c.State() != Unsure {
		t.Errorf("%v, %v", err, c.State())
	}
}
