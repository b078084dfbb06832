package l7

import (
	"context"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// maxInterim is how many 1xx answers to one request a backend may send.
const maxInterim = 8

// lookEvery is how often it is looked, while a backend thinks, whether the
// client is still there. One that has only finished sending counts as gone.
const lookEvery = time.Second

// exchange forwards w.req to a service, and reports whether another request may follow
// on the client's connection.
func (w *work) exchange(ctx context.Context, service string) bool {
	r := &w.req
	upgrade := r.upgradeTo()
	w.replayable = r.idempotent()
	key := w.hash(w.server.registry.Load().Key(service, false))
	if f := w.prepare(); f.bad() {
		return w.early(f)
	}
	w.out = appendRequest(w.out[:0], r, w.ends.to, upgrade)
	expects := r.expects && r.minor > 0
	switch {
	case r.chunked, r.length > maxInline, r.length > 0 && expects:
		w.pump = &pump{work: w, chunked: r.chunked, left: r.length}
		w.prefers = w.accepts() // the head's bytes may be written over by the body
		w.replayable = false
	case r.length > 0:
		f, ok := w.down.collect(w, int(r.length))
		if !ok {
			return false
		}
		if f.bad() {
			w.keep = false
			return w.reply(f)
		}
	}
	var err error
	w.lease, err = w.server.registry.Load().Borrow(ctx, service, forward.Terms{
		Connect: w.server.opts.Connect, Reuse: true, Shard: uint32(w.conn.ID), Key: key,
	})
	if err != nil {
		f := unavailable(service, err)
		w.keep = w.keep && w.pump == nil
		return w.reply(f)
	}
	w.down.hold(w.lease.Stream)
	since := timed(w.lease.Backend)
	t, renewed := w.roundTrip(ctx, upgrade)
	if renewed != nil { // the lease is gone with the failure to renew it
		f := unavailable(service, renewed)
		return w.reply(f)
	}
	if t == troubleNone {
		observe(w.lease.Backend, since)
	}
	if t == troubleNone && w.res.status == 101 {
		w.down.tunnel(ctx, w)
		return false
	}
	keepBackend := false
	if t == troubleNone {
		keepBackend, t = w.deliver()
	}
	if t != troubleNone && ctx.Err() != nil {
		t = troubleClient // we have cut it: nothing is to be said about the backend
	}
	w.down.hold(nil) // it may go to another client now
	return w.conclude(t, keepBackend, service)
}

// roundTrip sends the request and waits for the head of the final answer. A
// request that meets a connection which died while idle is sent once more on a
// fresh one, if that is safe; renewed is the error of opening that one.
func (w *work) roundTrip(ctx context.Context, upgrade []byte) (t trouble, renewed error) {
	for {
		up := w.lease.Stream
		up.WriteWithin(w.server.opts.ResponseTimeout)
		if _, err := up.Write(w.out); err != nil {
			t = backendTrouble(err)
		} else {
			if w.pump != nil {
				w.pump.start(up)
			}
			t = w.answer(upgrade)
		}
		died := t == troubleReset && w.lease.Reused && w.back == nil
		if !died || !w.replayable {
			return t, nil
		}
		w.server.metrics.retries.Add(1)
		if err := w.lease.Renew(ctx, w.server.opts.Connect); err != nil {
			return t, err
		}
		w.down.hold(w.lease.Stream)
	}
}

// answer reads heads until the final one, which it leaves in w.res with its
// bytes still at the front of w.back. Interim ones are passed on.
func (w *work) answer(upgrade []byte) trouble {
	scan := headScan{}
	for interim := 0; ; {
		n := 0
		if w.back != nil {
			var f fault
			if n, f = scan.end(w.back.Unread()); f.bad() {
				return troubleProtocol
			}
		}
		if n == 0 {
			if t := w.fillBack(); t != troubleNone {
				return t
			}
			continue
		}
		if f := w.res.parse(w.back.Unread()[:n]); f.bad() {
			return troubleProtocol
		}
		if w.res.status == 101 && !w.res.upgradedTo(upgrade) {
			return troubleProtocol
		}
		if w.res.status >= 200 || w.res.status == 101 {
			w.scan.next = n // the length of the head, for deliver
			return troubleNone
		}
		if interim++; interim > maxInterim {
			return troubleProtocol
		}
		if t := w.interim(); t != troubleNone {
			return t
		}
		w.back.R += n
		scan = headScan{}
	}
}

// upgradedTo reports whether a 101 is the change that was asked for.
func (r *response) upgradedTo(asked []byte) bool {
	return asked != nil && r.upgrade && r.upgrades == 1 && equalFold(r.protocol, asked)
}

// interim passes a 1xx on to a client that understands it.
func (w *work) interim() trouble {
	if w.req.minor == 0 || w.res.status == 100 && !w.req.expects {
		return troubleNone
	}
	sent := w.sent
	t := w.down.interim(w)
	w.sent = sent // the final answer can still be our own
	return t
}

// fillBack reads more of the answer's head.
func (w *work) fillBack() trouble {
	up := w.lease.Stream
	if w.back != nil && w.back.W == forward.BufferSize {
		w.back.Compact()
		if w.back.W == forward.BufferSize {
			return troubleProtocol // larger than any head may be
		}
	}
	by := time.Now().Add(w.server.opts.ResponseTimeout)
	for {
		up.ReadWithin(max(min(time.Until(by), lookEvery), time.Millisecond))
		if w.pump != nil && w.pump.broken() != troubleNone {
			return w.pump.broken()
		}
		var err error
		if w.back == nil {
			w.back, err = up.Receive()
		} else {
			_, err = w.back.Fill(up)
		}
		if err == nil {
			return troubleNone
		}
		t := backendTrouble(err)
		switch {
		case w.pump != nil && w.pump.broken() != troubleNone:
			return w.pump.broken() // it has interrupted us
		case t != troubleSilent:
			return t
		case w.pump != nil && w.pump.busy():
			// The backend waits for the rest of the body, and the pump sees the client.
			by = time.Now().Add(w.server.opts.ResponseTimeout)
		case (w.pump == nil || w.pump.ended()) && w.down.gone():
			return troubleClient
		case !time.Now().Before(by):
			return t
		}
	}
}

// conclude releases the lease, tells the client if something went wrong and it
// can still be told, and reports whether another request may follow.
func (w *work) conclude(t trouble, keepBackend bool, service string) bool {
	if w.pump != nil && w.pump.started {
		if !w.pump.stop() {
			w.keep, keepBackend = false, false
		}
	}
	if t == troubleReset && w.lease.Reused && w.back == nil {
		w.lease.Backend.Report(forward.OutcomeReset) // it may just have tired of an idle connection
	} else {
		w.lease.Backend.ReportAnswer(t.outcome(w.res.status))
	}
	switch {
	case t == troubleNone:
		w.lease.Release(keepBackend)
		w.server.metrics.answered(w.res.status)
		w.down.ended(w)
		return w.keep
	case t == troubleClient:
		w.lease.Stream.Abort()
		w.lease.Release(false)
		w.down.abort()
		return false
	default:
		w.lease.Stream.Abort()
		w.lease.Release(false)
		f := t.fault(service)
		if w.sent {
			w.server.metrics.cut.Add(1)
			w.down.abort() // the client must see that it is not the whole
			return false
		}
		w.keep = w.keep && (w.pump == nil || w.pump.complete())
		return w.reply(f)
	}
}
