package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/cluster"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
	"github.com/pharos-lb/pharos/internal/steer"
)

// ask is what an operator asks for.
func ask(order health.Order, scopes ...string) admin.OverrideRequest {
	return admin.OverrideRequest{Scopes: scopes, Order: order, By: "anna (unix)", Reason: "test"}
}

// obeyed carries a request out as the decider does, and steps.
func (b *deciderBench) obeyed(t *testing.T, r admin.OverrideRequest) *admin.OverrideResult {
	t.Helper()
	result := &admin.OverrideResult{}
	if _, err := b.obey(r, result); err != nil {
		t.Fatal(err)
	}
	b.pass(time.Millisecond)
	return result
}

// saveOrders has the saver of orders write what was handed to it, and tells the
// core as Run does.
func (b *deciderBench) saveOrders(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.orders.Run(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case digest := <-b.orders.saved:
		b.core.SetDurable(digest)
	default:
	}
	b.pass(time.Millisecond)
}

// standingTexts are the orders in force as "scope order".
func (b *deciderBench) standingTexts() (out []string) {
	for _, v := range b.core.Standing() {
		out = append(out, v.Scope.String()+" "+v.Order.String())
	}
	return out
}

// bothUp is a bench on which both sites are up and answered.
func bothUp(t *testing.T, stateDir string) *deciderBench {
	t.Helper()
	return bothUpOf(t, stateDir, twoSites)
}

func bothUpOf(t *testing.T, stateDir, config string) *deciderBench {
	t.Helper()
	b := deciderBenchOf(t, stateDir, config)
	b.set(health.KindBackend, health.StatusUp)
	b.set(health.KindVIP, health.StatusUp)
	b.publishOrders()
	b.core.SetReady(true)
	b.now = time.Now()
	for seq := range uint64(2) {
		b.inbox.deliver(b.upAtB(seq), 0)
		b.pass(time.Second)
	}
	for _, site := range b.board.Load().Services[0].Sites {
		if site.Why != steer.ReasonNone {
			t.Fatalf("a site is %v", site.Why)
		}
	}
	return b
}

// upAtB is b1's report: all that it probes is up.
func (b *deciderBench) upAtB(seq uint64) *health.Report {
	r := b.report("b1", 1, seq, health.KindVIP, health.StatusUp)
	for i, target := range b.setup.Topology.Layout.Targets {
		if target.Kind == health.KindBackend && target.Site == "b" {
			r.Set(i, health.StatusUp)
		}
	}
	return r
}

// An order takes effect and is told to the others at once, before any disk; it
// is acknowledged by those whose reports carry its digest, and it is there after
// a restart.
func TestOrderIsToldSavedAndAcknowledged(t *testing.T) {
	dir := t.TempDir()
	b := bothUp(t, dir)
	told := len(b.gossip.orders)
	r := b.obeyed(t, ask(health.OrderDrain, "site/a"))
	if len(r.Written) != 1 || r.Written[0].Writer != "a1" || r.Written[0].Keeper != "a" {
		t.Errorf("written %+v", r.Written)
	}
	if b.board.Load().Services[0].Sites[0].Eligible {
		t.Error("still answered with the drained site")
	}
	if got := len(b.gossip.orders) - told; got != 1 {
		t.Errorf("told %d times, want once", got)
	}
	expect := func(what string, want int) {
		t.Helper()
		if got := b.acks.Load(); got.have != want || got.nodes != 2 || len(got.all) != 1 {
			t.Errorf("%s: %d of %d hold %d registers, want %d of 2", what, got.have, got.nodes, len(got.all), want)
		}
	}
	expect("in memory", 0)
	b.saveOrders(t)
	expect("on disk here", 1)
	digest := b.acks.Load().digest
	if last := b.gossip.published[len(b.gossip.published)-1]; last.Overrides != digest {
		t.Errorf("reported digest %x, want %x", last.Overrides, digest)
	}
	for seq, tt := range []struct {
		digest uint64
		want   int
	}{{digest + 1, 1}, {digest, 2}, {0, 1}} {
		other := b.upAtB(uint64(seq + 2))
		other.Overrides = tt.digest
		b.inbox.deliver(other, 0)
		b.pass(time.Millisecond)
		expect("b1 reported", tt.want)
	}
	b.state.close()

	next := newDeciderBench(t, dir)
	next.publishOrders()
	next.pass(0)
	if got := next.standingTexts(); !slices.Equal(got, []string{"site/a drain"}) {
		t.Errorf("after a restart stands %v", got)
	}
	if a := next.acks.Load(); a.digest != digest || a.have != 1 {
		t.Errorf("after a restart %d hold %x, want this one %x", a.have, a.digest, digest)
	}
	if len(next.gossip.orders) != 1 || len(next.gossip.orders[0]) != 1 {
		t.Errorf("after a restart told %v", next.gossip.orders)
	}
}

