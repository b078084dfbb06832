package bfd

import (
	"testing"
	"time"
)

var (
	epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fast  = Parameters{MinTx: 300 * time.Millisecond, MinRx: 300 * time.Millisecond, Multiplier: 3}
)

// hear gives s a packet of a neighbour in a state, with fast parameters.
func hear(s *Session, state State, now time.Time) {
	s.Receive(Packet{
		State: state, Multiplier: 3, Mine: 7, Yours: s.mine, DesiredMinTx: fast.MinTx, RequiredMinRx: fast.MinRx,
	}, now)
}

// in returns a session that has come to a state.
func in(t *testing.T, state State) *Session {
	t.Helper()
	s := NewSession(fast, 1, epoch)
	switch state {
	case AdminDown:
		s.Disable(epoch)
	case Init:
		hear(s, Down, epoch)
	case Up:
		hear(s, Init, epoch)
	}
	if s.State() != state {
		t.Fatalf("state %v, want %v", s.State(), state)
	}
	return s
}

// TestStates is the table of RFC 5880, section 6.8.6.
func TestStates(t *testing.T) {
	tests := []struct {
		from, hears, want State
		cause             Cause // of the end of Up
	}{
		{AdminDown, AdminDown, AdminDown, CauseNone},
		{AdminDown, Down, AdminDown, CauseNone},
		{AdminDown, Init, AdminDown, CauseNone},
		{AdminDown, Up, AdminDown, CauseNone},
		{Down, AdminDown, Down, CauseNone},
		{Down, Down, Init, CauseNone},
		{Down, Init, Up, CauseNone},
		{Down, Up, Down, CauseNone},
		{Init, AdminDown, Down, CauseNone},
		{Init, Down, Init, CauseNone},
		{Init, Init, Up, CauseNone},
		{Init, Up, Up, CauseNone},
		{Up, AdminDown, Down, CausePeerAdmin},
		{Up, Down, Down, CauseSignal},
		{Up, Init, Up, CauseNone},
		{Up, Up, Up, CauseNone},
	}
	for _, tt := range tests {
		t.Run(tt.from.String()+" hears "+tt.hears.String(), func(t *testing.T) {
			s := in(t, tt.from)
			hear(s, tt.hears, epoch.Add(time.Millisecond))
			if s.State() != tt.want || s.cause != tt.cause {
				t.Errorf("state %v, cause %q, want %v, %q", s.State(), s.cause, tt.want, tt.cause)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	for _, from := range []State{Init, Up} {
		s := in(t, from)
		hear(s, from, epoch.Add(time.Second))
		late := epoch.Add(time.Second + 900*time.Millisecond)
		s.Expire(late.Add(-1))
		if s.State() == Down {
			t.Fatalf("%v: down before the detection time", from)
		}
		if due := s.Due(); due.After(late) {
			t.Errorf("%v: due at %v, after the detection time", from, due.Sub(epoch))
		}
		s.Expire(late)
		p := s.packet()
		if s.State() != Down || p.Diag != DiagTimeExpired || p.Yours != 0 {
			t.Errorf("%v: %v, packet %+v; want down, diagnostic 1, no discriminator", from, s.State(), p)
		}
		if p.DesiredMinTx != slowInterval {
			t.Errorf("%v: offers %v while down, want %v", from, p.DesiredMinTx, slowInterval)
		}
	}
}

// drain returns the packets that s sends at once.
func drain(s *Session, now time.Time) (out []Packet) {
	for {
		p, ok := s.Transmit(now, 0)
		if !ok {
			return out
		}
		out = append(out, p)
	}
}

func TestSlowStart(t *testing.T) {
	s := NewSession(fast, 1, epoch)
	now, last := epoch, epoch
	drain(s, now)
	for range 100 {
		now = s.Due()
		if len(drain(s, now)) != 1 {
			t.Fatalf("nothing is sent when due")
		}
		if gap := now.Sub(last); gap < 750*time.Millisecond || gap > time.Second {
			t.Fatalf("%v between packets while down, want 750 ms to 1 s", gap)
		}
		last = now
	}
}

func TestPoll(t *testing.T) {
	s := in(t, Up)
	now := epoch.Add(time.Second)
	got := drain(s, now)
	if len(got) != 1 || !got[0].Poll || got[0].Final || got[0].DesiredMinTx != fast.MinTx {
		t.Fatalf("coming up it sends %+v, want one poll with 300ms", got)
	}
	if s.txInterval() != fast.MinTx {
		t.Errorf("sends every %v, want 300ms at once: a decrease needs no confirmation", s.txInterval())
	}
	s.Receive(Packet{State: Up, Final: true, Multiplier: 3, Mine: 7, Yours: 1, DesiredMinTx: fast.MinTx, RequiredMinRx: fast.MinRx}, now)
	if s.polling {
		t.Error("still polls after the final")
	}

	// Slower: in force only after the final.
	s.Reconfigure(Parameters{MinTx: 2 * time.Second, MinRx: 100 * time.Millisecond, Multiplier: 5})
	if s.txInterval() != fast.MinTx || s.detection() != 900*time.Millisecond {
		t.Errorf("before the final: sends every %v, waits %v; want the old 300ms, 900ms", s.txInterval(), s.detection())
	}
	got = drain(s, now.Add(time.Second))
	if len(got) != 1 || !got[0].Poll || got[0].DesiredMinTx != 2*time.Second || got[0].Multiplier != 5 {
		t.Fatalf("it sends %+v, want one poll with 2s", got)
	}
	// A poll of theirs is answered at once, without ending ours, and never with both bits.
	s.Receive(Packet{State: Up, Poll: true, Multiplier: 3, Mine: 7, Yours: 1, DesiredMinTx: 50 * time.Millisecond, RequiredMinRx: fast.MinRx}, now.Add(time.Second))
	if due := s.Due(); due.After(now.Add(time.Second)) {
		t.Errorf("the final is due in %v, want at once", due.Sub(now))
	}
	got = drain(s, now.Add(time.Second))
	if len(got) != 1 || !got[0].Final || got[0].Poll {
		t.Fatalf("a poll is answered with %+v, want one final", got)
	}
	s.Receive(Packet{State: Up, Final: true, Multiplier: 3, Mine: 7, Yours: 1, DesiredMinTx: 50 * time.Millisecond, RequiredMinRx: fast.MinRx}, now.Add(time.Second))
	if s.txInterval() != 2*time.Second || s.detection() != 300*time.Millisecond {
		t.Errorf("after the final: sends every %v, waits %v; want 2s, 3 × 100ms", s.txInterval(), s.detection())
	}
}

// TestPollAgain: a final cannot confirm what was not yet asked.
func TestPollAgain(t *testing.T) {
	s := in(t, Up)
	drain(s, epoch.Add(time.Second))
	s.Reconfigure(Parameters{MinTx: 2 * time.Second, MinRx: 2 * time.Second, Multiplier: 3})
	final := Packet{State: Up, Final: true, Multiplier: 3, Mine: 7, Yours: 1, DesiredMinTx: fast.MinTx, RequiredMinRx: fast.MinRx}
	s.Receive(final, epoch.Add(time.Second))
	if s.txInterval() != fast.MinTx {
		t.Error("the first final, to the older poll, confirmed the newer parameters")
	}
	s.Receive(final, epoch.Add(time.Second))
	if s.txInterval() != 2*time.Second {
		t.Error("the second final confirmed nothing")
	}
}

func TestJitter(t *testing.T) {
	for _, tt := range []struct {
		multiplier uint8
		most       time.Duration
	}{{3, 300 * time.Millisecond}, {1, 270 * time.Millisecond}} {
		p := fast
		p.Multiplier = tt.multiplier
		s := NewSession(p, 1, epoch)
		hear(s, Init, epoch)
		now := epoch.Add(time.Second)
		hear(s, Up, now)
		s.Transmit(now, 0)
		for _, random := range []float64{0, 0.5, 0.999999} {
			at := s.Due()
			hear(s, Up, at)
			early := at.Add(-s.early())
			if _, ok := s.Transmit(early, random); !ok {
				t.Fatal("nothing is sent at the earliest time")
			}
			if gap := early.Sub(now); gap < 225*time.Millisecond || gap > tt.most {
				t.Errorf("multiplier %d: %v between packets, want 225ms to %v", tt.multiplier, gap, tt.most)
			}
			now = early
		}
	}
}

func TestPeerAsksForSilence(t *testing.T) {
	s := in(t, Up)
	drain(s, epoch)
	s.Receive(Packet{State: Up, Multiplier: 3, Mine: 7, Yours: 1, DesiredMinTx: fast.MinTx}, epoch.Add(time.Second))
	if got := drain(s, epoch.Add(time.Hour)); len(got) != 0 {
		t.Errorf("sends %+v to a neighbour that requires 0", got)
	}
	hear(s, Up, epoch.Add(time.Second))
	if got := drain(s, epoch.Add(2*time.Second)); len(got) != 1 {
		t.Errorf("sends %d packets after the neighbour asked for some again", len(got))
	}
}

func TestPeerInDemandMode(t *testing.T) {
	s := in(t, Up)
	demand := Packet{State: Up, Demand: true, Final: true, Multiplier: 3, Mine: 7, Yours: 1, DesiredMinTx: fast.MinTx, RequiredMinRx: fast.MinRx}
	drain(s, epoch.Add(20*time.Millisecond))
	s.Receive(demand, epoch.Add(time.Second))
	if got := drain(s, epoch.Add(time.Hour)); len(got) != 0 {
		t.Errorf("sends %+v to a neighbour in demand mode", got)
	}
	demand.Poll, demand.Final = true, false
	s.Receive(demand, epoch.Add(time.Second))
	if got := drain(s, epoch.Add(time.Hour)); len(got) != 1 || !got[0].Final {
		t.Errorf("a poll in demand mode is answered with %+v", got)
	}
}

func TestAdmin(t *testing.T) {
	s := in(t, Up)
	s.Disable(epoch.Add(time.Second))
	got := drain(s, epoch.Add(time.Second))
	if len(got) != 1 || got[0].State != AdminDown || got[0].Diag != DiagAdminDown {
		t.Errorf("disabled it sends %+v", got)
	}
	if s.cause.Failure() || in(t, Up).cause != CauseNone {
		t.Errorf("cause %q is no failure", s.cause)
	}
	s.Enable(epoch.Add(2 * time.Second))
	hear(s, Down, epoch.Add(2*time.Second))
	if s.State() != Init {
		t.Errorf("enabled and heard, it is %v", s.State())
	}
}

// TestFlippingPeer: changes are told at once, but not without limit.
func TestFlippingPeer(t *testing.T) {
	s := in(t, Down)
	sent := 0
	for i := range 1000 {
		now := epoch.Add(time.Duration(i) * 100 * time.Microsecond)
		hear(s, State(1+i%3), now)
		sent += len(drain(s, now))
	}
	if sent > 12 {
		t.Errorf("%d packets in 100 ms to a neighbour that flips, want at most one in 10 ms", sent)
	}
}
