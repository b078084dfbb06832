package cluster

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pharos-lb/pharos/internal/health"
)

func encoded(t interface{ Fatal(...any) }, r *health.Report) []byte {
	raw, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// contents says all that is held, but the conflicts, which depend on what was seen.
func contents(tb *table, now time.Time) string {
	s := ""
	for _, h := range tb.all(now) {
		s += fmt.Sprintf("%s (%d, %d) %v %v\n", h.report.Observer, h.report.Epoch, h.report.Seq, h.report.States, h.ageAt(now))
	}
	return s
}

func TestTableMerge(t *testing.T) {
	now := time.Now()
	report := rapid.Custom(func(t *rapid.T) *health.Report {
		return &health.Report{
			Observer: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "observer"),
			Epoch:    rapid.Uint64Range(1, 3).Draw(t, "epoch"),
			Seq:      rapid.Uint64Range(1, 3).Draw(t, "seq"),
			States:   []byte{rapid.Byte().Draw(t, "states") & 3},
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		reports := rapid.SliceOfN(report, 1, 20).Draw(t, "reports")
		// A report is made once; only its ways differ.
		born := func(r *health.Report) time.Time {
			return now.Add(-time.Duration(100-10*r.Epoch-r.Seq) * time.Second)
		}
		fill := func(order []int) *table {
			tb := newTable()
			newest := make(map[string]*health.Report)
			for _, i := range order {
				r := reports[i]
				got := tb.offer(held{report: r, raw: encoded(t, r), born: born(r)}, now)
				old := newest[r.Observer]
				if (got == tookNewer) != r.Newer(old) {
					t.Fatalf("(%d, %d) offered: %d", r.Epoch, r.Seq, got)
				}
				if got == tookNewer {
					newest[r.Observer] = r
				}
				if got == tookConflict && (r.Newer(old) || old.Newer(r)) {
					t.Fatalf("conflict between (%d, %d) and (%d, %d)", r.Epoch, r.Seq, old.Epoch, old.Seq)
				}
			}
			return tb
		}
		order := make([]int, len(reports))
		for i := range order {
			order[i] = i
		}
		want := contents(fill(order), now)
		seed := rapid.Uint64().Draw(t, "shuffle")
		order = append(order, order...) // twice changes nothing
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		if got := contents(fill(order), now); got != want {
			t.Fatalf("in another order:\n%swas:\n%s", got, want)
		}
	})
}

func TestReportDoesNotGetYounger(t *testing.T) {
	tb, now := newTable(), time.Now()
	r := &health.Report{Observer: "a", Epoch: 1, Seq: 1}
	raw := encoded(t, r)
	tb.offer(held{report: r, raw: raw, born: now.Add(-10 * time.Second)}, now)
	tb.offer(held{report: r, raw: raw, born: now}, now)
	if h, _ := tb.get("a"); h.ageAt(now) != 10*time.Second {
		t.Errorf("age = %v, want 10s", h.ageAt(now))
	}
	tb.offer(held{report: r, raw: raw, born: now.Add(-20 * time.Second)}, now)
	if h, _ := tb.get("a"); h.ageAt(now) != 20*time.Second {
		t.Errorf("age = %v, want 20s", h.ageAt(now))
	}
}

func TestTableIsFullOfTheLiving(t *testing.T) {
	tb, now := newTable(), time.Now()
	offer := func(name string, born, at time.Time) verdict {
		r := &health.Report{Observer: name, Epoch: 1, Seq: 1}
		return tb.offer(held{report: r, raw: encoded(t, r), born: born}, at)
	}
	for i := range maxObservers {
		if got := offer(fmt.Sprint(i), now, now); got != tookNewer {
			t.Fatalf("observer %d: %d", i, got)
		}
	}
	if got := offer("one more", now, now); got != refusedFull {
		t.Errorf("one more: %d, want refusedFull", got)
	}
	later := now.Add(forgetAfter + time.Second)
	if got := offer("late", now, later); got != refusedStale {
		t.Errorf("an old report: %d, want refusedStale", got)
	}
	if got := offer("one more", later, later); got != tookNewer {
		t.Errorf("one more when the others are forgotten: %d, want tookNewer", got)
	}
	if n := len(tb.all(later)); n != 1 {
		t.Errorf("%d observers are held, want 1", n)
	}
}

func TestConflictIsToldOnce(t *testing.T) {
	tb, now := newTable(), time.Now()
	low := &health.Report{Observer: "a", Epoch: 1, Seq: 1, States: []byte{1}}
	high := &health.Report{Observer: "a", Epoch: 1, Seq: 1, States: []byte{2}}
	for i, want := range []verdict{tookNewer, tookConflict, refusedOld, refusedOld} {
		r := []*health.Report{low, high, high, low}[i]
		if got := tb.offer(held{report: r, raw: encoded(t, r), born: now}, now); got != want {
			t.Errorf("offer %d: %d, want %d", i, got, want)
		}
	}
}

func TestWhatIsPassedOn(t *testing.T) {
	tb, now := newTable(), time.Now()
	report := func(seq uint64, states byte) *health.Report {
		return &health.Report{Observer: "a", Epoch: 1, Seq: seq, States: []byte{states}}
	}
	for i, tt := range []struct {
		report *health.Report
		kind   frameKind
		want   bool
	}{
		{report(1, 1), kindReport, false}, // the first is no change
		{report(2, 1), kindReport, false},
		{report(3, 2), kindReport, true},
		{report(3, 2), kindNews, false}, // once
		{report(4, 2), kindReport, false},
		{report(4, 2), kindNews, true}, // it was a change to somebody
		{report(3, 2), kindNews, false},
		{report(5, 1), kindTable, false},
		{report(5, 1), kindReport, true},
	} {
		tb.offer(held{report: tt.report, raw: encoded(t, tt.report), born: now}, now)
		if _, got := tb.passOn(tt.report, tt.kind); got != tt.want {
			t.Errorf("step %d: %v, want %v", i, got, tt.want)
		}
	}
}

func TestInboxDropsTheOldest(t *testing.T) {
	frame := func(i int) letter { return letter{frame: make([]byte, i)} }
	for _, tt := range []struct {
		name             string
		maxFrames, bytes int
		put              []int
		want             []int
		dropped          int
	}{
		{"fits", 3, 100, []int{1, 2, 3}, []int{1, 2, 3}, 0},
		{"too many", 3, 100, []int{1, 2, 3, 4, 5}, []int{3, 4, 5}, 2},
		{"too large", 9, 10, []int{4, 5, 6}, []int{6}, 2},
		{"one that fills it", 9, 10, []int{1, 10}, []int{10}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := newInbox(tt.maxFrames, tt.bytes)
			dropped := 0
			for _, size := range tt.put {
				dropped += in.put(frame(size))
			}
			<-in.ready
			got := in.take()
			sizes := []int{}
			for _, l := range got {
				sizes = append(sizes, len(l.frame))
			}
			if fmt.Sprint(sizes) != fmt.Sprint(tt.want) || dropped != tt.dropped {
				t.Errorf("kept %v, dropped %d; want %v and %d", sizes, dropped, tt.want, tt.dropped)
			}
			if in.bytes != 0 || len(in.take()) != 0 {
				t.Error("something is left")
			}
		})
	}
}

