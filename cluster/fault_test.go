package cluster

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

func TestSilenceDownsNobody(t *testing.T) {
	fra, iad, sin := trio(t, Options{})
	acquainted(t, fra, iad, sin)
	for i, r := range []*rig{fra, iad, sin} {
		r.say(1, uint64(i+1), health.StatusUp)
	}
	for _, r := range []*rig{fra, iad} {
		r.mail.atLeast("sin", 1, 3)
	}
	sin.crash()
	for _, r := range []*rig{fra, iad} {
		until(t, "sin is given up", func() bool { return r.member("sin").State == StateDead })
		got, n := r.mail.get("sin")
		if n != 1 || got.report.Seq != 3 || got.report.Get(0) != health.StatusUp || got.report.Flags != 0 {
			t.Errorf("%s: after the crash sin's report is %+v, delivered %d times", r.opt.Name, got.report, n)
		}
		if m := r.member("sin"); !m.Reported || m.Seq != 3 || m.Age <= 0 {
			t.Errorf("%s: what is held of sin is %+v", r.opt.Name, m)
		}
	}
	// It is still passed on to others, as old as it is.
	nrt := start(t, Options{Name: "nrt", Label: "test", Keys: [][]byte{testKey(1)}, Seeds: []netip.AddrPort{fra.Addr()}})
	if got := nrt.mail.atLeast("sin", 1, 3); got.age < 100*time.Millisecond {
		t.Errorf("dead observer's report came with age %v", got.age)
	}
}

func TestRestartAtTheSameAddress(t *testing.T) {
	for _, wait := range []bool{false, true} {
		name := "at once"
		if wait {
			name = "after it was given up"
		}
		t.Run(name, func(t *testing.T) {
			fra, iad, sin := trio(t, Options{})
			acquainted(t, fra, iad, sin)
			for _, r := range []*rig{fra, iad, sin} {
				r.say(4, 1000, health.StatusUp)
			}
			fra.mail.atLeast("sin", 4, 1000)
			sin.crash()
			if wait {
				until(t, "sin is given up", func() bool { return fra.member("sin").State == StateDead })
			}
			opt := sin.opt
			opt.Bind, opt.Deliver, opt.Epoch = sin.Addr(), nil, 5
			sin = start(t, opt)
			sin.say(5, 1, health.StatusDown)
			for _, r := range []*rig{fra, iad} {
				got := r.mail.atLeast("sin", 5, 1)
				if got.report.Get(0) != health.StatusDown {
					t.Errorf("%s heard %v", r.opt.Name, got.report.Get(0))
				}
				sin.mail.atLeast(r.opt.Name, 4, 1000)
				until(t, "alive again", func() bool { return r.member("sin").State == StateAlive })
			}
			if _, n := sin.mail.get("sin"); n != 0 {
				t.Error("its own report of a lower epoch was delivered to it")
			}
		})
	}
}

func TestRestartAtAnotherAddress(t *testing.T) {
	fra, iad, sin := trio(t, Options{})
	acquainted(t, fra, iad, sin)
	sin.crash()
	opt := sin.opt
	opt.Deliver, opt.Epoch = nil, 2
	sin = start(t, opt)
	sin.say(2, 1, health.StatusUp)
	for _, r := range []*rig{fra, iad} {
		r.mail.atLeast("sin", 2, 1)
		until(t, "the new address is believed", func() bool {
			m := r.member("sin")
			return m.Address == sin.Addr() && m.State == StateAlive
		})
	}
}

func TestWipedNodeLearnsItsEpoch(t *testing.T) {
	fra, iad, sin := trio(t, Options{})
	sin.say(7, 100, health.StatusUp)
	fra.mail.atLeast("sin", 7, 100)
	acquainted(t, fra, iad, sin)
	sin.crash()

	opt := sin.opt
	opt.Bind, opt.Deliver, opt.Epoch = sin.Addr(), nil, 1
	sin = start(t, opt)
	sin.say(1, 1, health.StatusDown)
	echo := sin.mail.atLeast("sin", 7, 100)
	if _, n := sin.mail.get("sin"); n != 1 {
		t.Errorf("the echo was delivered %d times", n)
	}
	sin.say(echo.report.Epoch+1, 2, health.StatusDown)
	if got := fra.mail.atLeast("sin", 8, 2); got.report.Get(0) != health.StatusDown {
		t.Errorf("fra heard %v", got.report.Get(0))
	}
	if sin.Status().NameConflict != "" {
		t.Errorf("a wiped node took itself for a rival: %s", sin.Status().NameConflict)
	}
}

