package cluster

import (
	"bytes"
	"context"
	"math/rand/v2"
	"time"

	"github.com/pharos-lb/pharos/internal/health"
)

// maxEntryFrame is the largest frame with one report.
const maxEntryFrame = frameHeaderLen + entryHeaderLen + sealHeaderLen + sealLen + health.MaxReportLen

// maxFrame returns the largest frame of the kind that b, not yet read, says to be.
func maxFrame(b []byte) int {
	if len(b) < frameHeaderLen {
		return maxEntryFrame
	}
	switch frameKind(b[3]) {
	case kindOverrides:
		return maxOverridesFrame
	case kindQuestion, kindAnswer:
		return maxMailFrame
	default:
		return maxEntryFrame
	}
}

// receive hands a letter to the pump. It never blocks.
func (n *Node) receive(l letter) {
	l.arrived = l.arrived.Add(-n.stood(l.arrived))
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
	f, err := parseFrame(l.frame)
	if err != nil {
		n.meters.messages.WithLabelValues("in", "other").Inc()
		n.refuse("gossip cannot be read", err)
		return
	}
	n.meters.messages.WithLabelValues("in", f.kind.String()).Inc()
	n.meters.dropped.WithLabelValues(dropSection).Add(float64(f.skipped))
	n.takeOverrides(f.overrides)
	for _, e := range f.entries {
		n.take(f.kind, e, l.arrived)
	}
	if f.kind == kindQuestion || f.kind == kindAnswer {
		n.takeMail(f.kind, f.mail)
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
		n.refuse("report cannot be read", err)
		return
	}
	now := time.Now()
	born := arrived.Add(-e.age)
	if r.Observer == n.opt.Name {
		n.takeEcho(r, e, now.Sub(born))
		return
	}
	o := held{report: r, raw: e.report, seal: e.seal, born: born}
	settled := n.table.settled(r, e.report)
	if !settled {
		genuine := n.verify(sealReport, r.Observer, e.report, e.seal)
		if genuine == forged {
			n.refuseSignature("report", r.Observer)
			return
		}
		o.signed = genuine == authentic
	}
	switch n.table.offer(o, now) {
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
		n.meters.duplicates.WithLabelValues("report").Inc()
		n.noteForgetful(r, now.Sub(born))
	case tookVersion:
	}
	if h, ok := n.table.passOn(r, kind); ok {
		n.spreadNews(h)
	}
}

// noteForgetful has the observer of r reminded if it speaks now, and below an epoch
// that we hold of it: it lost its disk and its clock is behind. Until it goes above
// that nobody who remembers listens to it, and the next exchange may be with one who
// does not.
func (n *Node) noteForgetful(r *health.Report, age time.Duration) {
	h, ok := n.table.get(r.Observer)
	if !ok || r.Epoch >= h.report.Epoch || age > health.FreshFor {
		return
	}
	if present, _ := n.roster.count(); rand.N(max(present, 1)) >= repairers {
		return // of many a few do each time
	}
	n.mu.Lock()
	n.forgetful[r.Observer] = true
	n.mu.Unlock()
	wake(n.stir)
}

// takeEcho reads a report of our own name that came from outside. One of a
// higher epoch was ours before this node lost its memory; one that is ahead of
// us in our epoch was made by somebody else.
func (n *Node) takeEcho(r *health.Report, e entry, age time.Duration) {
	n.mu.Lock()
	own, epoch := n.own, n.opt.Epoch
	n.mu.Unlock()
	if own != nil {
		epoch = max(epoch, own.report.Epoch)
	}
	if r.Epoch > epoch {
		if n.verify(sealReport, r.Observer, e.report, e.seal) == forged {
			n.refuseSignature("report", r.Observer)
			return
		}
		if !r.Newer(n.echo) {
			n.meters.duplicates.WithLabelValues("report").Inc()
			return
		}
		n.echo = r
		n.deliver(r, age)
		return
	}
	if own == nil || r.Epoch != own.report.Epoch || own.report.Newer(r) ||
		!r.Newer(own.report) && (bytes.Equal(e.report, own.raw) || saysSame(r, own.report)) {
		n.meters.duplicates.WithLabelValues("report").Inc()
		return
	}
	if n.verify(sealReport, r.Observer, e.report, e.seal) == forged {
		n.refuseSignature("report", r.Observer)
		return
	}
	n.rivalSeenAt("unknown address", time.Now())
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
