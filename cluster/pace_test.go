package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

func TestChangeArrivesAtOnce(t *testing.T) {
	p := defaultPace()
	fra, iad, sin := trio(t, Options{pace: &p})
	rigs := []*rig{fra, iad, sin}
	acquainted(t, rigs...)
	var took []time.Duration
	apart := time.NewTicker(p.gap + 10*time.Millisecond)
	defer apart.Stop()
	for seq := uint64(1); seq <= 20; seq++ {
		status := health.StatusUp
		if seq%2 == 0 {
			status = health.StatusDown
		}
		<-apart.C
		began := time.Now()
		fra.say(1, seq, status)
		for _, r := range []*rig{iad, sin} {
			took = append(took, r.mail.atLeast("fra", 1, seq).at.Sub(began))
		}
	}
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	t.Logf("a change arrived after %v (median), %v (99th percentile)", p50, p99)
	// Even one after the other they do not wait for the next second.
	if p50 > p.report/2 {
		t.Errorf("a change takes %v", p50)
	}
}

func TestPacer(t *testing.T) {
	const storm, change = 20 * time.Second, 10 * time.Millisecond
	p, start := defaultPace(), time.Now()
	for _, tt := range []struct {
		members int
		every   time.Duration
	}{{2, p.steady}, {9, p.steady}, {50, 550 * time.Millisecond}, {99, p.report}, {1000, p.report}} {
		pc := pacer{left: paceBurst, counted: start}
		var sent []time.Duration
		for at := time.Duration(0); at < storm; at += change {
			if pc.wait(p, tt.members, start.Add(at)) <= 0 {
				pc.sent(p, tt.members, true, start.Add(at))
				sent = append(sent, at)
			}
		}
		if most := paceBurst + int(storm/tt.every) + 1; len(sent) > most || len(sent) < most-4 {
			t.Errorf("%d members: %d sendings in %v, want %d", tt.members, len(sent), storm, most)
		}
		if sent[0] != 0 || sent[paceBurst-1] > (paceBurst-1)*(p.gap+change) {
			t.Errorf("%d members: the first went after %v", tt.members, sent[:paceBurst])
		}
		// A lone change after a calm of regular sendings goes at once.
		now := start.Add(storm)
		for range 10 {
			now = now.Add(p.report)
			pc.sent(p, tt.members, false, now)
		}
		if wait := pc.wait(p, tt.members, now.Add(p.report/2)); wait > 0 {
			t.Errorf("%d members: a lone change waits for %v", tt.members, wait)
		}
	}
}

func TestStormIsSentAsOne(t *testing.T) {
	p := defaultPace()
	fra, iad, _ := trio(t, Options{pace: &p})
	until(t, "known", func() bool { return iad.Status().Present == 2 && fra.Status().Present == 2 })
	before, began := fra.metric("pharos_cluster_messages_total", "out", "report"), time.Now()
	const changes = 2000
	for seq := uint64(1); seq <= changes; seq++ {
		fra.say(1, seq, health.Status(seq%3+1))
	}
	published := time.Now()
	if took := iad.mail.atLeast("fra", 1, changes).at.Sub(published); took > p.report/2 {
		t.Errorf("the last change of a storm took %v", took)
	}
	sent := fra.metric("pharos_cluster_messages_total", "out", "report") - before
	// Two peers, those that may go at once, one sending a gap, and the regular ones.
	limit := 2 * (paceBurst + float64(time.Since(began)/p.steady) + 2)
	if sent > limit {
		t.Errorf("%d changes were sent in %v datagrams, at most %v", changes, sent, limit)
	}
}

// BenchmarkTraffic measures what a node sends and receives in a cluster of
// three with 1000 targets while nothing happens. One iteration is one second:
// run it with -benchtime=60x.
func BenchmarkTraffic(b *testing.B) {
	p := defaultPace()
	fra, iad, sin := trio(b, Options{pace: &p})
	rigs := []*rig{fra, iad, sin}
	acquainted(b, rigs...)
	ways := [][2]string{{"out", "udp"}, {"in", "udp"}, {"out", "tcp"}, {"in", "tcp"}}
	read := func() (v []float64) {
		for _, w := range ways {
			v = append(v, fra.metric("pharos_cluster_bytes_total", w[0], w[1]))
		}
		return v
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	before, began, seq := read(), time.Now(), uint64(0)
	for b.Loop() {
		seq++
		for _, r := range rigs {
			report := &health.Report{Observer: r.opt.Name, Epoch: 1, Seq: seq, Layout: 7}
			report.Set(999, health.StatusUp)
			r.Publish(report)
		}
		<-tick.C
	}
	for i, v := range read() {
		b.ReportMetric((v-before[i])/time.Since(began).Seconds(), ways[i][0]+"-"+ways[i][1]+"-B/s")
	}
}