// TestForgetfulNodeIsReminded: a node that speaks below an epoch of its own hears of
// it from whoever remembers, and does not wait for an exchange with just that node.
func TestForgetfulNodeIsReminded(t *testing.T) {
	p := fastPace()
	p.pushPull = time.Hour
	fra, iad, sin := trio(t, Options{pace: p})
	acquainted(t, fra, iad, sin)
	past := &health.Report{Observer: "sin", Epoch: 9, Seq: 40, Layout: 7, Config: 9, States: []byte{1}}
	fra.take(kindTable, entry{report: encoded(t, past), age: time.Minute}, time.Now())
	sin.say(1, 1, health.StatusDown)
	sin.mail.atLeast("sin", 9, 40)
	sin.say(10, 2, health.StatusUp)
	fra.mail.atLeast("sin", 10, 2)
}

// What somebody recorded of this node itself and sends again changes nothing,
// whichever of its lives it is of, and is counted.
func TestOwnPastIsCounted(t *testing.T) {
	fra := build(t, Options{Name: "fra", Epoch: 5})
	replay := func(epoch, seq uint64) {
		t.Helper()
		r := &health.Report{Observer: "fra", Epoch: epoch, Seq: seq, Layout: 7, Config: 9, States: []byte{1}}
		before := fra.metric("pharos_cluster_duplicates_total", "report")
		fra.take(kindReport, entry{report: encoded(t, r)}, time.Now())
		if got := fra.metric("pharos_cluster_duplicates_total", "report") - before; got != 1 {
			t.Errorf("epoch %d, seq %d: counted %v times, want once", epoch, seq, got)
		}
	}
	replay(4, 9) // before anything is said in this life
	fra.say(5, 3, health.StatusUp)
	replay(4, 9)
	replay(5, 2)
	if _, n := fra.mail.get("fra"); n != 0 || fra.Status().NameConflict != "" {
		t.Errorf("%d delivered, conflict %q", n, fra.Status().NameConflict)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		label  string
		keys   [][]byte
		reason string
	}{
		{"wrong key", "test", [][]byte{testKey(2)}, dropKey},
		{"no key", "test", nil, ""},
		{"wrong label", "prod", [][]byte{testKey(1)}, dropLabel},
		{"no label", "", [][]byte{testKey(1)}, dropLabel},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fra, iad, sin := trio(t, Options{})
			acquainted(t, fra, iad, sin)
			evil := start(t, Options{Name: "evil", Label: tt.label, Keys: tt.keys, Seeds: []netip.AddrPort{fra.Addr()}})
			evil.say(1, 1, health.StatusDown)
			refused := func() float64 {
				if tt.reason != "" {
					return fra.dropped(tt.reason)
				}
				return fra.dropped(dropKey) + fra.dropped(dropMalformed)
			}
			until(t, "refused and counted", func() bool { return refused() >= 4 })
			until(t, "join failed", func() bool { return evil.metric("pharos_cluster_joins_total", "failed") >= 2 })

			fra.say(1, 1, health.StatusUp)
			iad.mail.atLeast("fra", 1, 1)
			for _, r := range []*rig{fra, iad, sin} {
				if _, n := r.mail.get("evil"); n != 0 || r.Status().Present != 2 {
					t.Errorf("%s took the stranger in: %d reports, %d members", r.opt.Name, n, r.Status().Present)
				}
			}
			select {
			case <-evil.Synced():
				t.Error("the stranger synced")
			default:
			}
		})
	}
}

func TestSecondKeyIsAccepted(t *testing.T) {
	fra := start(t, Options{Name: "fra", Keys: [][]byte{testKey(1), testKey(2)}})
	iad := start(t, Options{Name: "iad", Keys: [][]byte{testKey(2), testKey(1)}, Seeds: []netip.AddrPort{fra.Addr()}})
	fra.say(1, 1, health.StatusUp)
	iad.say(1, 1, health.StatusUp)
	fra.mail.atLeast("iad", 1, 1)
	iad.mail.atLeast("fra", 1, 1)
}

