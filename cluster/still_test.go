package cluster

import (
	"testing"
	"time"
)

// What waited while the node stood still is as old as the standstill, whoever of the two comes first: what is read, or
// the node's next word of itself.
func TestStandstillAgesWhatWaited(t *testing.T) {
	t0 := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name      string
		published []time.Duration // since t0
		read      time.Duration
		want      time.Duration
	}{
		{"before the first word", nil, time.Hour, 0},
		{"a word a second", []time.Duration{0, time.Second}, 2 * time.Second, 0},
		{"late, but not still", []time.Duration{0}, stillAfter, 0},
		{"read first", []time.Duration{0}, time.Minute, time.Minute},
		{"a word first", []time.Duration{0, time.Minute}, time.Minute + backlogFor - 1, time.Minute},
		{"after the backlog", []time.Duration{0, time.Minute}, time.Minute + backlogFor, 0},
		{"two words first", []time.Duration{0, time.Minute, time.Minute + 1}, time.Minute + 2, time.Minute},
	} {
		n := &Node{}
		for _, at := range tt.published {
			n.still.publish(n.own, t0.Add(at))
			n.own = &held{born: t0.Add(at)}
		}
		if got := n.stood(t0.Add(tt.read)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