func TestOverflowIsCountedAndTheNewestSurvives(t *testing.T) {
	fra := build(t, Options{Name: "fra"}) // not running: nothing is taken out
	defer fra.Close()
	d := delegate{fra.Node}
	const surplus = 10
	for seq := range uint64(maxInboxFrames + surplus) {
		r := &health.Report{Observer: "iad", Epoch: 1, Seq: seq + 1}
		msg := appendEntryFrame(nil, wireNow, kindReport, entry{report: encoded(t, r)})
		d.NotifyMsg(msg)
		clear(msg) // memberlist may reuse it
	}
	if got := fra.dropped(dropQueue); got != surplus {
		t.Errorf("dropped %v, want %d", got, surplus)
	}
	d.NotifyMsg(make([]byte, maxEntryFrame+1))
	if got := fra.dropped(dropOversize); got != 1 {
		t.Errorf("oversize dropped %v, want 1", got)
	}
	for _, l := range fra.inbox.take() {
		fra.open(l)
	}
	if got, n := fra.mail.get("iad"); got.report.Seq != maxInboxFrames+surplus || n != maxInboxFrames {
		t.Errorf("newest is %d after %d deliveries", got.report.Seq, n)
	}
}

func TestOneBadReportDoesNotSpoilItsTable(t *testing.T) {
	fra := build(t, Options{Name: "fra"})
	defer fra.Close()
	good := encoded(t, &health.Report{Observer: "iad", Epoch: 1, Seq: 1})
	later := append([]byte{99}, good[1:]...)
	entries := []entry{{report: []byte{0, 1, 2}}, {report: later}, {age: 2 * forgetAfter, report: good}, {report: good}}
	frame, _ := appendState(nil, entries, nil, maxTableBytes)
	fra.open(letter{frame: frame, arrived: time.Now(), exchange: true})
	if _, n := fra.mail.get("iad"); n != 1 {
		t.Errorf("the good report was delivered %d times", n)
	}
	for _, reason := range []string{dropMalformed, dropVersion, dropStale} {
		if got := fra.dropped(reason); got != 1 {
			t.Errorf("dropped as %s: %v, want 1", reason, got)
		}
	}
	fra.open(letter{frame: []byte{'p', 'h', 9, 9}, arrived: time.Now()})
	fra.open(letter{frame: []byte("garbage"), arrived: time.Now()})
	if fra.dropped(dropVersion) != 2 || fra.dropped(dropMalformed) != 2 {
		t.Error("bad frames were not counted")
	}
}

func TestExchangedTableIsBounded(t *testing.T) {
	fra := build(t, Options{Name: "fra"})
	defer fra.Close()
	now := time.Now()
	fra.say(1, 1, health.StatusUp)
	const observers = 40
	for i := range observers {
		r := &health.Report{Observer: fmt.Sprint("o", i), Epoch: 1, Seq: 1, States: make([]byte, health.MaxTargets/4)}
		fra.table.offer(held{report: r, raw: encoded(t, r), born: now.Add(-time.Duration(i) * time.Second)}, now)
	}
	frame := delegate{fra.Node}.LocalState(false)
	if len(frame) > maxTableBytes {
		t.Fatalf("table of %d bytes, at most %d", len(frame), maxTableBytes)
	}
	f, err := parseFrame(frame)
	if err != nil {
		t.Fatal(err)
	}
	if got := fra.dropped(dropTruncated); len(f.entries) < 2 || int(got) != observers+1-len(f.entries) {
		t.Errorf("%d entries sent, %v counted as left out", len(f.entries), got)
	}
	if r, _ := health.ParseReport(f.entries[0].report); r.Observer != "fra" {
		t.Errorf("our own report is not the first but %s", r.Observer)
	}
	if r, _ := health.ParseReport(f.entries[1].report); r.Observer != "o0" {
		t.Errorf("the youngest report is not the second but %s", r.Observer)
	}
}
