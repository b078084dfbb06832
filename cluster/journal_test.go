package cluster

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestJournal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		line   string
		level  string // empty: not logged above Debug
		reason string
	}{
		{"debug", "[DEBUG] memberlist: Stream connection from=127.0.0.1:1", "", ""},
		{"info", "[INFO] memberlist: Suspect sin has failed, no acks received", "INFO", ""},
		{"error is a warning", "[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=1.2.3.4:5", "WARN", dropKey},
		{"label", `[ERR] memberlist: discarding packet with unacceptable label "x": from=1.2.3.4:5`, "WARN", dropLabel},
		{"malformed", "[ERR] memberlist: msg type (77) not supported from=1.2.3.4:5", "WARN", dropMalformed},
		{"garbage to decrypt", "[ERR] memberlist: Decrypt packet failed: payload is too small to decrypt: 3 from=1.2.3.4:5", "WARN", dropMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fra := build(t, Options{Name: "fra"})
			defer fra.Close()
			var out bytes.Buffer
			j := newJournal(slog.New(slog.NewTextHandler(&out, nil)), fra.meters)
			for range 3 {
				fmt.Fprintln(j, tt.line)
			}
			if got := strings.Count(out.String(), "\n"); got > 1 {
				t.Errorf("logged %d times:\n%s", got, out.String())
			}
			if tt.level == "" && out.Len() > 0 || !strings.Contains(out.String(), tt.level) {
				t.Errorf("logged %q, want level %q", out.String(), tt.level)
			}
			for _, reason := range dropReasons() {
				want := 0.0
				if reason == tt.reason {
					want = 3
				}
				if got := fra.dropped(reason); got != want {
					t.Errorf("%s = %v, want %v", reason, got, want)
				}
			}
		})
	}
}

func TestJournalIsQuietButNotForEver(t *testing.T) {
	j, now := newJournal(slog.New(slog.DiscardHandler), newMeters()), time.Now()
	for i, tt := range []struct {
		after      time.Duration
		suppressed int
		ok         bool
	}{
		{0, 0, true}, {time.Second, 0, false}, {2 * time.Second, 0, false}, {quietFor, 2, true}, {quietFor + 1, 0, false},
	} {
		if suppressed, ok := j.admit("kind", now.Add(tt.after)); suppressed != tt.suppressed || ok != tt.ok {
			t.Errorf("line %d: %d %v, want %d %v", i, suppressed, ok, tt.suppressed, tt.ok)
		}
	}
	for i := range 10 * maxComplaints {
		j.admit(fmt.Sprint("kind ", i), now)
	}
	if got := len(j.complaints); got > maxComplaints+1 {
		t.Errorf("%d kinds are told apart, at most %d", got, maxComplaints+1)
	}
}

func TestMembersAreAdmittedWithinLimits(t *testing.T) {
	fra := build(t, Options{Name: "fra"})
	defer fra.Close()
	d := delegate{fra.Node}
	node := func(name string, addr []byte, port uint16) *memberlist.Node {
		return &memberlist.Node{Name: name, Addr: addr, Port: port}
	}
	ip := []byte{127, 0, 0, 1}
	for _, tt := range []struct {
		name string
		node *memberlist.Node
		ok   bool
	}{
		{"good", node("iad", ip, 1), true},
		{"itself", node("fra", nil, 0), true},
		{"no name", node("", ip, 1), false},
		{"long name", node(strings.Repeat("x", 64), ip, 1), false},
		{"bad address", node("iad", []byte{1, 2, 3}, 1), false},
		{"no port", node("iad", ip, 0), false},
	} {
		if err := d.NotifyAlive(tt.node); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for i := range maxMembers {
		d.NotifyJoin(node(fmt.Sprint("n", i), ip, 1))
	}
	if err := d.NotifyAlive(node("one more", ip, 1)); err == nil {
		t.Error("one more than maxMembers was admitted")
	}
	if err := d.NotifyAlive(node("n5", ip, 1)); err != nil {
		t.Errorf("a member was refused: %v", err)
	}
	if got := fra.dropped(dropMembers); got != 5 {
		t.Errorf("refused %v, want 5", got)
	}
	if len(fra.greetings) > maxMembers {
		t.Errorf("%d newcomers wait", len(fra.greetings))
	}
}