// What others order is taken, passed on and saved; what is malformed is counted.
func TestOrdersOfOthers(t *testing.T) {
	b := bothUp(t, t.TempDir())
	scope := health.Scope{Kind: health.ScopeSite, Site: "a"}
	b.inbox.deliverOrders([]health.Override{{Scope: scope, Order: health.OrderDrain, Counter: 4, Writer: "b1", Keeper: "a"}})
	b.inbox.deliverOrders([]health.Override{{Scope: scope, Order: health.OrderDown, Counter: 3, Writer: "b1", Keeper: "a"}})
	told := len(b.gossip.orders)
	b.pass(time.Millisecond)
	if got := b.standingTexts(); !slices.Equal(got, []string{"site/a drain"}) || len(b.gossip.orders) != told+1 {
		t.Errorf("stands %v, told %d times more", got, len(b.gossip.orders)-told)
	}
	if got := valueOf(t, b.metrics.overrides); got != 1 {
		t.Errorf("%v orders on the metric, want 1", got)
	}
	b.inbox.deliverOrders([]health.Override{{Scope: health.Scope{Kind: health.ScopeService, Service: "web"}, Order: health.OrderDown}})
	b.pass(time.Millisecond)
	if got := valueOf(t, b.metrics.ordersRefused); got != 1 || len(b.core.Standing()) != 1 {
		t.Errorf("%v refused, %v stands", got, b.standingTexts())
	}
}

