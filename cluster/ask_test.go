package cluster

import (
	"bytes"
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

func TestQuestionsAreAnswered(t *testing.T) {
	var longest atomic.Int64
	longest.Store(maxAnswer)
	opt := Options{Label: "test", Keys: [][]byte{testKey(1)}, Answer: func(from string, question []byte) []byte {
		switch string(question) {
		case "silent":
			return nil
		case "long":
			return make([]byte, longest.Load())
		}
		return append([]byte(from+" asks "), question...)
	}}
	fra, iad, sin := trio(t, opt)
	opt.Answer = nil
	opt.Name, opt.Seeds = "mute", []netip.AddrPort{fra.Addr()}
	mute := start(t, opt)
	acquainted(t, fra, iad, sin, mute)

	ctx := t.Context()
	got := fra.Ask(ctx, []string{"iad", "sin", "iad", "fra", "nobody"}, []byte("why"))
	if len(got) != 2 || string(got["iad"]) != "fra asks why" || string(got["sin"]) != "fra asks why" {
		t.Errorf("answers: %q", got)
	}
	if got := fra.Ask(ctx, []string{"iad"}, []byte("long")); len(got["iad"]) != maxAnswer {
		t.Errorf("long answer has %d bytes", len(got["iad"]))
	}
	longest.Store(maxAnswer + 1)
	for _, tt := range []struct {
		name     string
		member   string
		question []byte
		on       *rig
		reason   string
	}{
		{"answer too long", "iad", []byte("long"), iad, dropOversize},
		{"question too long", "iad", make([]byte, maxQuestion+1), fra, dropOversize},
		{"nobody answers there", "mute", []byte("why"), mute, dropQuestion},
		{"no answer", "iad", []byte("silent"), nil, ""},
	} {
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		before := 0.0
		if tt.on != nil {
			before = tt.on.dropped(tt.reason)
		}
		if got := fra.Ask(ctx, []string{tt.member}, tt.question); len(got) != 0 {
			t.Errorf("%s: answers %q", tt.name, got)
		}
		if tt.on != nil {
			until(t, tt.name+": counted", func() bool { return tt.on.dropped(tt.reason) == before+1 })
		}
		cancel()
	}
	if len(fra.asks.pending) != 0 || fra.asks.calls != 0 {
		t.Errorf("questions are left: %v", fra.asks.pending)
	}
}

func TestAnswersThatNobodyAskedFor(t *testing.T) {
	fra := start(t, Options{Name: "fra"})
	into := make(chan answer, 1)
	id := fra.asks.expect("iad", into)
	for i, m := range []mail{
		{id: id + 1, from: "iad", text: []byte("another number")},
		{id: id, from: "sin", text: []byte("another member")},
	} {
		fra.receive(letter{frame: appendMailFrame(nil, kindAnswer, m), arrived: time.Now()})
		until(t, "counted", func() bool { return fra.dropped(dropAnswer) == float64(i+1) })
	}
	right := appendMailFrame(nil, kindAnswer, mail{id: id, from: "iad", text: []byte("right")})
	fra.receive(letter{frame: right, arrived: time.Now()})
	if a := <-into; a.member != "iad" || !bytes.Equal(a.text, []byte("right")) {
		t.Errorf("answer %+v", a)
	}
	fra.receive(letter{frame: right, arrived: time.Now()}) // replayed
	until(t, "counted", func() bool { return fra.dropped(dropAnswer) == 3 })
}

func TestQuestionsAreLimited(t *testing.T) {
	var answered atomic.Int64
	iad := start(t, Options{Name: "iad", Answer: func(string, []byte) []byte { answered.Add(1); return nil }})
	fra := start(t, Options{Name: "fra", Seeds: []netip.AddrPort{iad.Addr()}})
	acquainted(t, fra, iad)
	began := time.Now()
	const asked = 200
	ask := func(i int) {
		iad.receive(letter{frame: appendMailFrame(nil, kindQuestion, mail{id: uint64(i), from: "fra"}), arrived: time.Now()})
	}
	settled := func(n int) {
		until(t, "all are answered or counted", func() bool {
			return float64(answered.Load())+iad.dropped(dropQuestion) == float64(n)
		})
	}
	for i := range asked / 2 {
		ask(i) // one after the other: the queue is never full
		settled(i + 1)
	}
	for i := range asked / 2 {
		ask(i)
	}
	settled(asked)
	if limit := answerBurst + answerRate*time.Since(began).Seconds() + 1; float64(answered.Load()) > limit {
		t.Errorf("%d answered, at most %v", answered.Load(), limit)
	}
	before := iad.dropped(dropQuestion)
	iad.receive(letter{frame: appendMailFrame(nil, kindQuestion, mail{id: 1, from: "stranger"}), arrived: time.Now()})
	until(t, "counted", func() bool { return iad.dropped(dropQuestion) == before+1 })

	// One call more than there may be gets nothing, at once.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan map[string][]byte, maxAsks)
	for range maxAsks {
		go func() { done <- fra.Ask(ctx, []string{"iad"}, nil) }()
	}
	until(t, "all ask", func() bool { fra.asks.mu.Lock(); defer fra.asks.mu.Unlock(); return fra.asks.calls == maxAsks })
	if got := fra.Ask(ctx, []string{"iad"}, nil); len(got) != 0 || fra.dropped(dropQuestion) != 1 {
		t.Errorf("one more call: %v, dropped %v", got, fra.dropped(dropQuestion))
	}
	cancel()
	for range maxAsks {
		<-done
	}
}

func TestDiscoveredNodesAreJoined(t *testing.T) {
	fra := start(t, Options{Name: "fra"})
	var calls atomic.Int64
	iad := start(t, Options{Name: "iad", Discover: func(ctx context.Context) []netip.AddrPort {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("asked without a deadline")
		}
		if calls.Add(1) == 2 {
			return []netip.AddrPort{fra.Addr()}
		}
		return nil // nothing found is no evidence that nobody is there
	}})
	acquainted(t, fra, iad)
	until(t, "asked again", func() bool { return calls.Load() > 3 })
	if got := iad.wanted(); len(got) != 1 {
		t.Errorf("looks for %v", got)
	}
	iad.discovered(make([]netip.AddrPort, maxSeeds+5))
	if got := iad.dropped(dropMembers); got != 5 {
		t.Errorf("%v dropped, want 5", got)
	}
	alone := start(t, Options{Name: "alone", Discover: func(context.Context) []netip.AddrPort { return nil }})
	select {
	case <-alone.Synced():
	case <-time.After(patience):
		t.Error("a node that finds nobody is never synced")
	}
}
