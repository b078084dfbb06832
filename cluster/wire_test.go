package cluster

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"log"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/pharos-lb/pharos/internal/health"
)

// What a node of the first wire version sent: a report of "old" (epoch 3, seq 5,
// layout 7, config 9, state Up for its one target) and a table with that of
// "other", 10 s old; and its membership record of site "s" and version "v0.1".
const (
	firstReportFrame = "7068010100000000" + firstReport
	firstReport      = "0100000000000000000300000000000000050000000000000007000000000000000903" + "6f6c64" + "00000001" + "02"
	firstTableFrame  = "70680103" + "0001" + "00000031" + "00002710" +
		"0100000000000000000300000000000000060000000000000007000000000000000905" + "6f74686572" + "00000001" + "01"
	firstCard = "01" + "0000000000000009" + "0173" + "0476302e31"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFirstVersionIsUnderstood(t *testing.T) {
	fra := start(t, Options{Name: "fra"})
	fra.receive(letter{frame: unhex(t, firstReportFrame), arrived: time.Now()})
	fra.receive(letter{frame: unhex(t, firstTableFrame), arrived: time.Now(), exchange: true})
	got := fra.mail.atLeast("old", 3, 5)
	if got.report.Layout != 7 || got.report.Config != 9 || len(got.report.States) != 1 || got.report.States[0] != 2 {
		t.Errorf("report of the first version read as %+v", got.report)
	}
	other := fra.mail.atLeast("other", 3, 6)
	if other.age < 10*time.Second || other.age > time.Minute {
		t.Errorf("age of the report in the table: %v", other.age)
	}
	c, ok := parseCard(unhex(t, firstCard))
	if want := (card{Meta: Meta{Site: "s", Version: "v0.1", Config: 9}, wire: wireFirst}); !ok || c != want {
		t.Errorf("membership record read as %+v, want %+v", c, want)
	}
}

func TestFirstVersionIsWrittenAsItWas(t *testing.T) {
	r := &health.Report{Observer: "old", Epoch: 3, Seq: 5, Layout: 7, Config: 9, Overrides: 77, States: []byte{2}}
	raw := encoded(t, r)
	h := &held{report: r, raw: raw, seal: make([]byte, sealLen), born: time.Now().Add(time.Hour)}
	frame, ok := h.reportFrame(wireFirst)
	if !ok || hex.EncodeToString(frame) != firstReportFrame {
		t.Errorf("report for the first version:\n%x\nwant\n%s", frame, firstReportFrame)
	}
	other := &health.Report{Observer: "other", Epoch: 3, Seq: 6, Layout: 7, Config: 9, States: []byte{1}}
	e, _ := (&held{report: other, raw: encoded(t, other)}).firstEntry(time.Now())
	e.age = 10 * time.Second
	table, _ := appendFirstTable(nil, []entry{e}, nil, maxTableBytes)
	if hex.EncodeToString(table) != firstTableFrame {
		t.Errorf("table for the first version:\n%x\nwant\n%s", table, firstTableFrame)
	}
	if got := (card{Meta: Meta{Site: "s", Version: "v0.1", Config: 9}, wire: wireNow}).encode(); hex.EncodeToString(got[:len(got)-2]) != firstCard {
		t.Errorf("membership record begins %x, want %s", got, firstCard)
	}
}

// elder is a node of the first wire version, as far as others can tell: a bare
// membership protocol that reads frames by the rules of that version.
type elder struct {
	t *testing.T
	*memberlist.Memberlist

	mu        sync.Mutex // guards the rest
	heard     map[string]uint64
	strange   int // frames of another version or kind
	skipped   int // reports of another version in a table
	exchanges int
}

var _ memberlist.Delegate = (*elder)(nil)

func (e *elder) NodeMeta(int) []byte             { return unhex(e.t, firstCard) }
func (e *elder) GetBroadcasts(int, int) [][]byte { return nil }
func (e *elder) LocalState(bool) []byte          { return unhex(e.t, firstTableFrame) }
func (e *elder) NotifyMsg(b []byte)              { e.read(b) }
func (e *elder) MergeRemoteState(b []byte, _ bool) {
	e.read(b)
	e.mu.Lock()
	e.exchanges++
	e.mu.Unlock()
}

// read follows the first version to the letter.
func (e *elder) read(b []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(b) < 4 || b[0] != 'p' || b[1] != 'h' || b[2] != 1 || b[3] == 0 || b[3] > 3 {
		e.strange++
		return
	}
	if b[3] != 3 {
		e.report(b[8:])
		return
	}
	n, rest := int(binary.BigEndian.Uint16(b[4:])), b[6:]
	for range n {
		size := binary.BigEndian.Uint32(rest)
		e.report(rest[8 : 4+size])
		rest = rest[4+size:]
	}
	if len(rest) != 0 {
		e.strange++
	}
}

func (e *elder) report(b []byte) {
	if b[0] != 1 {
		e.skipped++
		return
	}
	r, err := health.ParseReport(b)
	if err != nil {
		e.strange++
		return
	}
	e.heard[r.Observer] = max(e.heard[r.Observer], r.Seq)
}

func (e *elder) state(observer string) (seq uint64, strange, skipped, exchanges int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[observer], e.strange, e.skipped, e.exchanges
}

func TestBothVersionsInOneCluster(t *testing.T) {
	keys, _ := signKeys("fra", "iad", "sin")
	fra, iad, sin := keepers(t, Options{}, keys)
	e := &elder{t: t, heard: make(map[string]uint64)}
	c := memberlist.DefaultLocalConfig()
	c.Name, c.Label, c.BindAddr, c.BindPort, c.AdvertisePort = "old", "test", "127.0.0.1", 0, 0
	c.SecretKey, c.Delegate = testKey(1), e
	c.Logger = log.New(io.Discard, "", 0)
	c.PushPullInterval = 300 * time.Millisecond
	var err error
	if e.Memberlist, err = memberlist.Create(c); err != nil {
		t.Fatal(err)
	}
	defer e.Shutdown()
	if _, err := e.Join([]string{fra.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*keeper{fra, iad, sin} {
		until(t, "the elder is known", func() bool { return k.member("old").Wire == wireFirst })
		k.mail.atLeast("other", 3, 6) // from the elder's table, wherever it arrived
	}
	_, strange, _, _ := e.state("fra")
	fra.order("site/fra", health.OrderDrain)
	agree(t, fra, iad, sin)
	for i := range 20 {
		for _, k := range []*keeper{fra, iad, sin} {
			k.mu.Lock()
			k.seq++
			r := &health.Report{Observer: k.opt.Name, Epoch: 1, Seq: k.seq, Layout: 7, Overrides: k.overrides.Digest()}
			r.Set(0, health.Status(1+i%3))
			k.Publish(r)
			k.mu.Unlock()
		}
		for _, k := range []*keeper{fra, iad, sin} {
			k.mu.Lock()
			seq := k.seq
			k.mu.Unlock()
			until(t, "the elder hears "+k.opt.Name, func() bool { got, _, _, _ := e.state(k.opt.Name); return got >= seq })
		}
	}
	_, _, _, exchanges := e.state("fra")
	until(t, "states are exchanged", func() bool { _, _, _, n := e.state("fra"); return n > exchanges+3 })
	if _, now, skipped, _ := e.state("fra"); now != strange || strange != 0 || skipped != 1 {
		t.Errorf("the elder could not read %d frames (%d before), and %d reports in tables; want 0, and 1 when it joined", now, strange, skipped)
	}
	for _, k := range []*keeper{fra, iad, sin} {
		for _, reason := range []string{dropMalformed, dropVersion, dropSignature, dropSection} {
			if got := k.dropped(reason); got != 0 {
				t.Errorf("%s dropped %v as %s", k.opt.Name, got, reason)
			}
		}
		if got := k.metric("pharos_cluster_conflicts_total", "report"); got != 0 {
			t.Errorf("%s took %v reports in two versions for conflicts", k.opt.Name, got)
		}
	}
	agree(t, fra, iad, sin) // though reports come in both versions
}

func TestReportInTwoVersionsIsOne(t *testing.T) {
	now := time.Now()
	r := &health.Report{Observer: "a", Epoch: 1, Seq: 1, Overrides: 5, States: []byte{1}}
	old, err := encodeReport(r, wireFirst)
	if err != nil {
		t.Fatal(err)
	}
	parsed := func(b []byte) *health.Report {
		r, err := health.ParseReport(b)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	offer := func(tb *table, b []byte) verdict {
		return tb.offer(held{report: parsed(b), raw: b, born: now}, now)
	}
	tb := newTable()
	for i, tt := range []struct {
		raw    []byte
		want   verdict
		digest uint64
	}{
		{old, tookNewer, 0},
		{encoded(t, r), tookVersion, 5},
		{old, refusedOld, 5},
		{encoded(t, r), refusedOld, 5},
	} {
		settled := tb.settled(parsed(tt.raw), tt.raw)
		if got := offer(tb, tt.raw); got != tt.want || settled != (got == refusedOld) {
			t.Errorf("step %d: %d (settled %v), want %d", i, got, settled, tt.want)
		}
		if h, _ := tb.get("a"); h.report.Overrides != tt.digest || h.conflict {
			t.Errorf("step %d: held %+v", i, h.report)
		}
	}
	// A newer one whose version cannot say it keeps the digest: it is no change.
	next := *r
	next.Seq = 2
	b, _ := encodeReport(&next, wireFirst)
	offer(tb, b)
	if h, _ := tb.get("a"); h.report.Seq != 2 || h.report.Overrides != 5 || h.changed {
		t.Errorf("held %+v, changed %v", h.report, h.changed)
	}
}

func TestAddressesThatNobodyHasHeardOfGetTheFirstVersion(t *testing.T) {
	keys, _ := signKeys("fra")
	unknown := netip.MustParseAddrPort("192.0.2.1:7946")
	for _, tt := range []struct {
		name string
		opt  Options
		want uint8
	}{
		{"not signing", Options{Name: "fra", Seeds: []netip.AddrPort{unknown}}, wireFirst},
		{"signing", Options{Name: "fra", Seeds: []netip.AddrPort{unknown}, SignKey: keys["fra"]}, wireNow},
	} {
		n := build(t, tt.opt)
		if got := n.targets()[unknown]; got != tt.want {
			t.Errorf("%s: version %d, want %d", tt.name, got, tt.want)
		}
		n.roster.join(&memberlist.Node{Name: "x", Addr: unknown.Addr().AsSlice(), Port: unknown.Port(), Meta: card{wire: 9}.encode()}, time.Now())
		if got := n.targets()[unknown]; min(got, wireNow) != wireNow {
			t.Errorf("%s: version %d for a newer node, want %d", tt.name, got, wireNow)
		}
		n.Close()
	}
}
