package node

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/health"
)

// A fileBench is a decider that runs, and the file of orders that it obeys.
type fileBench struct {
	*deciderBench
	node  *Node
	watch *ordersWatch
	file  string
	end   func()
}

// newFileBench begins a life with this state folder and this file.
func newFileBench(t *testing.T, stateDir, file string) *fileBench {
	t.Helper()
	b := &fileBench{deciderBench: newDeciderBench(t, stateDir), file: file}
	b.set(health.KindBackend, health.StatusUp)
	b.node = &Node{log: slog.New(slog.DiscardHandler), state: b.state, decider: b.decider}
	b.reload(b.setup)
	b.watch = b.node.newOrdersWatch()
	ctx, cancel := context.WithCancel(t.Context())
	parts := newParts(b.node.log)
	parts.start("orders", b.orders.Run)
	parts.start("decider", b.Run)
	ended := false
	b.end = func() {
		if !ended {
			ended = true
			parts.stopAll(patience)
			cancel()
			b.state.close()
		}
	}
	t.Cleanup(b.end)
	b.do(ctx, func() {})
	return b
}

// reload puts a setup in force that names the file.
func (b *fileBench) reload(s *Setup) {
	s.Config.Cluster.OverridesFile = b.file
	b.node.setup.Store(s)
}

// standing are the orders in force as "scope order", asked of the decider.
func (b *fileBench) standing(t *testing.T) (out []string) {
	t.Helper()
	if !b.do(t.Context(), func() { out = b.standingTexts() }) {
		t.Fatal("the decider has ended")
	}
	return out
}

func (b *fileBench) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	b.watch.look(t.Context())
	if got := b.standing(t); !slices.Equal(got, want) {
		t.Errorf("%s: %v stands, want %v", what, got, want)
	}
}

// settle waits until what stands is on disk, and has the watch note it.
func (b *fileBench) settle(t *testing.T) {
	t.Helper()
	eventually(t, "the file is noted as applied", func() bool {
		b.watch.look(t.Context())
		return b.watch.saved == b.watch.applied
	})
}

// order has an operator order something.
func (b *fileBench) order(t *testing.T, o health.Order, scope string) {
	t.Helper()
	var err error
	r := ask(o, scope)
	r.Force = true
	b.do(t.Context(), func() { _, err = b.obey(r, &admin.OverrideResult{}) })
	if err != nil {
		t.Fatal(err)
	}
}

func (b *fileBench) error() string {
	b.node.mu.Lock()
	defer b.node.mu.Unlock()
	if b.node.ordersError == nil {
		return ""
	}
	return b.node.ordersError.Error()
}

func TestOrdersFile(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "orders")
	b := newFileBench(t, dir, file)
	b.expect(t, "no file")
	write(t, file, "# nothing yet\n")
	b.expect(t, "nothing in it")
	b.order(t, health.OrderUp, "service/web")
	write(t, file, "site/a drain power supply\npool/web/* down for=2h\n")
	b.expect(t, "two lines", "site/a drain", "service/web up", "pool/web/a down", "pool/web/b down")
	var all []health.Override
	b.do(t.Context(), func() { all = slices.Clone(b.core.Standing()) })
	if v := all[0]; v.By != byFile || v.Reason != "power supply" || v.Writer != "a1" || v.Keeper != "a" || !v.Until.IsZero() {
		t.Errorf("ordered %+v", v)
	}
	if v := all[3]; v.Keeper != "b" || v.Until.Sub(v.At) != 2*time.Hour {
		t.Errorf("ordered %+v", v)
	}
	if b.error() != "" {
		t.Errorf("refused: %s", b.error())
	}

	const good = "site/a drain power supply\n"
	write(t, file, good)
	b.expect(t, "a line is gone: what it ordered, and nothing else", "site/a drain", "service/web up")
	write(t, file, good+"site/nowhere drain\nsite/b drian\n")
	b.expect(t, "a mistake: nothing changes", "site/a drain", "service/web up")
	if got := b.error(); !strings.Contains(got, "line 3") {
		t.Errorf("shown: %q, want the line at fault", got)
	}
	write(t, file, good+"site/nowhere drain\n")
	b.expect(t, "an unknown name: nothing changes", "site/a drain", "service/web up")
	if got := b.error(); !strings.Contains(got, "line 2") || !strings.Contains(got, "nowhere") {
		t.Errorf("shown: %q, want the line at fault", got)
	}
	write(t, file, good)
	b.expect(t, "as it was", "site/a drain", "service/web up")
	if got := b.error(); got != "" {
		t.Errorf("still refused: %q", got)
	}
	write(t, file, strings.Repeat("#", maxOrdersFile+1))
	b.expect(t, "too long", "site/a drain", "service/web up")
	if b.error() == "" {
		t.Error("a file too long was taken")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	b.expect(t, "no file", "service/web up")
	if got := b.error(); got != "" {
		t.Errorf("still refused: %q", got)
	}
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	b.expect(t, "a folder", "service/web up")
	if b.error() == "" {
		t.Error("a folder was taken for a file")
	}
}