func TestGarbageChangesNothing(t *testing.T) {
	for name, keys := range map[string][][]byte{"encrypted": {testKey(1)}, "plain": {}} {
		t.Run(name, func(t *testing.T) {
			fra, iad, sin := trio(t, Options{Keys: keys})
			acquainted(t, fra, iad, sin)
			fra.say(1, 1, health.StatusUp)
			sin.mail.atLeast("fra", 1, 1)
			before := len(fra.Members())

			throwGarbage(t, fra.Addr(), rand.New(rand.NewPCG(1, 2)))
			until(t, "garbage counted", func() bool {
				return fra.dropped(dropMalformed)+fra.dropped(dropLabel)+fra.dropped(dropKey) > 20
			})
			fra.say(1, 2, health.StatusDown)
			sin.say(1, 2, health.StatusDown)
			sin.mail.atLeast("fra", 1, 2)
			fra.mail.atLeast("sin", 1, 2)
			if got := len(fra.Members()); got != before {
				t.Errorf("garbage changed the number of members from %d to %d", before, got)
			}
		})
	}
}

// throwGarbage sends noise, and noise that begins like gossip, over UDP and TCP.
func throwGarbage(t *testing.T, to netip.AddrPort, random *rand.Rand) {
	t.Helper()
	udp, err := net.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	label := append([]byte{244, 4}, "test"...)
	for i := range 300 {
		b := make([]byte, random.IntN(1500))
		for j := range b {
			b[j] = byte(random.Uint32())
		}
		if i%2 == 0 {
			b = append([]byte{byte(i % 16)}, b...)
		}
		if i%3 == 0 {
			b = append(label[:len(label):len(label)], b...)
		}
		if i%7 == 0 {
			b = append(label[:len(label):len(label)], 8, frameMagic0, frameMagic1, byte(i%3), byte(i%5), 1, 2)
		}
		udp.Write(b) // refusals do not matter
		if i%10 == 0 {
			if tcp, err := net.Dial("tcp", to.String()); err == nil {
				tcp.Write(b)
				tcp.Close()
			}
		}
	}
}

func TestPartitionHeals(t *testing.T) {
	fra, iad, sin := trio(t, Options{})
	nrt := start(t, Options{Name: "nrt", Label: "test", Keys: [][]byte{testKey(1)}, Seeds: []netip.AddrPort{fra.Addr()}})
	rigs := []*rig{fra, iad, sin, nrt}
	acquainted(t, rigs...)
	for _, r := range rigs {
		r.SetPeers([]netip.AddrPort{fra.Addr(), iad.Addr(), sin.Addr(), nrt.Addr()}, nil, r.opt.Meta)
		r.say(1, 1, health.StatusUp)
	}
	everybodyHas(rigs, 1, 1)

	// Two and two, for so long that they forget each other: then neither side
	// lacks company, and still has to look for the rest.
	west, east := rigs[:2], rigs[2:]
	divide(west, east)
	divide(east, west)
	until(t, "both sides have given each other up", func() bool {
		for _, r := range rigs {
			if r.Status().Present != 1 {
				return false
			}
		}
		return true
	})
	for _, r := range rigs {
		r.say(1, 2, health.StatusUp)
	}
	everybodyHas(west, 1, 2)
	everybodyHas(east, 1, 2)
	until(t, "all have tried and failed", func() bool {
		for _, r := range rigs {
			if r.metric("pharos_cluster_joins_total", "failed") < 3 {
				return false
			}
		}
		return true
	})
	for _, w := range west {
		for _, e := range east {
			we, _ := w.mail.get(e.opt.Name)
			ew, _ := e.mail.get(w.opt.Name)
			if we.report.Seq != 1 || ew.report.Seq != 1 {
				t.Errorf("%s and %s heard each other through the partition", w.opt.Name, e.opt.Name)
			}
		}
	}

	healed := time.Now()
	for _, r := range rigs {
		r.transport.(*sockets).cut.Store(nil)
	}
	everybodyHas(rigs, 1, 2)
	t.Logf("reports flowed %v after the heal", time.Since(healed))
	acquainted(t, rigs...)
	t.Logf("members again %v after the heal", time.Since(healed))
}

// divide cuts what leaves some for others.
func divide(some, others []*rig) {
	cut := func(to netip.AddrPort) bool {
		return slices.ContainsFunc(others, func(r *rig) bool { return r.Addr() == to })
	}
	for _, r := range some {
		r.transport.(*sockets).cut.Store(&cut)
	}
}

