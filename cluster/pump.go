package cluster

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// maxEntryFrame is the largest frame with one report.
const maxEntryFrame = frameHeaderLen + entryHeaderLen + health.MaxReportLen

// receive hands a letter to the pump. It never blocks.
func (n *Node) receive(l letter) {
	if dropped := n.inbox.put(l); dropped > 0 {
		n.meters.dropped.WithLabelValues(dropQueue).Add(float64(dropped))
	}
}

// pump reads what was received, one letter at a time: the only goroutine that
// calls Deliver.
func (n *Node) pump(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.inbox.ready:
		}
		for _, l := range n.inbox.take() {
			if ctx.Err() != nil {
				return
			}
			n.open(l)
		}
	}
}

// open reads one letter.
func (n *Node) open(l letter) {
	kind, entries, err := parseFrame(l.frame)
	if err != nil {
		reason := dropMalformed
		if errors.Is(err, errFrameVersion) {
			reason = dropVersion
		}
		n.meters.dropped.WithLabelValues(reason).Inc()
		n.meters.messages.WithLabelValues("in", "other").Inc()
		n.complain("gossip cannot be read", err)
		return
	}
	n.meters.messages.WithLabelValues("in", kind.String()).Inc()
	for _, e := range entries {
		n.take(kind, e, l.arrived)
	}
	if l.exchange {
		n.meters.exchanges.WithLabelValues("done").Inc()
		n.mu.Lock()
		n.lastExchange = l.arrived
		n.mu.Unlock()
		n.markSynced()
	}
}

// take reads one report. One that cannot be read says nothing about the others
// of its table.
func (n *Node) take(kind frameKind, e entry, arrived time.Time) {
	r, err := health.ParseReport(e.report)
	if err != nil {
		reason := dropMalformed
		if newer := (*health.VersionError)(nil); errors.As(err, &newer) {
			reason = dropVersion
		}
		n.meters.dropped.WithLabelValues(reason).Inc()
		n.complain("report cannot be read", err)
		return
	}
	now := time.Now()
	born := arrived.Add(-e.age)
	if r.Observer == n.opt.Name {
		n.takeEcho(r, e.report, now.Sub(born))
		return
	}
	switch n.table.offer(r, e.report, born, now) {
	case tookNewer:
		n.deliver(r, now.Sub(born))
	case tookConflict:
		n.meters.conflicts.WithLabelValues("report").Inc()
		n.deliver(r, now.Sub(born))
	case refusedStale:
		n.meters.dropped.WithLabelValues(dropStale).Inc()
	case refusedFull:
		n.meters.dropped.WithLabelValues(dropTable).Inc()
	case refusedOld:
	}
	if n.table.passOn(r, kind) {
		n.spreadNews(r.Observer, e.report, born)
	}
}

// takeEcho reads a report of our own name that came from outside. One of a
// higher epoch was ours before this node lost its memory; one that is ahead of
// us in our epoch was made by somebody else.
func (n *Node) takeEcho(r *health.Report, raw []byte, age time.Duration) {
	n.mu.Lock()
	own, epoch := n.own, n.opt.Epoch
	n.mu.Unlock()
	if own != nil {
		epoch = max(epoch, own.report.Epoch)
	}
	if r.Epoch > epoch {
		if r.Newer(n.echo) {
			n.echo = r
			n.deliver(r, age)
		}
		return
	}
	if own == nil || r.Epoch != own.report.Epoch || own.report.Newer(r) {
		return
	}
	if r.Newer(own.report) || !bytes.Equal(raw, own.raw) {
		n.rivalSeenAt("unknown address", time.Now())
	}
}

func (n *Node) deliver(r *health.Report, age time.Duration) {
	n.meters.delivered.Inc()
	n.opt.Deliver(r, max(age, 0))
}

// rivalSeenAt notes that another node uses our name.
func (n *Node) rivalSeenAt(where string, now time.Time) {
	n.meters.conflicts.WithLabelValues("name").Inc()
	n.mu.Lock()
	n.rival, n.rivalSeen = where, now
	n.mu.Unlock()
	if suppressed, ok := n.journal.admit("rival", now); ok {
		n.log.Error("another node uses this node's name; others will take only one of the two in",
			"name", n.opt.Name, "address", n.advertise, "other", where, "suppressed", suppressed,
			"hint", "give every node its own name; if this node has moved, the others will notice shortly")
	}
}

// complain logs bad input, now and then.
func (n *Node) complain(what string, err error) {
	if suppressed, ok := n.journal.admit(what, time.Now()); ok {
		n.log.Warn(what, "error", err, "suppressed", suppressed)
	}
}
