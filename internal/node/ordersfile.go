package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

const (
	// ordersFileEvery is how often the file of orders is looked at.
	ordersFileEvery = time.Second
	// maxOrdersFile is the longest that is read, in bytes.
	maxOrdersFile = 1 << 20
	// appliedFile keeps the hash of the content that was put in force last, so
	// that a restart does not order again what an operator has undone since.
	appliedFile = "overrides-file.applied"
	// byFile is who gave the orders of the file, for the record.
	byFile = "overrides_file"
)

// watchOrders puts the file of orders in force whenever its content changes:
// what it names is ordered, what it named before and does not any more is
// cleared. A bad file changes nothing and is shown in status.
func (n *Node) watchOrders(ctx context.Context) error {
	tick := time.NewTicker(ordersFileEvery)
	defer tick.Stop()
	w := n.newOrdersWatch()
	for {
		select {
		case <-tick.C:
			w.look(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// An ordersWatch is how far the file of orders has come. Owned by one goroutine.
type ordersWatch struct {
	node *Node
	// applied is the hash of the content in force, saved the one that is on disk.
	applied, saved string
	// tried is the hash of the content that was looked at last, under the
	// configuration by which it was: another one may know what it names.
	tried string
	under *Setup
}

func (n *Node) newOrdersWatch() *ordersWatch {
	saved := strings.TrimSpace(string(n.state.load(appliedFile)))
	return &ordersWatch{node: n, applied: saved, saved: saved}
}

// look reads the file once.
func (w *ordersWatch) look(ctx context.Context) {
	setup := w.node.setup.Load()
	file := setup.Config.Cluster.OverridesFile
	if file == "" {
		w.node.noteOrdersFile(file, nil)
		return
	}
	data, err := readOrdersFile(file)
	sum := hashOf(data)
	switch {
	case err != nil || sum == w.applied:
		w.tried = ""
	case sum == w.tried && setup == w.under:
		return
	default:
		w.tried, w.under = sum, setup
		if err = w.node.applyOrders(ctx, data); err == nil {
			w.applied = sum
			w.node.log.Info("overrides file put in force", "file", file)
		}
	}
	w.node.noteOrdersFile(file, err)
	w.save(ctx)
}

// save keeps what was applied once the orders that it gave are on disk: the
// other way round a crash in between would lose them.
func (w *ordersWatch) save(ctx context.Context) {
	if w.saved == w.applied {
		return
	}
	durable := false
	w.node.decider.do(ctx, func() {
		_, digest := w.node.decider.core.Overrides()
		durable = digest == w.node.decider.core.Durable()
	})
	if !durable {
		return
	}
	err := w.node.state.replace(appliedFile, []byte(w.applied+"\n"))
	w.node.state.note(appliedFile, err)
	if err == nil {
		w.saved = w.applied
	}
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// readOrdersFile returns the file's content; a file that is not there orders nothing.
func readOrdersFile(file string) ([]byte, error) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxOrdersFile:
		return nil, fmt.Errorf("%s: want a regular file of at most %d bytes", filepath.Base(file), maxOrdersFile)
	}
	return os.ReadFile(file)
}

// noteOrdersFile keeps how the newest reading went, and logs what is new.
func (n *Node) noteOrdersFile(file string, err error) {
	n.mu.Lock()
	was := n.ordersError
	n.ordersError = err
	n.mu.Unlock()
	switch {
	case err == nil && was != nil:
		n.log.Info("overrides file is good again", "file", file)
	case err != nil && (was == nil || was.Error() != err.Error()):
		n.log.Error("overrides file refused, what it ordered before stays", "file", file, "error", err)
	}
}

// applyOrders turns the file into orders of this node.
func (n *Node) applyOrders(ctx context.Context, data []byte) error {
	wanted, err := health.ParseOverridesFile(bytes.NewReader(data))
	if err != nil {
		return err
	}
	var problem error
	ok := n.decider.do(ctx, func() { problem = n.decider.applyFile(wanted) })
	if !ok {
		return ctx.Err()
	}
	return problem
}

// applyFile orders what is wanted and clears what the file ordered before.
func (d *decider) applyFile(wanted []health.Wanted) error {
	now := d.now()
	known := d.core.Topology().Scopes()
	orders := map[health.Scope]health.Override{}
	ever := d.everOrdered()
	var errs []error
	for _, w := range wanted {
		scopes, err := health.MatchScopes(w.Pattern, known)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", w.Line, err))
			continue
		}
		for _, scope := range scopes {
			if w.Order == health.OrderNone && health.IsPattern(w.Pattern) && !ever[scope] {
				delete(orders, scope) // a register is for ever: none for what never had an order
				continue
			}
			v := health.Override{Scope: scope, Order: w.Order, By: byFile, Reason: w.Reason, At: now, Keeper: d.keeper(scope)}
			if w.For > 0 {
				v.Until = now.Add(w.For)
			}
			orders[scope] = v
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	var change []health.Override
	for _, standing := range d.core.Standing() {
		v, named := orders[standing.Scope]
		switch {
		case named && v.Order == standing.Order && v.Reason == standing.Reason && v.Until.IsZero() && standing.Until.IsZero():
			delete(orders, standing.Scope) // it stands already
		case !named && standing.By == byFile && standing.Writer == d.name:
			change = append(change, health.Override{
				Scope: standing.Scope, Order: health.OrderNone, By: byFile, Reason: "no longer in the file", At: now, Keeper: standing.Keeper,
			})
		}
	}
	for _, v := range orders {
		change = append(change, v)
	}
	if len(change) == 0 {
		return nil
	}
	written, err := d.core.WriteAll(change)
	if err != nil {
		return err
	}
	d.logOrders(written)
	d.publishOrders()
	return nil
}

// keeper is the site that ends an order on a scope: its own, else this node's.
func (d *decider) keeper(s health.Scope) string {
	if s.Site != "" {
		return s.Site
	}
	return d.core.SelfSite()
}
