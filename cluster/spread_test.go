package cluster

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/internal/health"
)

func TestReportsReachEveryNodeWithinASecond(t *testing.T) {
	p := defaultPace() // what is promised is promised of this one
	fra, iad, sin := trio(t, Options{pace: &p, Meta: Meta{Site: "s", Version: "v1", Config: 9}})
	rigs := []*rig{fra, iad, sin}
	acquainted(t, rigs...)

	published := time.Now()
	for _, r := range rigs {
		r.say(1, 1, health.StatusUp)
	}
	for _, to := range rigs {
		for _, from := range rigs {
			if from == to {
				continue
			}
			got := to.mail.atLeast(from.opt.Name, 1, 1)
			if took := got.at.Sub(published); took > time.Second {
				t.Errorf("report of %s reached %s after %v", from.opt.Name, to.opt.Name, took)
			}
			want := &health.Report{Observer: from.opt.Name, Epoch: 1, Seq: 1, Layout: 7, Config: 9, States: []byte{byte(health.StatusUp)}}
			if diff := cmp.Diff(want, got.report); diff != "" {
				t.Errorf("report of %s at %s (-want +got):\n%s", from.opt.Name, to.opt.Name, diff)
			}
		}
	}

	m := iad.member("sin")
	want := Member{
		Name: "sin", Address: sin.Addr(), Meta: Meta{Site: "s", Version: "v1", Config: 9}, State: StateAlive,
		Since: m.Since, RTT: m.RTT, Reported: true, Age: m.Age, Epoch: 1, Seq: 1, ReportedConfig: 9, Wire: wireNow, Keys: sin.KeyFingerprints(),
	}
	if diff := cmp.Diff(want, m, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("member (-want +got):\n%s", diff)
	}
	if self := iad.member("iad"); !self.Self || self.State != StateAlive || self.Seq != 1 {
		t.Errorf("self = %+v", self)
	}
	if len(iad.Members()) != 3 {
		t.Errorf("iad shows %d members, want 3", len(iad.Members()))
	}
}

func TestUnchangedReportIsSentWithItsAge(t *testing.T) {
	fra, iad, _ := trio(t, Options{})
	fra.say(1, 1, health.StatusUp)
	iad.mail.atLeast("fra", 1, 1)
	// A node that stops to publish is not made to look alive by being resent.
	before := iad.metric("pharos_cluster_messages_total", "in", "report")
	until(t, "ten more datagrams in half a second and more", func() bool {
		return iad.metric("pharos_cluster_messages_total", "in", "report") > before+10 && iad.member("fra").Age >= 500*time.Millisecond
	})
	if _, n := iad.mail.get("fra"); n != 1 {
		t.Errorf("one report was delivered %d times", n)
	}
}

func TestNewcomerGetsEverything(t *testing.T) {
	p := defaultPace()
	opt := Options{Label: "test", Keys: [][]byte{testKey(1)}, pace: &p}
	fra, iad, sin := trio(t, opt)
	for _, r := range []*rig{fra, iad, sin} {
		r.say(1, 1, health.StatusUp)
	}
	acquainted(t, fra, iad, sin)
	for _, observer := range []string{"iad", "sin"} {
		fra.mail.atLeast(observer, 1, 1)
	}

	opt.Name, opt.Seeds = "nrt", []netip.AddrPort{fra.Addr()}
	began := time.Now()
	nrt := start(t, opt)
	select {
	case <-nrt.Synced():
	case <-time.After(patience):
		t.Fatal("never synced")
	}
	// Synced means that the table was delivered, not that it was received.
	for _, observer := range []string{"fra", "iad", "sin"} {
		got, n := nrt.mail.get(observer)
		if n == 0 {
			t.Fatalf("synced without the report of %s", observer)
		}
		if got.age < 0 || got.age > time.Minute {
			t.Errorf("report of %s came with age %v", observer, got.age)
		}
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("newcomer was up to date after %v", took)
	}
	if nrt.Status().LastExchange.IsZero() {
		t.Error("no exchange noted")
	}
}