// An order is in the log of every node that it acts on, wherever it was given, once.
func TestOrdersAreLogged(t *testing.T) {
	b := bothUp(t, t.TempDir())
	var log bytes.Buffer
	b.log = slog.New(slog.NewTextHandler(&log, nil))
	lines := func(what string, want ...string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(log.String()) {
			if _, order, ok := strings.Cut(line, "msg=override "); ok {
				got = append(got, strings.TrimSpace(order))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		log.Reset()
	}
	until := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	heard := health.Override{
		Scope: health.Scope{Kind: health.ScopeSite, Site: "a"}, Order: health.OrderDrain, Counter: 4, Writer: "b1", Keeper: "a", By: "kim", Reason: "power", Until: until,
	}
	cleared := health.Override{Scope: health.Scope{Kind: health.ScopeService, Service: "web"}, Counter: 3, Writer: "b1"}
	b.inbox.deliverOrders([]health.Override{heard, cleared})
	b.pass(time.Millisecond)
	lines("heard", `scope=site/a order=drain by=kim reason=power node=b1 counter=4 until=2030-01-01T00:00:00.000Z`)
	b.inbox.deliverOrders([]health.Override{heard, cleared})
	b.pass(time.Millisecond)
	lines("heard again")
	b.obeyed(t, ask(health.OrderNone, "site/a"))
	lines("given here", `scope=site/a order=none by="anna (unix)" reason=test node=a1 counter=5`)
	heard.Order, heard.Counter, heard.Until = health.OrderDown, 6, time.Time{}
	b.inbox.deliverOrders([]health.Override{heard})
	b.pass(time.Millisecond)
	lines("another one", `scope=site/a order=down by=kim reason=power node=b1 counter=6`)

	many := make([]health.Override, maxLoggedOrders+3)
	b.logOrders(many)
	if got := strings.Count(log.String(), "msg=override"); got != maxLoggedOrders || !strings.Contains(log.String(), "count=3") {
		t.Errorf("%d orders of %d are logged:\n%s", got, len(many), log.String())
	}
}

// Where every node signs, an order counts if its writer is in the fleet, whose
// signature the cluster has checked, or if a node of the fleet vouches for it.
func TestOrdersWhereAllSign(t *testing.T) {
	public := func(seed byte) string {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
		return "public_key: \"" + base64.StdEncoding.EncodeToString(key) + "\""
	}
	seed := filepath.Join(t.TempDir(), "a1.seed")
	write(t, seed, base64.StdEncoding.EncodeToString(make([]byte, ed25519.SeedSize)))
	config := edit(t, twoSites, "{name: t}", "{name: t, sign_key_file: "+seed+"}")
	config = edit(t, config, "a1: 127.9.1.1", "a1: {address: 127.9.1.1, "+public(0)+"}")
	config = edit(t, config, "b1: 127.9.1.2", "b1: {address: 127.9.1.2, "+public(1)+"}")
	b := bothUpOf(t, t.TempDir(), config)
	order := func(site, writer string) health.Override {
		return health.Override{Scope: health.Scope{Kind: health.ScopeSite, Site: site}, Order: health.OrderUp, Counter: 4, Writer: writer, Keeper: site}
	}
	b.gossip.vouched = map[health.Scope]bool{{Kind: health.ScopeSite, Site: "c"}: true}
	b.inbox.deliverOrders([]health.Override{order("a", "b1"), order("b", "gone"), order("c", "gone")})
	b.pass(time.Millisecond)
	if got := b.standingTexts(); !slices.Equal(got, []string{"site/a up", "site/c up"}) || valueOf(t, b.metrics.ordersRefused) != 1 {
		t.Errorf("stands %v, %v refused", got, valueOf(t, b.metrics.ordersRefused))
	}
}

// A node that left the configuration is shown only while it is there.
func TestMembersAsConfigured(t *testing.T) {
	c := load(t, twoSites).Config
	member := func(name string, state cluster.State) admin.MemberStatus {
		return admin.MemberStatus{Name: name, State: state.String(), Heard: state == cluster.StateAlive}
	}
	var got []string
	for _, m := range asConfigured([]admin.MemberStatus{
		member("a1", cluster.StateAlive), member("old", cluster.StateLeft), member("odd", cluster.StateAlive),
	}, c, nil) {
		got = append(got, m.Name+" "+m.State+" "+m.Abstains)
	}
	if want := []string{"a1 alive ", "b1 absent ", "odd alive not in the configuration here"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A dry run says what an order would do and does nothing.
func TestDryRunChangesNothing(t *testing.T) {
	b := bothUp(t, t.TempDir())
	generation, told := b.board.Load().Generation, len(b.gossip.orders)
	r := ask(health.OrderDrain, "site/a", "pool/*/a")
	r.DryRun = true
	result := b.obeyed(t, r)
	want := []string{
		"service web: a is no longer answered (drained by order)",
		"prefix 192.0.2.0/24 is withdrawn by this node (drained by order)",
	}
	if diff := cmp.Diff(want, result.Effects); diff != "" {
		t.Errorf("effects (-want +got)\n%s", diff)
	}
	if len(result.Matched) != 2 || result.Matched[0].Scope != "site/a" || len(result.Written) != 0 {
		t.Errorf("matched %v, written %v", result.Matched, result.Written)
	}
	if _, digest := b.core.Overrides(); digest != 0 || b.board.Load().Generation != generation || len(b.gossip.orders) != told {
		t.Error("the dry run did something")
	}

	b.obeyed(t, ask(health.OrderDrain, "site/a"))
	back := ask(health.OrderNone, "site/*")
	back.DryRun = true
	result = b.obeyed(t, back)
	want = []string{
		"service web: a is answered again (in use)",
		"prefix 192.0.2.0/24 stays announced by this node (in use)",
	}
	if diff := cmp.Diff(want, result.Effects); diff != "" {
		t.Errorf("effects of clearing (-want +got)\n%s", diff)
	}
	if m := result.Matched; len(m) != 1 || m[0].Standing == nil || m[0].Standing.Order != health.OrderDrain {
		t.Errorf("matched %+v", m)
	}
}

// One backend of several: nobody but its pool notices.
func TestEffectsOnABackend(t *testing.T) {
	b := bothUpOf(t, t.TempDir(), edit(t, twoSites, `a: ["127.9.1.3:80"]`, `a: ["127.9.1.3:80", "127.9.1.8:80"]`))
	for _, tt := range []struct {
		order health.Order
		want  string
	}{
		{health.OrderDrain, "backend 127.9.1.8:80 of web at a gets no new work"},
		{health.OrderNone, "backend 127.9.1.8:80 of web at a gets new work again"},
	} {
		result := b.obeyed(t, ask(tt.order, "backend/web/a/*.8:80"))
		if !slices.Equal(result.Effects, []string{tt.want}) {
			t.Errorf("%s: %q, want %q", tt.order, result.Effects, tt.want)
		}
	}
	if result := b.obeyed(t, ask(health.OrderNone, "backend/web/a/*")); len(result.Effects) != 0 || len(result.Matched) != 1 {
		t.Errorf("clearing what is clear: %q on %d", result.Effects, len(result.Matched))
	}
}

// What must not happen by a slip is refused, and nothing of the request is done.
func TestObeyRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		request admin.OverrideRequest
		want    string
	}{
		{"it would leave the service without a site", ask(health.OrderDown, "site/a", "site/b"), "--force"},
		{"one pattern matches nothing", ask(health.OrderDrain, "site/a", "site/nowhere"), `nothing matches "site/nowhere"`},
		{"an empty pattern", ask(health.OrderDrain, ""), "not a scope"},
		{"clearing what was never there", ask(health.OrderNone, "site/nowhere"), "nothing matches"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bothUp(t, t.TempDir())
			_, err := b.obey(tt.request, &admin.OverrideResult{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, digest := b.core.Overrides(); digest != 0 {
				t.Errorf("%v stands after a refusal", b.standingTexts())
			}
		})
	}
}

// With --force a minimum may be broken, and the result says which.
func TestForceBreaksAMinimum(t *testing.T) {
	b := bothUp(t, t.TempDir())
	r := ask(health.OrderDown, "site/a", "site/b")
	r.Force = true
	if result := b.obeyed(t, r); len(result.Breaks) == 0 || len(result.Written) != 2 {
		t.Errorf("breaks %v, written %d", result.Breaks, len(result.Written))
	}
}

// An order on something that the configuration has lost can be cleared.
func TestClearWhatIsGone(t *testing.T) {
	b := bothUp(t, t.TempDir())
	b.inbox.deliverOrders([]health.Override{{
		Scope: health.Scope{Kind: health.ScopeSite, Site: "gone"}, Order: health.OrderDown, Counter: 1, Writer: "b1", Keeper: "gone",
	}})
	b.pass(time.Millisecond)
	b.obeyed(t, ask(health.OrderNone, "site/gone"))
	if got := b.standingTexts(); len(got) != 0 {
		t.Errorf("%v stands", got)
	}
}

// A register is kept for ever, so clearing by a pattern makes none for what never had an order.
func TestClearByPatternMakesNoRegisters(t *testing.T) {
	b := bothUp(t, t.TempDir())
	registers := func() int {
		all, _ := b.core.Overrides()
		return len(all)
	}
	if r := b.obeyed(t, ask(health.OrderNone, "backend/*/*/*", "site/*")); len(r.Matched) != 0 || registers() != 0 {
		t.Errorf("with no order: matched %v, %d registers", r.Matched, registers())
	}
	b.obeyed(t, ask(health.OrderDrain, "site/a"))
	if r := b.obeyed(t, ask(health.OrderNone, "site/*")); len(r.Matched) != 1 || registers() != 1 || len(b.standingTexts()) != 0 {
		t.Errorf("with one: matched %v, %d registers, %v stands", r.Matched, registers(), b.standingTexts())
	}
	// What is cleared is cleared again: the other side of a cut may not know of it.
	if r := b.obeyed(t, ask(health.OrderNone, "site/*")); len(r.Written) != 1 || r.Written[0].Scope != "site/a" {
		t.Errorf("once more: written %v", r.Written)
	}
	// A scope that is named in full is always written.
	if r := b.obeyed(t, ask(health.OrderNone, "site/b")); len(r.Written) != 1 || registers() != 2 {
		t.Errorf("by name: written %v, %d registers", r.Written, registers())
	}
}

// Before the first decision there is nothing to judge an order by.
func TestObeyBeforeTheFirstDecision(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	if _, err := b.obey(ask(health.OrderDrain, "site/a"), &admin.OverrideResult{}); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("got %v", err)
	}
}

// Whoever orders at the same moment as another learns whose order stands, and
// does not wait for a majority that will never hold theirs.
func TestOvertaken(t *testing.T) {
	b := bothUp(t, t.TempDir())
	written, err := b.obey(ask(health.OrderDown, "site/a"), &admin.OverrideResult{})
	if err != nil {
		t.Fatal(err)
	}
	b.pass(time.Millisecond)
	if by := b.acks.Load().overtaken(written); len(by) != 0 {
		t.Errorf("overtaken by itself: %v", by)
	}
	rival := written[0]
	rival.Order, rival.Writer = health.OrderDrain, "b1"
	elsewhere := health.Override{Scope: health.Scope{Kind: health.ScopeSite, Site: "b"}, Order: health.OrderUp, Counter: 99, Writer: "b1", Keeper: "b"}
	b.inbox.deliverOrders([]health.Override{elsewhere})
	b.pass(time.Millisecond)
	if by := b.acks.Load().overtaken(written); len(by) != 0 {
		t.Errorf("overtaken by an order on something else: %v", by)
	}
	b.inbox.deliverOrders([]health.Override{rival})
	b.pass(time.Millisecond)
	a := b.awaitHeld(t.Context(), written, false)
	if by := a.overtaken(written); len(by) != 1 || by[0].Writer != "b1" || a.majority() {
		t.Errorf("overtaken by %v, want by b1's", by)
	}
}

// An order that was given for a time ends, is told and saved like any other.
func TestOrderEndsByItself(t *testing.T) {
	b := bothUp(t, t.TempDir())
	r := ask(health.OrderDrain, "site/a")
	r.For = time.Minute
	b.obeyed(t, r)
	until := b.core.Standing()[0].Until
	told := len(b.gossip.orders)
	b.now = until.Add(-time.Millisecond)
	b.step(b.now)
	if len(b.core.Standing()) != 1 {
		t.Fatal("ended early")
	}
	b.pass(time.Millisecond)
	if len(b.core.Standing()) != 0 || len(b.gossip.orders) != told+1 {
		t.Errorf("%v stands, told %d times", b.standingTexts(), len(b.gossip.orders)-told)
	}
	b.saveOrders(t)
	if all, err := health.ParseOverrides(b.state.load(overridesFile)); err != nil || len(all) != 1 || all[0].Order != health.OrderNone {
		t.Errorf("on disk: %v, %v", all, err)
	}
}

// A corrupt state file is kept aside and costs nothing else.
func TestCorruptStateIsSetAside(t *testing.T) {
	for _, name := range []string{overridesFile, registersFile, viewFile} {
		for what, content := range map[string]string{"rubbish": "rubbish", "empty": "", "cut off": "pharos-overrides\x01\x00\x00\x00\x09"} {
			dir := t.TempDir()
			write(t, filepath.Join(dir, name), content)
			b := newDeciderBench(t, dir)
			b.publishOrders()
			b.set(health.KindBackend, health.StatusUp)
			b.pass(0)
			if got := b.verdict(health.KindBackend, "a").Status; got != health.StatusUp {
				t.Errorf("%s %s: the verdict is %s", name, what, got)
			}
			if kept, err := os.ReadFile(filepath.Join(dir, name+".corrupt")); err != nil || string(kept) != content {
				t.Errorf("%s %s: kept %q, %v", name, what, kept, err)
			}
			b.obeyed(t, ask(health.OrderDrain, "site/b"))
			b.saveOrders(t)
			if got := b.acks.Load().have; got != 1 {
				t.Errorf("%s %s: %d hold the order, want this one", name, what, got)
			}
			b.state.close()
		}
	}
}

// A node that asks for a majority waits for it, and no longer than it has to.
func TestAwaitHeld(t *testing.T) {
	b := newDeciderBench(t, t.TempDir())
	b.acks.Store(&acknowledgement{have: 1, nodes: 2})
	ctx, cancel := context.WithCancelCause(t.Context())
	got := make(chan acknowledgement)
	go func() { got <- b.awaitHeld(ctx, nil, false) }()
	select {
	case a := <-got:
		t.Fatalf("returned with %d of %d", a.have, a.nodes)
	case <-time.After(5 * ackPoll):
	}
	b.acks.Store(&acknowledgement{have: 2, nodes: 2})
	if a := <-got; a.have != 2 {
		t.Errorf("returned with %d of %d", a.have, a.nodes)
	}
	b.acks.Store(&acknowledgement{have: 1, nodes: 3})
	cancel(errors.New("the caller went away"))
	if a := b.awaitHeld(ctx, nil, false); a.have != 1 || a.majority() {
		t.Errorf("returned with %d of %d", a.have, a.nodes)
	}
}

// A local order waits for nobody else, but for the disk of its own node: it was
// called held, and lost if the node was killed before, or the disk was full.
func TestLocalOrderWaitsForItsOwnDisk(t *testing.T) {
	b := bothUp(t, t.TempDir())
	b.obeyed(t, ask(health.OrderDrain, "site/a"))
	got := make(chan acknowledgement)
	go func() { got <- b.awaitHeld(t.Context(), nil, true) }()
	select {
	case <-got:
		t.Fatal("returned before the order was on disk")
	case <-time.After(5 * ackPoll):
	}
	b.saveOrders(t)
	if a := <-got; !a.here || a.majority() {
		t.Errorf("returned with %d of %d, here: %v", a.have, a.nodes, a.here)
	}
}