// A register is kept for ever, so "none" by a pattern makes none for what never had an order; of two lines
// that name one thing the later counts all the same.
func TestOrdersFileMakesNoRegisters(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orders")
	b := newFileBench(t, t.TempDir(), file)
	registers := func() (n int) {
		b.do(t.Context(), func() { all, _ := b.core.Overrides(); n = len(all) })
		return n
	}
	write(t, file, "backend/*/*/* none\nsite/* none\nsite/b drain\n")
	b.expect(t, "nothing to clear, one order", "site/b drain")
	if got := registers(); got != 1 {
		t.Errorf("%d registers, want that of the order", got)
	}
	write(t, file, "site/a drain\nsite/* none\n")
	b.expect(t, "the later line counts")
	write(t, file, "service/web none\n")
	b.expect(t, "nothing")
	if got := registers(); got != 2 {
		t.Errorf("%d registers, want that of the order and of what is named in full", got)
	}
}

// What an operator has undone since is not ordered again by a restart, nor is
// the time of an order begun anew.
func TestOrdersFileAcrossRestarts(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "orders")
	write(t, file, "site/a drain\nsite/b down for=2h\n")
	first := newFileBench(t, dir, file)
	first.expect(t, "first life", "site/a drain", "site/b down")
	first.order(t, health.OrderNone, "site/a")
	first.expect(t, "undone", "site/b down")
	until := func(b *fileBench) (at time.Time) {
		b.do(t.Context(), func() { at = b.core.Standing()[0].Until })
		return at
	}
	want := until(first)
	first.settle(t)
	first.end()

	second := newFileBench(t, dir, file)
	second.expect(t, "after a restart", "site/b down")
	if got := until(second); !got.Equal(want) {
		t.Errorf("it now ends at %s, want %s", got, want)
	}
	second.order(t, health.OrderNone, "site/b")
	second.settle(t)
	second.end()
	third := newFileBench(t, dir, file)
	third.expect(t, "all undone")
	third.end()

	write(t, file, "site/a drain\n")
	fourth := newFileBench(t, dir, file)
	fourth.expect(t, "changed while nobody looked", "site/a drain")
	fourth.settle(t)
	fourth.end()
	write(t, file, "")
	newFileBench(t, dir, file).expect(t, "emptied while nobody looked")
}

// That a file was put in force is not noted before what it orders is on disk: a
// crash in between would lose the orders for good.
func TestOrdersFileIsNotedAfterItsOrders(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "orders")
	write(t, file, "site/a drain\n")
	b := newFileBench(t, dir, file)
	spoil(t, filepath.Join(dir, overridesFile))
	b.expect(t, "the disk refuses", "site/a drain")
	b.expect(t, "still", "site/a drain")
	if got := b.state.load(appliedFile); got != nil {
		t.Errorf("noted %q although the order is not on disk", got)
	}
	b.end()
	if err := os.RemoveAll(filepath.Join(dir, overridesFile)); err != nil {
		t.Fatal(err)
	}
	newFileBench(t, dir, file).expect(t, "ordered again by the next life", "site/a drain")
}

// A file that names what only the next configuration has is taken with it.
func TestOrdersFileIsTriedAgainAfterAReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orders")
	write(t, file, "service/extra drain\n")
	b := newFileBench(t, t.TempDir(), file)
	b.expect(t, "not known yet")
	if b.error() == "" {
		t.Fatal("an unknown service was taken")
	}
	next := load(t, edit(t, twoSites, "services:\n", "services:\n  extra: {check: {tcp: {}}, backends: {a: [\"127.9.1.3:80\"]}, vip: {a: 127.9.1.55}}\n"))
	b.swap(t.Context(), next)
	b.reload(next)
	b.expect(t, "known now", "service/extra drain")
	if got := b.error(); got != "" {
		t.Errorf("still refused: %q", got)
	}
	gone := load(t, twoSites)
	b.node.setup.Store(gone)
	b.expect(t, "no file is named any more: its orders stay", "service/extra drain")
}

// Two nodes have the same file: each clears only what it ordered itself.
func TestOrdersFileOnTwoNodes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orders")
	write(t, file, "site/a drain\n")
	b := newFileBench(t, t.TempDir(), file)
	scope := health.Scope{Kind: health.ScopeSite, Site: "a"}
	b.inbox.deliverOrders([]health.Override{{Scope: scope, Order: health.OrderDrain, Counter: 9, Writer: "b1", By: byFile, Keeper: "a"}})
	b.expect(t, "ordered by the other", "site/a drain")
	write(t, file, "")
	b.expect(t, "the other has not looked yet", "site/a drain")
}