func TestNewcomerIsGreetedByAll(t *testing.T) {
	p := fastPace()
	p.report, p.steady, p.pushPull = time.Hour, time.Hour, time.Hour // so that nothing else brings the report
	opt := Options{Keys: [][]byte{testKey(1)}, pace: p}
	opt.Name = "fra"
	fra := start(t, opt)
	opt.Name, opt.Seeds = "iad", []netip.AddrPort{fra.Addr()}
	iad := start(t, opt)
	acquainted(t, fra, iad)
	fra.say(1, 1, health.StatusUp)
	iad.mail.atLeast("fra", 1, 1)
	fra.say(1, 2, health.StatusUp) // no change, so it waits for the hour to pass

	opt.Name, opt.Seeds = "sin", []netip.AddrPort{iad.Addr()}
	sin := start(t, opt)
	sin.mail.atLeast("fra", 1, 2)
}

func TestAgeTravelsInTables(t *testing.T) {
	opt := Options{Name: "fra", Keys: [][]byte{testKey(1)}}
	fra := start(t, opt)
	old := &health.Report{Observer: "gone", Epoch: 3, Seq: 4, States: []byte{2}}
	raw, _ := old.AppendBinary(nil)
	frame, _ := appendState(nil, []entry{{age: 10 * time.Minute, report: raw}}, nil, maxTableBytes)
	fra.receive(letter{frame: frame, arrived: time.Now()})
	fra.mail.atLeast("gone", 3, 4)

	opt.Name, opt.Seeds = "iad", []netip.AddrPort{fra.Addr()}
	iad := start(t, opt)
	got := iad.mail.atLeast("gone", 3, 4)
	if got.age < 10*time.Minute || got.age > 10*time.Minute+patience {
		t.Errorf("age after two hops = %v, want a little over 10m", got.age)
	}
	if m := iad.member("gone"); m.State != StateHearsay || m.Address.IsValid() {
		t.Errorf("observer that is no member is shown as %+v", m)
	}
}

func TestChangeIsPassedOnAroundABrokenLink(t *testing.T) {
	p := fastPace()
	p.pushPull = time.Hour // so that only gossip can carry it
	fra, iad, sin := trio(t, Options{pace: p})
	acquainted(t, fra, iad, sin)
	for _, r := range []*rig{fra, iad, sin} {
		r.say(1, 1, health.StatusUp)
	}
	sin.mail.atLeast("fra", 1, 1)
	divide([]*rig{fra}, []*rig{sin})
	divide([]*rig{sin}, []*rig{fra})
	// Gossip is a matter of chance; a few changes are not.
	seq := uint64(1)
	next := time.Now()
	until(t, "sin hears of a change", func() bool {
		if time.Now().After(next) {
			seq++
			fra.say(1, seq, health.Status(2+seq%2))
			next = time.Now().Add(500 * time.Millisecond)
		}
		got, _ := sin.mail.get("fra")
		return got.report.Seq > 1
	})
	if seq > 5 {
		t.Errorf("only change %d arrived", seq-1)
	}
	if iad.metric("pharos_cluster_messages_total", "out", "news") == 0 {
		t.Error("iad passed nothing on")
	}
}

func TestReportsNeedNoMembership(t *testing.T) {
	p := fastPace()
	p.retry = []time.Duration{time.Hour} // nobody joins anybody
	opt := Options{Keys: [][]byte{testKey(1)}, pace: p}
	opt.Name = "fra"
	fra := start(t, opt)
	opt.Name, opt.Seeds = "iad", []netip.AddrPort{fra.Addr()}
	iad := start(t, opt)
	iad.say(1, 1, health.StatusUp)
	fra.mail.atLeast("iad", 1, 1)
	if m := fra.member("iad"); m.State != StateHearsay {
		t.Errorf("a node that did not join is shown as %v", m.State)
	}
}

func TestLargeReportGoesOverTCP(t *testing.T) {
	fra, iad, sin := trio(t, Options{})
	large := &health.Report{Observer: "fra", Epoch: 1, Seq: 1}
	large.Set(200_000, health.StatusDown) // 50 kB
	fra.Publish(large)
	acquainted(t, fra, iad, sin)
	got := iad.mail.atLeast("fra", 1, 1)
	if diff := cmp.Diff(large, got.report); diff != "" {
		t.Errorf("large report was changed:\n%s", diff)
	}
	before := fra.metric("pharos_cluster_messages_total", "out", "report")
	until(t, "sent again", func() bool {
		return fra.metric("pharos_cluster_messages_total", "out", "report") > before
	})
	if fra.news.queued() != 0 {
		t.Error("a report that fits no datagram waits to be gossiped")
	}
}

