package l7

import (
	"context"
	"time"

	"github.com/pharos-lb/pharos/forward"
)

// maxInterim is how many 1xx answers to one request a backend may send.
const maxInterim = 100

// lookEvery is how often it is looked, while a backend thinks, whether the
// client is still there. One that has only finished sending counts as gone.
const lookEvery = time.Second

// exchange forwards w.req to a service, and reports whether another request may follow
// on the client's connection.
func (w *work) exchange(ctx context.Context, service string) bool {
	r := &w.req
	w.upgrade = r.upgradeTo()
	w.replayable = r.idempotent()
	w.body = w.body[:0]
	w.service, w.upBytes = service, max(r.length, 0)
	terms, came := w.terms(service)
	if f := w.admitTo(service); f.bad() {
		return w.early(f)
	}
	expects := r.expects && r.minor > 0
	switch {
	case r.chunked, r.length > maxInline, r.length > 0 && expects:
		w.pump = &pump{work: w, chunked: r.chunked, left: r.length}
		w.prefers = w.accepts() // the head's bytes may be written over by the body
		w.remember()
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
	whole, ctx := ctx, w.within(ctx)
	defer w.relax()
	w.lease, err = w.server.registry.Load().Borrow(ctx, service, terms)
	if err != nil {
		return w.refuse(service, err)
	}
	if w.lease.Backend.Elsewhere() {
		w.handOn(&came)
	}
	w.reach()
	w.hold(w.up)
	w.backend = w.lease.Backend.Text()
	if w.lease.Waited && w.down.gone() {
		w.hold(nil)
		return w.conclude(troubleClient, false, service)
	}
	since := time.Now()
	t, renewed := w.roundTrip(ctx, terms)
	if renewed != nil { // the lease is gone with the failure to renew it
		return w.refuse(service, renewed)
	}
	if t == troubleNone {
		w.status = w.res.status
		took := time.Since(since)
		w.server.meters.backend(w.lease.Backend).observe(took)
		if w.lease.Backend.Timed() {
			w.lease.Backend.Observe(took)
		}
	}
	if t == troubleNone && w.res.status == 101 {
		w.relax()
		w.remember() // the head's bytes are given back while the tunnel is open
		w.down.tunnel(whole, w)
		w.hold(nil)
		return false
	}
	keepBackend := false
	if t == troubleNone {
		keepBackend, t = w.deliver()
	}
	switch {
	case t == troubleNone:
	case whole.Err() != nil:
		t = troubleClient // we have cut it: nothing is to be said about the backend
	case (t == troubleReset || t == troubleSilent) && w.down.gone():
		t = troubleClient // its end interrupts whatever is under way, which looks as if the backend failed
	case w.isLate():
		t = troubleLate
	}
	w.hold(nil) // it may go to another client now
	return w.conclude(t, keepBackend, service)
}

// terms are those on which w.req gets a backend, and what the request was before it is made ready for one, if that will be
// asked for.
func (w *work) terms(service string) (forward.Terms, came) {
	edition := w.server.registry.Load()
	terms := forward.Terms{
		Connect: w.set.times.Connect, Reuse: true, Shard: w.shard, Key: w.hash(edition.Key(service, false)),
		Carrier: w.server.carrier, Client: &w.ends.whom,
	}
	if w.set.overflow == 0 || w.req.handed != nil || !edition.Overflows(service, w.ends.via) {
		return terms, came{}
	}
	terms.Overflow, terms.Elsewhere = w.set.overflow, &w.set.elsewhere
	return terms, w.came()
}

// refuse answers that nobody could be asked.
func (w *work) refuse(service string, err error) bool {
	f := w.unavailable(service, err)
	w.keep = w.keep && w.pump == nil
	return w.reply(f)
}

// roundTrip sends the request and waits for the head of the final answer. A
// request that meets a connection which died while idle is sent once more on a
// fresh one, if that is safe; renewed is the error of opening that one.
func (w *work) roundTrip(ctx context.Context, terms forward.Terms) (t trouble, renewed error) {
	for again := false; ; again = true {
		if t = w.up.send(w); t == troubleNone {
			if w.pump != nil {
				w.pump.start(w.up)
			}
			t = w.up.answer(w)
		}
		if t == troubleNone && w.req.version >= 2 && w.upgrade != nil && w.res.status/100 == 2 {
			t = troublePlain // which would say to a CONNECT that the tunnel is there
		}
		if again || !w.repeatable(t) {
			return t, nil
		}
		w.server.metrics.retries.Add(1)
		w.hold(nil)
		if err := w.renew(ctx, terms); err != nil {
			return t, err
		}
		w.hold(w.up)
	}
}

// repeatable reports whether the request may be sent once more: the backend has said that it did nothing
// about it, or the connection had died while idle and twice is the same as once.
func (w *work) repeatable(t trouble) bool {
	switch {
	case w.isLate(), !w.up.untouched(), w.pump != nil && w.pump.started:
		return false
	case t == troubleRefused:
		return true
	}
	return t == troubleReset && w.lease.Reused && w.replayable
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

// waited is called when waiting for the answer's head until by, or for a moment of it, has failed with t: it
// says whether to go on, and if not what the trouble is.
func (w *work) waited(t trouble, by *time.Time) (_ trouble, again bool) {
	switch {
	case w.pump != nil && w.pump.broken() != troubleNone:
		return w.pump.broken(), false // it has interrupted us
	case t != troubleSilent:
		return t, false
	case w.pump != nil && w.pump.busy():
		// The backend waits for the rest of the body, and the pump sees the client.
		*by = time.Now().Add(w.set.times.Response)
	case (w.pump == nil || w.pump.ended()) && w.down.gone():
		return troubleClient, false
	case !time.Now().Before(*by):
		return t, false
	}
	return troubleNone, true
}

// deserted ends a request whose client takes no answer; who has seen nothing of one has got none.
func (w *work) deserted() bool {
	w.trouble = "the client went away"
	if !w.reached {
		w.status = 0
	}
	w.down.abort()
	return false
}

// conclude releases the lease, tells the client if something went wrong and it
// can still be told, and reports whether another request may follow.
func (w *work) conclude(t trouble, keepBackend bool, service string) bool {
	if w.pump != nil && w.pump.started {
		if !w.pump.stop() {
			w.keep, keepBackend = false, false
		}
		w.upBytes = w.pump.total
	}
	if t == troubleRefused || t == troubleReset && w.lease.Reused && w.up.untouched() {
		w.lease.Backend.Report(forward.OutcomeReset) // it may just have tired of an idle connection
	} else {
		w.lease.Backend.ReportAnswer(t.outcome(w.res.status))
	}
	if t != troubleNone {
		w.up.Abort()
	}
	w.lease.Release(keepBackend && t == troubleNone)
	switch {
	case t == troubleNone:
		w.server.metrics.answered(w.res.status)
		w.down.ended(w)
		return w.keep
	case t == troubleClient:
		return w.deserted()
	case w.sent:
		f := t.fault(service)
		w.trouble = f.text
		if f.shed != shedNone {
			w.server.metrics.shed[f.shed].Add(1)
		}
		w.server.metrics.cut.Add(1)
		if w.endGRPC(f) {
			w.down.ended(w)
		} else {
			w.down.abort() // the client must see that it is not the whole
		}
		return false
	}
	w.keep = w.keep && (w.pump == nil || w.pump.complete())
	return w.reply(t.fault(service))
}