func TestNameConflict(t *testing.T) {
	fra, iad, sin := trio(t, Options{})
	acquainted(t, fra, iad, sin)
	for _, r := range []*rig{fra, iad, sin} {
		r.say(1, 50, health.StatusUp)
	}
	fra.mail.atLeast("sin", 1, 50)
	clone := start(t, Options{
		Name: "sin", Label: "test", Keys: [][]byte{testKey(1)}, Seeds: []netip.AddrPort{fra.Addr(), sin.Addr()},
	})
	clone.say(1, 50, health.StatusDown)
	for _, r := range []*rig{clone, sin} {
		until(t, "conflict shown", func() bool { return r.Status().NameConflict != "" })
		if r.metric("pharos_cluster_conflicts_total", "name") == 0 {
			t.Error("conflict not counted")
		}
	}
	// Two reports with one epoch and seq: the judge hears of it.
	until(t, "conflicting report delivered", func() bool {
		_, n := fra.mail.get("sin")
		return n >= 2
	})
	if m := fra.member("sin"); m.Address != sin.Addr() {
		t.Errorf("the clone at %v took sin's place", m.Address)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	fra := start(t, Options{Name: "fra", Keys: [][]byte{testKey(1)}})
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 2 * maxStreamsPerAddr {
		c, err := net.Dial("tcp", fra.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	until(t, "the surplus is refused", func() bool { return fra.dropped(dropStreams) == maxStreamsPerAddr })
	fra.transport.(*sockets).mu.Lock()
	total := fra.transport.(*sockets).total
	fra.transport.(*sockets).mu.Unlock()
	if total != maxStreamsPerAddr {
		t.Errorf("%d streams are served, want %d", total, maxStreamsPerAddr)
	}
	for _, c := range conns {
		c.Close()
	}
	until(t, "the streams are given back", func() bool {
		fra.transport.(*sockets).mu.Lock()
		defer fra.transport.(*sockets).mu.Unlock()
		return fra.transport.(*sockets).total == 0 && fra.transport.(*sockets).streamBytes.Load() == 0
	})
}

func TestNewErrors(t *testing.T) {
	taken := build(t, Options{Name: "taken"})
	defer taken.Close()
	good := Options{
		Name: "fra", Bind: netip.MustParseAddrPort("127.0.0.1:0"), Deliver: func(*health.Report, time.Duration) {},
	}
	for _, tt := range []struct {
		name string
		edit func(*Options)
		want string
	}{
		{"no name", func(o *Options) { o.Name = "" }, "node name"},
		{"long name", func(o *Options) { o.Name = strings.Repeat("x", 64) }, "node name"},
		{"long label", func(o *Options) { o.Label = strings.Repeat("x", 256) }, "label of 256 bytes"},
		{"no bind", func(o *Options) { o.Bind = netip.AddrPort{} }, "no address to bind"},
		{"unspecified", func(o *Options) { o.Bind = netip.MustParseAddrPort("0.0.0.0:0") }, "must be given"},
		{"unspecified advertised", func(o *Options) { o.Advertise = netip.MustParseAddrPort("0.0.0.0:7") }, "reaches nobody"},
		{"short key", func(o *Options) { o.Keys = [][]byte{testKey(1), {1, 2}} }, "key 2 has 2 bytes, want 16, 24 or 32"},
		{"many keys", func(o *Options) { o.Keys = slices.Repeat([][]byte{testKey(1)}, 17) }, "17 gossip keys, at most 16"},
		{"many seeds", func(o *Options) { o.Seeds = make([]netip.AddrPort, maxSeeds+1) }, "at most 1024"},
		{"large meta", func(o *Options) { o.Meta.Site = strings.Repeat("x", 500) }, "site name of 500 bytes"},
		{"nobody to deliver to", func(o *Options) { o.Deliver = nil }, "nobody to deliver"},
		{"port taken", func(o *Options) { o.Bind = taken.Addr() }, "another process has this port"},
		{"not our address", func(o *Options) { o.Bind = netip.MustParseAddrPort("192.0.2.1:0") }, "does not have that address"},
		{"metrics taken", func(o *Options) { o.Registerer = taken.reg }, "register cluster metrics"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opt := good
			tt.edit(&opt)
			n, err := New(opt)
			if err == nil {
				n.Close()
				t.Fatal("New succeeded")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("New = %v, want one line with %q", err, tt.want)
			}
		})
	}
}