func TestLeavingIsAnnounced(t *testing.T) {
	fra, iad, sin := trio(t, Options{})
	sin.say(1, 1, health.StatusUp)
	acquainted(t, fra, iad, sin)
	iad.mail.atLeast("sin", 1, 1)

	began := time.Now()
	sin.stop()
	if err := <-sin.done; err != nil {
		t.Errorf("Run = %v", err)
	}
	sin.done <- nil // for crash
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("leaving took %v", took)
	}
	for _, r := range []*rig{fra, iad} {
		got := r.mail.atLeast("sin", 1, 2)
		if got.report.Flags&health.FlagLeaving == 0 || got.report.Get(0) != health.StatusUp {
			t.Errorf("%s heard %+v as the farewell", r.opt.Name, got.report)
		}
		until(t, "left", func() bool { return r.member("sin").State == StateLeft })
	}
}

func TestPublishRefusesWhatIsNotNewer(t *testing.T) {
	fra := build(t, Options{Name: "fra"})
	defer fra.Close()
	fra.say(2, 2, health.StatusUp)
	fra.say(2, 2, health.StatusDown)
	fra.say(2, 1, health.StatusDown)
	fra.say(1, 9, health.StatusDown)
	fra.Publish(&health.Report{Observer: "iad", Epoch: 9})
	fra.Publish(nil)
	if got := fra.dropped(dropRefused); got != 5 {
		t.Errorf("refused %v reports, want 5", got)
	}
	if m := fra.member("fra"); m.Epoch != 2 || m.Seq != 2 {
		t.Errorf("own report is (%d, %d), want (2, 2)", m.Epoch, m.Seq)
	}
	if fra.own.report.Get(0) != health.StatusUp {
		t.Error("a refused report replaced the own one")
	}
}

func TestSetPeers(t *testing.T) {
	opt := Options{Keys: [][]byte{testKey(1)}}
	opt.Name = "fra"
	fra := start(t, opt)
	opt.Name, opt.Meta = "iad", Meta{Site: "iad", Version: "v1"}
	iad := start(t, opt)
	select {
	case <-iad.Synced():
	default:
		t.Error("a node without seeds is not synced from the start")
	}
	iad.SetPeers([]netip.AddrPort{fra.Addr(), iad.Addr()}, nil, opt.Meta)
	acquainted(t, fra, iad)
	want := Meta{Site: "iad", Version: "v2", Config: 5}
	iad.SetPeers([]netip.AddrPort{fra.Addr()}, nil, want)
	until(t, "new meta", func() bool { return fra.member("iad").Meta == want })
	// What is too long cannot break a reload.
	long := string(make([]byte, 500))
	iad.SetPeers(nil, nil, Meta{Site: long, Version: long, Config: 6})
	until(t, "clipped meta", func() bool { return fra.member("iad").Config == 6 })
	if got := fra.member("iad").Meta; got.Site != long[:maxSiteLen] || got.Version != long[:maxVersionLen] {
		t.Errorf("clipped meta = %+v", got)
	}
	if got := iad.otherSeeds(); len(got) != 0 {
		t.Errorf("still looks for %v", got)
	}
}

func TestRunAndCloseOnce(t *testing.T) {
	fra := start(t, Options{Name: "fra"})
	until(t, "running", func() bool { fra.mu.Lock(); defer fra.mu.Unlock(); return fra.started })
	if err := fra.Run(context.Background()); err == nil {
		t.Error("second Run succeeded")
	}
	if err := errors.Join(fra.Close(), fra.Close()); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := <-fra.done; !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close = %v, want ErrClosed", err)
	}
	fra.done <- nil // for crash

	closed := build(t, Options{Name: "fra"})
	closed.Close()
	if err := closed.Run(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("Run of a closed node = %v, want ErrClosed", err)
	}
	// The port is free again.
	again := build(t, Options{Name: "fra", Bind: closed.Addr()})
	again.Close()
}
