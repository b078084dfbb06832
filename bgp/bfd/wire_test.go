package bfd

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A line is two sessions and what is between them, in virtual time.
type line struct {
	rnd   *rand.Rand
	now   time.Time
	ends  [2]*Session
	fly   []flight
	last  [2]time.Time     // arrival of the newest packet of each
	delay time.Duration    // at most
	loss  [2]float64       // of what each end sends
	sent  [2][]time.Time   // periodic packets of each
	seen  [2][]State       // states of each, in turn
	since [2]time.Duration // of the newest state
}

type flight struct {
	to int
	at time.Time
	p  Packet
}

func newLine(seed uint64, a, b Parameters) *line {
	l := &line{rnd: rand.New(rand.NewPCG(seed, 1)), now: epoch, delay: 5 * time.Millisecond}
	l.ends = [2]*Session{NewSession(a, 1, epoch), NewSession(b, 2, epoch)}
	return l
}

// run plays for a while, event by event.
func (l *line) run(d time.Duration) {
	end := l.now.Add(d)
	for {
		next := end
		for _, s := range l.ends {
			if due := s.Due(); !due.IsZero() && due.Before(next) {
				next = due
			}
		}
		for _, f := range l.fly {
			if f.at.Before(next) {
				next = f.at
			}
		}
		if next.After(l.now) {
			l.now = next
		}
		if !l.now.Before(end) {
			return
		}
		l.step()
	}
}

func (l *line) step() {
	for i := 0; i < len(l.fly); i++ {
		if f := l.fly[i]; !f.at.After(l.now) {
			l.fly = slices.Delete(l.fly, i, i+1)
			i--
			l.ends[f.to].Receive(f.p, l.now)
			l.note(f.to)
		}
	}
	for i, s := range l.ends {
		s.Expire(l.now)
		l.note(i)
		for {
			p, ok := s.Transmit(l.now, l.rnd.Float64())
			if !ok {
				break
			}
			if !p.Final {
				l.sent[i] = append(l.sent[i], l.now)
			}
			if l.rnd.Float64() >= l.loss[i] {
				at := l.now.Add(time.Duration(l.rnd.Int64N(int64(l.delay))))
				if at.Before(l.last[i]) {
					at = l.last[i] // a path keeps the order
				}
				l.last[i] = at
				l.fly = append(l.fly, flight{1 - i, at, p})
			}
		}
	}
}

func (l *line) note(i int) {
	if n := len(l.seen[i]); n == 0 || l.seen[i][n-1] != l.ends[i].state {
		l.seen[i] = append(l.seen[i], l.ends[i].state)
		l.since[i] = l.now.Sub(epoch)
	}
}

func (l *line) up() bool { return l.ends[0].state == Up && l.ends[1].state == Up }

// TestTwoSessions: whatever the two want, they come up, keep up, send as often as was negotiated, and notice a cut line
// within the detection time, and never later.
func TestTwoSessions(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		pick := func() Parameters {
			return Parameters{
				MinTx:      time.Duration(10+rnd.IntN(990)) * time.Millisecond,
				MinRx:      time.Duration(10+rnd.IntN(990)) * time.Millisecond,
				Multiplier: uint8(2 + rnd.IntN(5)),
			}
		}
		l := newLine(seed, pick(), pick())
		l.run(4 * time.Second)
		if !l.up() {
			t.Fatalf("seed %d: %v and %v after 4 s", seed, l.ends[0].state, l.ends[1].state)
		}
		if max(l.since[0], l.since[1]) > 1100*time.Millisecond {
			t.Errorf("seed %d: up after %v, want about a second", seed, l.since)
		}
		if l.ends[0].polling || l.ends[1].polling {
			t.Errorf("seed %d: still polling", seed)
		}
		for i := range l.ends {
			want := max(l.ends[i].want.MinTx, l.ends[1-i].want.MinRx)
			if got := l.ends[i].txInterval(); got != want {
				t.Errorf("seed %d: end %d sends every %v, want %v", seed, i, got, want)
			}
			detect := time.Duration(l.ends[1-i].want.Multiplier) * max(l.ends[i].want.MinRx, l.ends[1-i].want.MinTx)
			if got := l.ends[i].detection(); got != detect {
				t.Errorf("seed %d: end %d detects in %v, want %v", seed, i, got, detect)
			}
		}
		l.sent = [2][]time.Time{}
		l.run(20 * time.Second)
		for i := range l.ends {
			most := l.ends[i].txInterval()
			least := time.Duration(0.7499 * float64(most))
			for j := 1; j < len(l.sent[i]); j++ {
				if gap := l.sent[i][j].Sub(l.sent[i][j-1]); gap < least || gap > most {
					t.Fatalf("seed %d: end %d sent after %v, want %v to %v", seed, i, gap, least, most)
				}
			}
			if len(l.seen[i]) > 3 {
				t.Fatalf("seed %d: end %d was %v on a good line", seed, i, l.seen[i])
			}
		}
		l.cut(t, seed, rnd.IntN(3))
	}
}

// cut cuts one direction, or both (2), and watches both ends.
func (l *line) cut(t *testing.T, seed uint64, which int) {
	deaf := [2]bool{which != 1, which != 0} // who hears nothing
	var limit [2]time.Duration
	for i := range l.ends {
		limit[i] = l.ends[i].detection()
		if deaf[i] {
			l.loss[1-i] = 1
		}
	}
	began := l.now.Sub(epoch)
	first := max(limit[0], limit[1])
	if which == 0 {
		first = limit[0]
	} else if which == 1 {
		first = limit[1]
	}
	l.run(first + 2*l.delay)
	for i, s := range l.ends {
		if deaf[i] && s.cause != CauseSilence {
			t.Fatalf("seed %d: end %d is %v, cause %q, %v after the cut", seed, i, s.state, s.cause, first)
		}
		if !deaf[i] && s.cause != CauseSignal {
			t.Fatalf("seed %d: end %d was not told: %v, cause %q", seed, i, s.state, s.cause)
		}
		if took := l.since[i] - began; took > first+2*l.delay {
			t.Errorf("seed %d: end %d noticed after %v", seed, i, took)
		}
	}
	l.loss = [2]float64{}
	l.run(3 * time.Second)
	if !l.up() {
		t.Fatalf("seed %d: %v and %v, 3 s after the cut was mended", seed, l.ends[0].state, l.ends[1].state)
	}
}

// TestLossIsSurvived: a multiplier of 5 rides over a fifth of the packets lost; what falls comes up again.
func TestLossIsSurvived(t *testing.T) {
	falls := 0
	for seed := range uint64(20) {
		p := Parameters{MinTx: 100 * time.Millisecond, MinRx: 100 * time.Millisecond, Multiplier: 5}
		l := newLine(seed, p, p)
		l.loss = [2]float64{0.2, 0.2}
		l.run(5 * time.Second)
		before := len(l.seen[0])
		l.run(time.Minute)
		falls += len(l.seen[0]) - before
		l.loss = [2]float64{}
		l.run(5 * time.Second)
		if !l.up() {
			t.Errorf("seed %d: not up again", seed)
		}
	}
	// Five in a row are lost once in 3125 packets: about 4.5 times in 14,000. Each fall is up to three changes.
	if falls > 40 {
		t.Errorf("%d changes of state in 20 minutes, want few", falls)
	}
}

// TestReconfigureNeverFlaps: whatever is changed while up, both ends stay up.
func TestReconfigureNeverFlaps(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		l := newLine(seed, fast, fast)
		l.run(5 * time.Second)
		for range 20 {
			i := rnd.IntN(2)
			l.ends[i].Reconfigure(Parameters{
				MinTx:      time.Duration(50+rnd.IntN(3000)) * time.Millisecond,
				MinRx:      time.Duration(50+rnd.IntN(3000)) * time.Millisecond,
				Multiplier: uint8(2 + rnd.IntN(4)),
			})
			l.run(time.Duration(rnd.IntN(4000)) * time.Millisecond)
		}
		for i := range l.ends {
			if len(l.seen[i]) > 3 {
				t.Fatalf("seed %d: end %d was %v", seed, i, l.seen[i])
			}
		}
	}
}
